"""Decoding and reading prompts with a random model: speed, recordings against eager steps, theta's cost."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.gpu.check import Check, largest, run_checks
from benchmarks.gpu.settings import Figures, Settings
from benchmarks.gpu.streams import Bench, Streams
from benchmarks.ratios import Pairs, take_turns
from engine.model_runner import ModelRunner


def steps(settings: Settings) -> Iterator[Figures]:
    """Tokens/s of decoding for each number of streams and of prompts of each length, on the engine's runner.

    A step of decoding is timed on the clock with its batch, the model, a greedy draw and the way of the
    tokens to the host; its `model_seconds` on the device, the model alone.
    """
    bench = Bench(settings)
    yield {
        "weight_bytes": bench.loader.read_bytes,
        "weight_flops": bench.loader.flops,
        "cache_bytes_per_token": bench.model.cache_shape.bytes_per_token(bench.cache.keys.itemsize),
    }
    runners: list[ModelRunner] = []
    seconds = bench.watch.wall_seconds(lambda: runners.append(bench.recorded(max(settings.sizes.streams))))
    yield {"record_seconds": seconds}
    (recorded,) = runners
    for count in settings.sizes.streams:
        yield {"decode": {str(count): _decode(bench, recorded, count)}}
    yield from _graphs(bench, recorded)
    yield from _prompts(bench)


def theta(settings: Settings) -> Iterator[Figures]:
    """What theta adds to the time of a step and of a prompt: the same model with it and without, in turn."""
    bench = Bench(settings, rank=settings.rank)
    star = bench.model.star
    assert star is not None, "it was asked for"
    without = bench.recorded(1)
    star.enable(True)
    corrected = bench.recorded(1)
    streams = Streams(bench, 1, bench.sizes.context)
    streams.read(bench.eager)
    pairs = _step_pairs(bench, streams, corrected, without)
    yield {"theta": {"rank": settings.rank, "decode_overhead": pairs.median - 1} | _spread(pairs)}
    length = bench.sizes.prompts[min(1, len(bench.sizes.prompts) - 1)]
    prompt = Streams(bench, 1, length)

    def reading(on: bool) -> Callable[[], float]:
        def read() -> float:
            star.enable(on)
            return bench.watch.wall_seconds(lambda: prompt.read(bench.eager))

        return read

    both = [reading(True), reading(False)]
    for each in both:
        each()
    pairs = _paired(take_turns(bench.sizes.repeats, both))
    yield {"theta": {"prefill_overhead": pairs.median - 1, "prefill_tokens": length}}


def _decode(bench: Bench, runner: ModelRunner, count: int) -> Figures:
    sizes = bench.sizes
    streams = Streams(bench, count, sizes.context)
    streams.read(bench.eager)
    taken = []
    for _ in range(sizes.repeats + 1):
        streams.rewind()
        taken.append(bench.watch.wall_seconds(lambda: streams.decode(runner, sizes.steps)) / sizes.steps)
    # The first run compiles what is new.
    step = statistics.median(taken[1:])
    batch = streams.next_batch()
    return {
        "tokens_per_second": count / step,
        "step_seconds": step,
        "model_seconds": bench.watch.median(lambda: runner.run(batch), 4 * sizes.repeats),
    }


def _graphs(bench: Bench, recorded: ModelRunner) -> Iterator[Figures]:
    """Recorded steps against eager ones for one stream: how much faster, and whether the logits agree."""
    streams = Streams(bench, 1, bench.sizes.context)
    streams.read(bench.eager)
    batch = streams.next_batch()
    yield from run_checks(
        iter(
            [
                Check(
                    "a recording's logits",
                    0.0,
                    lambda: largest(recorded.run(batch).clone(), bench.eager.run(batch)),
                )
            ]
        )
    )
    pairs = _step_pairs(bench, streams, bench.eager, recorded)
    yield {"graphs": {"speedup": pairs.median} | _spread(pairs)}


def _prompts(bench: Bench) -> Iterator[Figures]:
    """Each length at once, and in chunks where it is longer than one."""
    sizes = bench.sizes
    for length in sizes.prompts:
        streams = Streams(bench, 1, length)
        for chunk in [None] if length <= sizes.chunk else [None, sizes.chunk]:
            read = partial(streams.read, bench.eager, chunk)
            read()
            seconds = statistics.median(bench.watch.wall_seconds(read) for _ in range(sizes.repeats))
            name = str(length) if chunk is None else f"{length} by {chunk}"
            yield {"prefill": {name: {"tokens_per_second": length / seconds, "first_token_seconds": seconds}}}


def _step_pairs(bench: Bench, streams: Streams, ours: ModelRunner, theirs: ModelRunner) -> Pairs:
    """Seconds of the same steps of decoding by two runners in turn."""

    def timed(runner: ModelRunner) -> Callable[[], float]:
        def measure() -> float:
            streams.rewind()
            return bench.watch.wall_seconds(lambda: streams.decode(runner, bench.sizes.steps))

        return measure

    both = [timed(ours), timed(theirs)]
    for each in both:
        each()
    return _paired(take_turns(bench.sizes.repeats, both))


def _paired(results: Iterator[tuple[float, ...]]) -> Pairs:
    ours, theirs = zip(*results, strict=True)
    return Pairs(ours, theirs)


def _spread(pairs: Pairs) -> Figures:
    lower, upper = pairs.quartiles
    return {"ratio_quartiles": [lower, upper], "pairs": len(pairs.ours)}
