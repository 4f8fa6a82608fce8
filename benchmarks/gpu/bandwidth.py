"""What a card's memory and tensor cores give, and what the kernels for decoding make of the memory."""

from collections.abc import Iterator

import torch

from benchmarks.gpu.launches import Launch, launches
from benchmarks.gpu.settings import Figures, Settings
from benchmarks.gpu.stopwatch import Stopwatch, stopwatch
from engine.cuda_graphs import Results
from engine.gguf import GGMLType
from engine.kernels.cuda.epilogue import Epilogue
from engine.kernels.cuda.formats import FORMATS
from engine.kernels.cuda.linear import activations
from engine.kernels.cuda.planes import Planes
from engine.kernels.cuda.weight import CudaWeight

TYPES = (*sorted(FORMATS), GGMLType.F16)
"""Those whose kernels are timed on one shape, beside the launches of the model."""
_ROTATED_CACHES = 4
"""Copies of a launch's matrices fill the second level cache so often before the first is read again."""
_FEWEST_COPIES = 2


def bandwidth(settings: Settings) -> Iterator[Figures]:
    """Bytes/s of a copy and of reading, FLOP/s of a product in bfloat16; then GEMV, launch by launch.

    The fraction of a launch is the bytes of its planes over its time, over the copy's bandwidth (in which
    bytes read and bytes written count).
    """
    watch, sizes = stopwatch(torch.device(settings.device)), settings.sizes
    copy = _copy_bandwidth(watch, sizes.buffer_bytes, 4 * sizes.repeats)
    yield {"copy_bytes_per_second": copy}
    yield {"read_bytes_per_second": _read_bandwidth(watch, sizes.buffer_bytes, 4 * sizes.repeats)}
    yield {"bf16_flops_per_second": _product_rate(watch, sizes.square, sizes.repeats)}
    seconds, read = 0.0, 0
    for launch in launches(settings.config):
        taken, planes = launch_seconds(watch, launch, settings)
        seconds, read = seconds + launch.times * taken, read + launch.times * planes
        yield {"gemv": {launch.name: _launch_figures(launch, taken, planes, copy)}}
    yield {"gemv_bandwidth_fraction": read / seconds / copy, "gemv_seconds_per_token": seconds}
    for launch in type_launches(settings):
        taken, planes = launch_seconds(watch, launch, settings)
        yield {"gemv_types": {launch.name: _launch_figures(launch, taken, planes, copy)}}


def type_launches(settings: Settings) -> list[Launch]:
    """One matrix of each type in the shape of the model's gate."""
    rows, width = settings.config.feed_forward, settings.config.width
    return [Launch(kind.name, (kind,), (rows,), width, Epilogue.STORE, 0) for kind in TYPES]


def launch_seconds(watch: Stopwatch, launch: Launch, settings: Settings) -> tuple[float, int]:
    """Seconds of one launch for one row among many recorded ones, and the bytes of its matrices' planes.

    A recording, since the host takes longer to launch than a small matrix takes to read.
    """
    generator = torch.Generator(watch.device).manual_seed(3)
    weights = launch.make(generator)
    planes = sum(weight.planes.nbytes for weight in weights)
    count = max(_FEWEST_COPIES, _ROTATED_CACHES * watch.cache_bytes // planes + 1)
    copies = [weights, *([_copied(weight) for weight in weights] for _ in range(count - 1))]
    outs = launch.outs(1, watch.device)
    x = activations(torch.randn(1, launch.width, generator=generator, device=watch.device), weights)
    rounds = -(-settings.sizes.launches // count)

    def work() -> Results:
        for _ in range(rounds):
            for each in copies:
                launch.run(x, each, outs)
        return tuple(outs)

    play, _ = watch.recorder()(work)
    taken = watch.median(play, settings.sizes.repeats)
    return taken / (rounds * count), planes


def _copied(weight: CudaWeight) -> CudaWeight:
    """The same matrix in other memory."""
    planes = weight.planes
    parts = (None if part is None else part.clone() for part in (planes.high, planes.scales, planes.supers))
    return CudaWeight(Planes(planes.type, planes.shape, planes.low.clone(), *parts), None)


def _launch_figures(launch: Launch, seconds: float, planes: int, copy: float) -> Figures:
    return {
        "seconds": seconds,
        "bytes": planes,
        "bytes_per_second": planes / seconds,
        "copy_fraction": planes / seconds / copy,
        "times": launch.times,
    }


def _copy_bandwidth(watch: Stopwatch, size: int, repeats: int) -> float:
    """Bytes/s of a copy within the memory, both those read and those written."""
    source = torch.zeros(size, dtype=torch.uint8, device=watch.device)
    target = torch.empty_like(source)
    return 2 * size / watch.median(lambda: target.copy_(source), repeats)


def _read_bandwidth(watch: Stopwatch, size: int, repeats: int) -> float:
    """Bytes/s of a sum, which writes next to nothing."""
    numbers = torch.zeros(size // 4, device=watch.device)
    return size / watch.median(numbers.sum, repeats)


def _product_rate(watch: Stopwatch, size: int, repeats: int) -> float:
    """FLOP/s of a square product in bfloat16. Of random numbers: zeros would let the clock rise."""
    generator = torch.Generator(watch.device).manual_seed(4)
    left, right = (
        torch.randn(size, size, generator=generator, device=watch.device).bfloat16() for _ in range(2)
    )
    return 2 * size**3 / watch.median(lambda: left @ right, repeats)
