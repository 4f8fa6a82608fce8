"""The parts of a run of `benchmarks.gpu`, in their order. Knows no kernels."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.gpu.settings import Settings
from engine.cuda_graphs import GRAPH_SIZES
from engine.gguf import NATIVE_TYPES
from engine.kv_cache import CacheFormat

_TYPES_OF_A_PART = 3
_RECORDED_TOGETHER = 2
"""Numbers of rows whose kernels one process compiles, beyond those of the smallest batches."""


@dataclass(frozen=True, slots=True)
class Part:
    """Work that one process does: `kind` is what, `arguments` with what."""

    kind: str
    arguments: tuple[str, ...] = ()
    least_seconds: float = 0.0
    """Below that it is not worth a start."""

    @property
    def name(self) -> str:
        """For people, and as the key of its error."""
        return " ".join((self.kind, *self.arguments))


def prepared_parts(settings: Settings) -> list[Part]:
    """Checks of all kernels, and the compilation of those that are timed: parts that may run side by side.

    Triton keeps what it has compiled on disk, where later processes find it. Long ones come first.
    """
    kinds = sorted(kind.name for kind in NATIVE_TYPES)
    return [
        *_warm_ups(settings),
        *(Part("attention", (format.name,)) for format in CacheFormat),
        *(Part("products", names) for names in _groups(kinds, _TYPES_OF_A_PART)),
        Part("launches"),
        Part("stars"),
        Part("rest"),
    ]


def timed_parts(settings: Settings) -> list[Part]:
    """What must have the card for itself."""
    parts = [
        Part("bandwidth", least_seconds=15),
        Part("steps", least_seconds=20),
        Part("theta", least_seconds=20),
        Part("engine", least_seconds=20),
    ]
    if settings.model is not None and settings.text is not None:
        parts.append(Part("perplexity", least_seconds=20))
    if settings.llama_bench is not None and settings.peer_model is not None:
        parts.append(Part("peer", least_seconds=30))
    return parts


def _warm_ups(settings: Settings) -> list[Part]:
    """Compile the kernels of steps at each recorded number of rows, of theta, of prompts and of GEMV."""
    most = max(settings.sizes.streams)
    sizes = [str(size) for size in GRAPH_SIZES if size <= most]
    # Up to eight rows every number has kernels of its own.
    own = [(size,) for size in sizes if int(size) <= 8]
    shared = _groups([size for size in sizes if int(size) > 8], _RECORDED_TOGETHER)
    steps = [Part("compile", ("steps", *group)) for group in (*own[::-1], *shared)]
    return [*steps, Part("compile", ("gemv",)), Part("compile", ("theta",)), Part("compile", ("prompts",))]


def _groups(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(names[start : start + size]) for start in range(0, len(names), size)]
