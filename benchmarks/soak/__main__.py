"""`python -m benchmarks.soak --model FILE --minutes 10`: exit code 1 where the server did not hold out."""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.servers import our_server
from benchmarks.soak.actions import Client
from benchmarks.soak.watch import Sample, Watch, slope_per_minute

WARM_UP = 0.25
"""Of the time: caches fill, and memory settles."""
MOST_GROWTH = 1.0
"""MB of resident memory a minute, after the warm-up."""
MOST_MORE_DESCRIPTORS = 3
MOST_MORE_THREADS = 2
_GREEDY = {"prompt": "The sea was calm, and", "max_length": 24, "temperature": 0}
_REPORT_SECONDS = 10.0


def soak(
    model: Annotated[Path, typer.Option(help="GGUF or .nkat file")],
    minutes: Annotated[float, typer.Option(min=0.05, help="how long clients go on")] = 10.0,
    clients: Annotated[int, typer.Option(min=1, help="clients at a time")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the server")] = 2,
    seed: Annotated[int, typer.Option(help="other clients with another seed")] = 0,
) -> None:
    """Mixed clients on a server of its own; the last line is JSON."""
    with our_server(model, threads) as server:
        people = [Client(server.port, seed * 1000 + number) for number in range(clients)]
        first = people[0]
        before = _greedy(first)
        resting = Watch(server.pid).look()
        with Watch(server.pid) as watch:
            _run(people, watch, minutes * 60)
        _wait_until_idle(first)
        first.ask("/api/nkat/theta", {"enabled": True})
        unchanged = _greedy(first) == before
        result = _result(people, watch, minutes, unchanged=unchanged)
        result |= _growth("at_rest", [resting, Watch(server.pid).look()])
    print(json.dumps(result))
    if not result["held"]:
        raise SystemExit(1)


def _run(people: list[Client], watch: Watch, seconds: float) -> None:
    end = time.monotonic() + seconds

    def live(client: Client) -> None:
        while time.monotonic() < end:
            client.act()

    running = [threading.Thread(target=live, args=(client,)) for client in people]
    for thread in running:
        thread.start()
    while (left := end - time.monotonic()) > 0:
        now = watch.samples[-1]
        done = sum(sum(client.answers.values()) for client in people)
        said = f"{now.seconds:5.0f} s  {done} requests  {now.rss_mb:.0f} MB  {now.threads} threads"
        print(f"{said}  {now.descriptors} descriptors", file=sys.stderr, flush=True)
        time.sleep(min(left, _REPORT_SECONDS))
    for thread in running:
        thread.join()


def _greedy(client: Client) -> str:
    text: str = json.loads(client.ask("/api/v1/generate", _GREEDY))["results"][0]["text"]
    return text


def _wait_until_idle(client: Client) -> None:
    while not json.loads(client.ask("/api/extra/perf", None))["idle"]:
        time.sleep(0.2)


def _growth(name: str, samples: list[Sample]) -> dict[str, float]:
    return {f"{name}_growth_mb": round(samples[-1].rss_mb - samples[0].rss_mb, 1)}


def _result(people: list[Client], watch: Watch, minutes: float, *, unchanged: bool) -> dict[str, Any]:
    answers: Counter[str] = Counter()
    for client in people:
        answers.update(client.answers)
    faults = [fault for client in people for fault in client.faults]
    warm = watch.after(minutes * 60 * WARM_UP)
    half = len(warm) // 2
    early, late = warm[:half], warm[half:]
    more_threads = _most(late, "threads") - _most(early, "threads")
    more_descriptors = _most(late, "descriptors") - _most(early, "descriptors")
    slope = slope_per_minute(warm)
    held = (
        not faults
        and unchanged
        and slope < MOST_GROWTH
        and more_threads <= MOST_MORE_THREADS
        and more_descriptors <= MOST_MORE_DESCRIPTORS
    )
    return {
        "held": held,
        "requests": sum(answers.values()),
        "answers": dict(sorted(answers.items())),
        "faults": len(faults),
        "first_faults": faults[:5],
        "greedy_unchanged": unchanged,
        "rss_slope_mb_per_minute": round(slope, 2),
        "more_threads": more_threads,
        "more_descriptors": more_descriptors,
    }


def _most(samples: list[Sample], name: str) -> int:
    return max((getattr(sample, name) for sample in samples), default=0)


if __name__ == "__main__":
    typer.run(soak)
