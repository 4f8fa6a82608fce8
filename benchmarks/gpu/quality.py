"""Perplexity of a real model on the card's kernels, beside the figure that the processor gave."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.settings import Figures, Settings
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError
from engine.perplexity import measure_perplexity

_CONTEXT = 512


def perplexity(settings: Settings) -> Iterator[Figures]:
    """After each window of the text; `change` is the ratio to the recorded figure, if any, less 1."""
    assert settings.model is not None
    assert settings.text is not None
    try:
        text = Path(settings.text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {settings.text}: {error}") from None
    engine = Engine.load(
        EngineConfig(
            model=Path(settings.model),
            context_length=_CONTEXT,
            device=settings.device,
            max_sequences=1,
            token_budget=_CONTEXT,
        )
    )
    known = settings.cpu_perplexity
    for result in measure_perplexity(engine, text, context=_CONTEXT, windows=settings.windows):
        said: Figures = {
            "kernels": engine.kernels.name,
            "perplexity": result.perplexity,
            "error": result.error,
            "windows": result.windows,
        }
        if known is not None:
            said |= {"cpu_perplexity": known, "change": result.perplexity / known - 1}
        yield {"perplexity": said}
