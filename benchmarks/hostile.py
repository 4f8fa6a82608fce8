"""What a running stream keeps of its pace beside each of a series of hostile requests, and what memory stays.

python -m benchmarks.hostile --model M

One live server; the stream and each hostile client have addresses of their own on the loopback network. The
pace is as in `benchmarks.crowd`; the gap is the longest time between two events of the stream. The table has
absolute figures; the last line is JSON: the least pace, the largest gap as a multiple of the mean one, and MB
of resident memory after the series beyond those before.
"""

import http.client
import json
import os
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.crowd import CACHE, CONTEXT, Beside, Crowd, Crowds
from benchmarks.servers import server_of
from benchmarks.soak.watch import Watch
from server.options import errors_in_one_line

LARGE = 31 << 20
"""Bytes, a little less than a server takes."""
IDLE_CONNECTIONS = 600
IDLE_SECONDS = 3.0
SETTLE_SECONDS = 5.0
"""After the series, for memory to be given back."""
_SECONDS = 120.0


class Attackers:
    """Those who send hostile requests to one server, each from another address."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sent = 0

    def crowd(self, path: str, body: bytes, times: int = 1) -> Crowd:
        """The same request, several at a time."""
        return lambda pool: [pool.submit(self._post, path, body, self._address()) for _ in range(times)]

    def idle(self, first: bytes) -> Crowd:
        """Connections that send the beginning of a request, and nothing more."""

        def hold(pool: ThreadPoolExecutor) -> list[Future[None]]:
            return [pool.submit(self._hold, first)]

        return hold

    def _post(self, path: str, body: bytes, source: tuple[str, int]) -> None:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=_SECONDS, source_address=source
        )
        # A connection that is closed is an answer, too.
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            connection.getresponse().read()

    def _hold(self, first: bytes) -> None:
        held = []
        for _ in range(IDLE_CONNECTIONS):
            with suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", self._port), _SECONDS, self._address())
                held.append(connection)
                connection.sendall(first)
        time.sleep(IDLE_SECONDS)
        for connection in held:
            connection.close()

    def _address(self) -> tuple[str, int]:
        self._sent += 1
        return f"127.9.{self._sent // 250}.{1 + self._sent % 250}", 0


def series(attackers: Attackers) -> dict[str, Crowd]:
    """The hostile requests by name."""
    words = "lorem ipsum dolor sit amet " * (LARGE // 27)
    text = json.dumps({"prompt": words, "max_length": 1}).encode()
    bans = json.dumps({"prompt": "a", "max_length": 1, "custom_token_bans": "1," * (LARGE // 2)}).encode()
    biases = json.dumps({"prompt": "a", "max_length": 1, "logit_bias": dict.fromkeys(range(2_000_000), 1)})
    ids = json.dumps({"prompt": [7] * 5_000_000, "max_tokens": 1}).encode()
    stops = json.dumps({"prompt": "a", "max_length": 1, "stop_sequence": ["stop"] * 1_000_000}).encode()
    deep = b'{"prompt": ' + b"[" * (1 << 20) + b"]" * (1 << 20) + b"}"
    schema = {"type": "object", "properties": {f"p{n}": {"enum": list(range(200))} for n in range(400)}}
    grammar = {"messages": [{"role": "user", "content": "a"}], "json_schema": schema, "max_tokens": 1}
    return {
        "a prompt of 31 MB": attackers.crowd("/api/v1/generate", text),
        "ten of them": attackers.crowd("/api/v1/generate", text, 10),
        "six texts of 31 MB to count": attackers.crowd("/api/extra/tokencount", text, 6),
        "31 MB of [], without a use": attackers.crowd("/sdapi/v1/txt2img", b"[" + b"[]," * (LARGE // 3)),
        "31 MB of [], in a request": attackers.crowd(
            "/api/v1/generate", b'{"prompt": [' + b"[]," * (LARGE // 3) + b"[]]}"
        ),
        "31 MB of custom_token_bans": attackers.crowd("/api/v1/generate", bans),
        "2 million logit_bias": attackers.crowd("/api/v1/generate", biases.encode()),
        "5 million token ids": attackers.crowd("/v1/completions", ids),
        "a million stop strings": attackers.crowd("/api/v1/generate", stops),
        "a million brackets": attackers.crowd("/api/v1/generate", deep),
        "four large schemas": attackers.crowd("/v1/chat/completions", json.dumps(grammar).encode(), 4),
        "connections that say nothing": attackers.idle(b""),
        "connections with half a head": attackers.idle(b"POST /api/v1/generate HTTP/1.1\r\nHost: "),
        "connections with half a body": attackers.idle(
            b"POST /api/v1/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n{"
        ),
    }


def hostile(
    model: Annotated[Path, typer.Option(help="GGUF file of a model with a context of 4,096 tokens")],
    threads: Annotated[int | None, typer.Option(min=1, help="unset: the cores allowed")] = None,
) -> None:
    """Measure a stream beside hostile requests; the last line is JSON."""
    console = Console(stderr=True, highlight=False)
    with errors_in_one_line():
        count = threads or len(os.sched_getaffinity(0))
        with server_of(model, count, context=CONTEXT, cache=CACHE) as server:
            crowds, watch = Crowds(server.port, one_client=False), Watch(server.pid)
            attackers = Attackers(server.port)
            # The processes that render chats start with the first ones.
            hello = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
            crowds.without_stream(attackers.crowd("/v1/chat/completions", json.dumps(hello).encode(), 4))
            # The cache is touched by long prompts, twice its size in all, and its memory stays.
            for _ in range(3):
                crowds.without_stream(crowds.long_prompts())
            resting = watch.look()
            found: dict[str, Beside] = {}
            for name, crowd in series(attackers).items():
                found[name] = crowds.beside(crowd)
                console.print(f"{name}: pace {found[name].pace:.2f}, {found[name].seconds:.1f} s")
            time.sleep(SETTLE_SECONDS)
            growth = watch.look().rss_mb - resting.rss_mb
    table = Table("beside", "pace", "largest gap", title=f"{model.name}, {count} threads")
    for name, beside in found.items():
        table.add_row(name, f"{beside.pace:.2f}", f"{beside.gap / beside.alone * 1000:.0f} ms")
    Console().print(table)
    said = {
        "least_pace": min(beside.pace for beside in found.values()),
        "largest_gap": max(beside.gap for beside in found.values()),
        "rss_growth_mb": growth,
    }
    print(json.dumps({key: round(value, 3) for key, value in said.items()}), flush=True)


def main() -> None:
    """Entry of the command: exit code 2 for what the user can mend, 130 after Ctrl-C."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(hostile)
    app(prog_name="python -m benchmarks.hostile")


if __name__ == "__main__":
    main()
