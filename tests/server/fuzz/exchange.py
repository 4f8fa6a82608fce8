"""One request and its whole answer; whatever ends a connection early is an error here."""

import http.client
import json
from dataclasses import dataclass
from typing import Any

PATIENCE = 20.0
"""Seconds without a byte after which an answer is stuck. Long, because machines that test are busy."""


@dataclass(frozen=True)
class Heard:
    """An answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def json(self) -> Any:
        """The body as JSON in the strict sense."""
        return json.loads(self.body, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def exchange(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    chunked: bool = False,
    patience: float = PATIENCE,
) -> Heard:
    """Send a request on a connection of its own. Raises when the answer is cut short or does not come.

    `chunked`: the body is sent in two pieces, without its length.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        if chunked and body is not None:
            middle = len(body) // 2
            pieces = iter([piece for piece in (body[:middle], body[middle:]) if piece])
            connection.request(method, path, pieces, {"Connection": "close"}, encode_chunked=True)
        else:
            connection.request(method, path, body, {"Connection": "close"})
        answer = connection.getresponse()
        return Heard(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        )
    finally:
        connection.close()
