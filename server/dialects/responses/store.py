"""The last responses, so that a later request can go on with one of them."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from server.dialects.responses.items import Message
from server.wire.replies import HttpError, to_json

RESPONSES = 64
"""Responses that are kept; the oldest goes first."""

CHARACTERS = 64 << 20
"""What all of them together may take, as ASCII JSON."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it was sent, and the conversation up to it, its own turn included."""

    reply: dict[str, Any]
    conversation: tuple[Message, ...]


class ResponseStore:
    """Responses by id, in memory. Lives on one event loop and needs no locks."""

    def __init__(self, responses: int = RESPONSES, characters: int = CHARACTERS) -> None:
        self._responses = responses
        self._characters = characters
        self._kept: OrderedDict[str, StoredResponse] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def put(self, response: StoredResponse) -> None:
        """Keep `response`; older ones make room. One that alone is too large is not kept."""
        size = len(to_json(response.reply)) + len(to_json(response.conversation))
        if size > self._characters:
            return
        response_id = response.reply["id"]
        self._kept[response_id] = response
        self._sizes[response_id] = size
        while len(self._kept) > self._responses or sum(self._sizes.values()) > self._characters:
            oldest, _ = self._kept.popitem(last=False)
            del self._sizes[oldest]

    def get(self, response_id: str) -> StoredResponse:
        """The response of that id. Raises `HttpError` if it was never kept, or no longer is."""
        kept = self._kept.get(response_id)
        if kept is None:
            message = f"Previous response with id {response_id[:80]!r} not found."
            raise HttpError(404, message, "previous_response_not_found")
        return kept
