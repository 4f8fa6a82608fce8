"""What a running stream keeps of its pace, and how long a short request waits, beside a crowd of others.

python -m benchmarks.crowd --model M

In each repeat a stream of a live server is measured beside three crowds: eight long prompts, a client that
asks again and again for a reply by an ambiguous grammar, and eight clients with one short request after the
other. While the crowd is there a request for one token is sent. The long prompts are measured alone, too.
Every party has an address of its own on the loopback network, so that the server takes it for a client of its
own, unless `--one-client` is given. The stream shares the processor with this program's threads.

The pace is a stream's tokens per second while the crowd is there over those of the same stream just before
and after; the gap is the longest time between two of its events, over the mean alone. The table has medians
and absolute figures; the last line is JSON and holds ratios only.
"""

import http.client
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.servers import server_of
from server.options import errors_in_one_line

LONG_PROMPTS = 8
LONG_TOKENS = 3900
SHORT_CLIENTS = 8
SHORT_TOKENS = 24
SHORT_REPLY = 8
CONTEXT = 4096
CACHE = 10 * CONTEXT
GRAMMAR_REPLY = 200
WARM_UP = 16
ALONE_TOKENS = 64
"""Of a stream before a crowd comes, and once more after it has gone."""
CROWD_SECONDS = 8.0
"""Of the crowds that have no end of their own."""
STREAM_TOKENS = CONTEXT - 64
AMBIGUOUS = "root ::= root root | root root root | [a-z ]"
_FIRST_ID = 1000
_IDS = 20000
_SECONDS = 600.0


@dataclass
class Stream:
    """A reply that comes token by token; ends when `stop` is set."""

    port: int
    address: str
    prompt: list[int]
    tokens: int
    times: list[float] = field(default_factory=list)
    stopped: bool = False
    ended: bool = False

    def run(self) -> None:
        """Read until the end, or until somebody stops it."""
        body = {"prompt": self.prompt, "max_tokens": self.tokens, "stream": True} | _GREEDY
        with closing(_connect(self.port, self.address)) as connection:
            for line in _post(connection, body):
                if line.startswith(b"data: {"):
                    self.times.append(time.perf_counter())
                if self.stopped:
                    break
        self.ended = True

    def wait_for(self, events: int) -> float:
        """Let so many more events come, or the end; the time then."""
        wanted = len(self.times) + events
        while len(self.times) < wanted and not self.ended:
            time.sleep(0.005)
        return time.perf_counter()

    def count(self, start: float, end: float) -> int:
        """Events in a window."""
        return sum(start <= at <= end for at in self.times)

    def gap(self, start: float, end: float) -> float:
        """The longest time without an event that ends or begins in a window."""
        gaps = [after - before for before, after in pairwise(self.times) if after >= start and before <= end]
        return max(gaps, default=end - start)


@dataclass(frozen=True)
class Beside:
    """One crowd in one repeat: a stream's tokens/s alone, its pace and gap as ratios of that, and seconds."""

    alone: float
    pace: float
    gap: float
    wait: float
    seconds: float


Crowd = Callable[[ThreadPoolExecutor], list[Future[None]]]
"""Sends its requests from a pool's threads."""

_CROWDS = ("long_prompts", "grammar", "short_requests")
_GREEDY = {"temperature": 0, "ignore_eos": True, "bypass_eos": True}


class Crowds:
    """One server, and those who ask it."""

    def __init__(self, port: int, *, one_client: bool) -> None:
        self._port = port
        self._one_client = one_client
        self._random = random.Random(0)
        self._addresses = 0

    def wait_alone(self) -> float:
        """Seconds of a request for one token while nobody else asks."""
        start = time.perf_counter()
        self._ask(self._address(), self._ids(16), 1)
        return time.perf_counter() - start

    def long_prompts(self) -> Crowd:
        """A crowd of long prompts."""
        prompts = [self._ids(LONG_TOKENS) for _ in range(LONG_PROMPTS)]
        addresses = [self._address() for _ in prompts]
        return lambda pool: [
            pool.submit(self._ask, address, prompt, 1)
            for address, prompt in zip(addresses, prompts, strict=True)
        ]

    def grammar(self) -> Crowd:
        """A crowd of one, who asks again and again for a reply by a grammar that can be read in many ways."""
        address = self._address()
        return lambda pool: [pool.submit(self._keep_asking, address, GRAMMAR_REPLY, grammar=AMBIGUOUS)]

    def short_requests(self) -> Crowd:
        """A crowd of clients with one short request after the other."""
        addresses = [self._address() for _ in range(SHORT_CLIENTS)]
        return lambda pool: [pool.submit(self._keep_asking, address, SHORT_REPLY) for address in addresses]

    def beside(self, crowd: Crowd) -> Beside:
        """A stream while a crowd is there, and alone before and after."""
        stream = Stream(self._port, self._address(), self._ids(16), STREAM_TOKENS)
        with ThreadPoolExecutor(LONG_PROMPTS + SHORT_CLIENTS) as pool:
            reading = pool.submit(stream.run)
            first = stream.wait_for(WARM_UP)
            start = stream.wait_for(ALONE_TOKENS)
            asked = crowd(pool)
            time.sleep(0.5)
            wait = self.wait_alone()
            for one in asked:
                one.result()
            end = time.perf_counter()
            last = stream.wait_for(ALONE_TOKENS)
            stream.stopped = True
            reading.result()
        before, after = stream.count(first, start), stream.count(end, last)
        alone = (before + after) / (start - first + last - end)
        pace = stream.count(start, end) / (end - start) / alone
        return Beside(alone, pace, stream.gap(start, end) * alone, wait, end - start)

    def without_stream(self, crowd: Crowd) -> float:
        """Seconds that a crowd takes alone."""
        start = time.perf_counter()
        with ThreadPoolExecutor(LONG_PROMPTS + SHORT_CLIENTS) as pool:
            for one in crowd(pool):
                one.result()
        return time.perf_counter() - start

    def _keep_asking(self, address: str, tokens: int, **others: Any) -> None:
        end = time.perf_counter() + CROWD_SECONDS
        while time.perf_counter() < end:
            self._ask(address, self._ids(SHORT_TOKENS), tokens, **others)

    def _address(self) -> str:
        if self._one_client:
            return "127.0.0.1"
        self._addresses += 1
        return f"127.0.{1 + self._addresses // 250}.{1 + self._addresses % 250}"

    def _ids(self, count: int) -> list[int]:
        """Token ids that no other prompt begins with."""
        return [_FIRST_ID + self._random.randrange(_IDS) for _ in range(count)]

    def _ask(self, address: str, prompt: list[int], tokens: int, **others: Any) -> None:
        with closing(_connect(self._port, address)) as connection:
            _post(connection, {"prompt": prompt, "max_tokens": tokens} | _GREEDY | others).read()


def _connect(port: int, address: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS, source_address=(address, 0))


def _post(connection: http.client.HTTPConnection, body: dict[str, Any]) -> http.client.HTTPResponse:
    content = json.dumps(body).encode()
    connection.request("POST", "/v1/completions", content, {"Content-Type": "application/json"})
    return connection.getresponse()


def crowd(
    model: Annotated[Path, typer.Option(help="GGUF file of a model with a context of 4,096 tokens")],
    repeats: Annotated[int, typer.Option(min=1, help="times that everything is measured")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="unset: the cores allowed")] = None,
    one_client: Annotated[bool, typer.Option("--one-client", help="all come from one address")] = False,
) -> None:
    """Measure a stream beside crowds; the last line is JSON."""
    with errors_in_one_line():
        count = threads or len(os.sched_getaffinity(0))
        with server_of(model, count, context=CONTEXT, cache=CACHE) as server:
            crowds = Crowds(server.port, one_client=one_client)
            found = list(_repeat(crowds, repeats))
    names = {name: [each[name] for each in found] for name in _CROWDS}
    table = Table(
        "beside", "pace", "largest gap", "wait of one token", title=f"{model.name}, {count} threads"
    )
    said: dict[str, float] = {}
    rate = statistics.median(one.alone for beside in names.values() for one in beside)
    idle = statistics.median(each["wait"] for each in found)
    table.add_row("nobody", f"{rate:.1f} tokens/s", f"{1000 / rate:.0f} ms", f"{idle * 1000:.0f} ms")
    for name, beside in names.items():
        pace = statistics.median(one.pace for one in beside)
        gap = statistics.median(one.gap for one in beside)
        wait = statistics.median(one.wait for one in beside)
        cells = f"{pace:.2f}", f"{gap / rate * 1000:.0f} ms", f"{wait * 1000:.0f} ms"
        table.add_row(name.replace("_", " "), *cells)
        said |= {f"{name}_pace": pace, f"{name}_gap": gap, f"{name}_wait": wait / idle}
    throughput = statistics.median(each["long_alone"] / each["long_prompts"].seconds for each in found)
    seconds = statistics.median(each["long_alone"] for each in found)
    said["long_prompts_throughput"] = throughput
    console = Console()
    console.print(table)
    console.print(
        f"{LONG_PROMPTS} prompts of {LONG_TOKENS} tokens alone: {LONG_PROMPTS * LONG_TOKENS / seconds:.0f} "
        f"tokens/s; beside the stream {throughput:.2f} of that"
    )
    print(json.dumps({key: round(value, 3) for key, value in said.items()}), flush=True)


def _repeat(crowds: Crowds, repeats: int) -> Iterator[dict[str, Any]]:
    console = Console(stderr=True, highlight=False)
    crowds.wait_alone()
    for number in range(repeats):
        each: dict[str, Any] = {"wait": crowds.wait_alone()}
        for name in _CROWDS:
            each[name] = beside = crowds.beside(getattr(crowds, name)())
            console.print(
                f"{number + 1} of {repeats}, {name}: pace {beside.pace:.2f}, gap {beside.gap:.1f}, "
                f"wait {beside.wait:.2f} s, {beside.seconds:.1f} s"
            )
        each["long_alone"] = crowds.without_stream(crowds.long_prompts())
        console.print(f"{number + 1} of {repeats}, long prompts alone: {each['long_alone']:.1f} s")
        yield each


def main() -> None:
    """Entry of the command: exit code 2 for what the user can mend, 130 after Ctrl-C."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(crowd)
    app(prog_name="python -m benchmarks.crowd")


if __name__ == "__main__":
    main()
