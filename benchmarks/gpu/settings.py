"""What one run of `benchmarks.gpu` measures, and how much of it. Knows no torch."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from benchmarks.gpu.model_shapes import SHAPES
from engine.architectures import LlamaConfig

Figures = dict[str, Any]
"""What was measured, as JSON has it: names, below them numbers or more of the same."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work the measurements do. Counts are of tokens where nothing else is said."""

    streams: tuple[int, ...] = (1, 4, 8, 16, 32, 64)
    """Sequences that decode together, rising; the first is 1."""
    context: int = 128
    """In front of the tokens that are decoded and timed."""
    steps: int = 32
    """Decoded in one measurement."""
    repeats: int = 5
    """Of a measurement, or pairs of two that are compared."""
    prompts: tuple[int, ...] = (512, 2048, 8192)
    chunk: int = 512
    """Of a prompt that is computed in chunks: the engine's usual budget of one step."""
    buffer_bytes: int = 2**30
    """That the copy's bandwidth is measured with."""
    square: int = 8192
    """Rows and columns of the product that shows the peak of arithmetic."""
    launches: int = 128
    """Of one kernel in a recording that times it."""
    check_rows: tuple[int, ...] = (1, 8, 33, 130)
    """Rows of activations, for each way that products go."""
    check_shape: tuple[int, int] = (1000, 2048)
    """Of the matrices whose products are checked."""
    check_heads: tuple[int, ...] = (64, 80, 96, 128, 256)
    """Elements of heads whose attention is checked."""
    block: int = 16
    """Of the KV cache."""

    @property
    def stream_tokens(self) -> int:
        """The longest context of a stream, in whole blocks; streams that begin first wait for all others."""
        return self._in_blocks(self.context + self.steps + 1 + max(self.streams))

    @property
    def positions(self) -> int:
        """The longest context of all, in whole blocks."""
        return max(self.stream_tokens, self._in_blocks(max(self.prompts) + self.steps + 1))

    @property
    def slots(self) -> int:
        """Of the KV cache: for one longest context, or for all streams."""
        return max(self.positions, max(self.streams) * self.stream_tokens)

    def _in_blocks(self, tokens: int) -> int:
        return -(-tokens // self.block) * self.block


QUICK = Sizes(streams=(1, 8, 32), steps=16, repeats=3, prompts=(512, 2048), check_heads=(64, 128))
"""For `--quick`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One run. Plain values, so that a child process gets it as JSON."""

    device: str = "cuda:0"
    shape: str = "llama2-7b"
    rank: int = 4
    """Of theta."""
    sizes: Sizes = Sizes()
    model: str | None = None
    """GGUF file whose perplexity is measured on `text`, a file's path, too."""
    text: str | None = None
    windows: int = 20
    """Of 512 tokens, at most, of that text."""
    cpu_perplexity: float | None = None
    llama_bench: str | None = None
    """Program of llama.cpp that measures `peer_model`."""
    peer_model: str | None = None

    @property
    def config(self) -> LlamaConfig:
        """The model's shape."""
        return SHAPES[self.shape]

    def config_of(self, layers: int | None) -> LlamaConfig:
        """The shape with so many layers; None: its own."""
        return self.config if layers is None else replace(self.config, layers=layers)

    def as_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Self:
        """The settings that `as_json` told."""
        sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in said["sizes"].items()
        }
        return cls(**{**said, "sizes": Sizes(**sizes)})


def path_text(path: Path | None) -> str | None:
    """A path for the settings."""
    return None if path is None else str(path)
