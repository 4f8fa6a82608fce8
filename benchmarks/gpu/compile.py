"""Runs what will be timed once, on a model of two layers, so that its kernels are compiled."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from benchmarks.gpu.bandwidth import launch_seconds, type_launches
from benchmarks.gpu.launches import launches
from benchmarks.gpu.settings import Figures, Settings
from benchmarks.gpu.stopwatch import stopwatch
from benchmarks.gpu.streams import Bench, Streams

_LAYERS = 2
"""Q4_K_M has one of each kind among them."""


def compile_kernels(settings: Settings, what: str, counts: Sequence[str]) -> Iterator[Figures]:
    """`what`: `steps` with these numbers of streams, `theta`, `prompts` or `gemv`. Measures nothing."""
    settings = replace(settings, sizes=replace(settings.sizes, steps=1, repeats=1))
    match what:
        case "gemv":
            watch = stopwatch(torch.device(settings.device))
            for launch in [*launches(settings.config), *type_launches(settings)]:
                launch_seconds(watch, launch, settings)
        case "steps":
            bench = Bench(settings, layers=_LAYERS)
            for count in counts:
                streams = Streams(bench, int(count), 1)
                streams.read(bench.eager)
                streams.decode(bench.eager, 1)
        case "theta":
            _read_and_decode(Bench(settings, layers=_LAYERS, rank=settings.rank), theta=True)
        case "prompts":
            _read_and_decode(Bench(settings, layers=_LAYERS), theta=False)
        case _:
            raise ValueError(f"nothing is called {what}")
    yield from ()


def _read_and_decode(bench: Bench, *, theta: bool) -> None:
    if bench.model.star is not None:
        bench.model.star.enable(theta)
    sizes = bench.sizes
    for length in {sizes.context, *sizes.prompts}:
        streams = Streams(bench, 1, length)
        for chunk in (None, sizes.chunk):
            streams.read(bench.eager, chunk)
        streams.decode(bench.eager, 1)
