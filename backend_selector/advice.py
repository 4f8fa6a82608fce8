"""Says what would fit where a model does not. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from backend_selector.facts import CACHE_BITS, FileFacts, MachineFacts, Wishes
from backend_selector.placement import Placement, place
from backend_selector.sizes import gib
from backend_selector.stage import TRITON, Stage
from engine.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CacheNeed:
    """A KV cache that there is no room for."""

    tokens: int
    flag: str
    """What asks for that many, or would ask for fewer."""
    least: int
    """Tokens below which a smaller cache is no advice on a GPU."""
    block: int
    """Tokens that are allocated at a time."""


def no_room(
    file: FileFacts, machine: MachineFacts, wishes: Wishes, placement: Placement, need: CacheNeed
) -> ConfigError:
    """The error for a placement that has no room for the cache, with all that would have."""
    full = min(placement.stages, key=lambda stage: _or_any(stage.tokens()))
    if full.device == "cpu":
        return ConfigError(_on_the_processor(placement, full, need))
    cache = need.tokens * full.kv_bytes_per_token
    needed = full.weights + full.workspace + cache
    options = [*_options(file, machine, wishes, placement, need)]
    advice = ", or ".join(options) if options else "free some memory, or say --gpulayers 0"
    return ConfigError(
        f"{_layers(file, placement, full)} on {full.device} need {gib(needed)}, with a KV cache of "
        f"{need.tokens} tokens, but {gib(full.free)} are free: {advice}, or take a smaller model"
    )


def _on_the_processor(placement: Placement, full: Stage, need: CacheNeed) -> str:
    fits = placement.fits // need.block * need.block
    advice = f"say {need.flag} {fits} or less" if fits else "free some memory"
    return (
        f"a KV cache of {need.tokens} tokens needs {gib(need.tokens * full.kv_bytes_per_token)}, but cpu has "
        f"{gib(full.room)} free beside the weights: {advice}, or take a smaller model"
    )


def _layers(file: FileFacts, placement: Placement, stage: Stage) -> str:
    """How many layers a stage has, of all; the output counts as one."""
    layers = stage.blocks + (stage is placement.stages[-1])
    return f"{layers} of {file.layers + 1} layers"


def _options(
    file: FileFacts, machine: MachineFacts, wishes: Wishes, placement: Placement, need: CacheNeed
) -> Iterator[str]:
    """Flags that would make room for the cache, or a cache that there is room for."""
    layers = _most_layers(file, machine, wishes, placement, need.tokens)
    if layers is not None:
        would = "all on the processor" if layers == 0 else f"{layers} of {file.layers + 1} layers"
        yield f"{would} would fit: --gpulayers {layers}"
    fits = placement.fits // need.block * need.block
    if fits >= need.least:
        yield f"{need.flag} {fits}"
    quantised = [number for number in CACHE_BITS if number > wishes.quantkv]
    if any(stage.kernels == TRITON for stage in placement.stages):
        same = replace(wishes, gpulayers=placement.gpu_layers)
        enough = (
            number
            for number in quantised
            if place(file, machine, replace(same, quantkv=number)).fits >= need.tokens
        )
        number = next(enough, None)
        if number is not None:
            yield f"--quantkv {number}"


def _most_layers(
    file: FileFacts, machine: MachineFacts, wishes: Wishes, placement: Placement, tokens: int
) -> int | None:
    """The most layers on GPUs with which a cache of so many tokens fits; None: not even without any."""
    for layers in range(placement.gpu_layers - 1, -1, -1):
        try:
            fits = place(file, machine, replace(wishes, gpulayers=layers)).fits
        except ConfigError:  # kernels that the processor has not
            continue
        if fits >= tokens:
            return layers
    return None


def _or_any(tokens: int | None) -> float:
    return float("inf") if tokens is None else tokens
