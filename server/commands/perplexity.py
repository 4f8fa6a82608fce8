"""`nkat perplexity`: how well a model predicts a text."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from backend_selector.facts import Wishes
from engine.config import EngineConfig
from engine.preparation import prepare_for_engine
from engine.text import Text


def perplexity(
    model: Path,
    text_file: Path,
    context: int,
    wishes: Wishes,
    *,
    windows: int | None,
    as_json: bool,
) -> None:
    """Measure and print. The progress goes to stderr, the result to stdout.

    `context` is the length of a window in tokens. Raises what loading the model raises, and
    `RequestError` for a text that cannot be read or is too short.
    """
    config = EngineConfig(
        model=model,
        context_length=context,
        threads=wishes.threads,
        device=wishes.device,
        kernels=wishes.kernels,
        kv_tokens=context,
        theta=wishes.theta,
        theta_path=wishes.theta_path,
        gamma=wishes.gamma,
    )
    text = Text.read([text_file])
    prepare_for_engine(model)
    from engine.engine import Engine  # imports torch
    from engine.perplexity import measure_perplexity

    engine = Engine.load(config)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("windows", total=windows)
        for result in measure_perplexity(engine, text.content, context=context, windows=windows):
            progress.update(
                task,
                completed=result.windows,
                total=result.total_windows,
                description=f"perplexity {result.perplexity:.4f}",
            )
    if as_json:
        json.dump({"model": engine.info.name, "text": text.name, **asdict(result)}, sys.stdout)
        print()
    else:
        print(
            f"perplexity {result.perplexity:.4f} +/- {result.error:.4f} "
            f"({result.windows} windows of {result.context} tokens, {result.tokens} scored)"
        )
