"""What contradicts itself is refused before anything is opened."""

from pathlib import Path
from typing import Any

import pytest

from converter.job import ConversionJob, Method
from engine.errors import NkatError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank 0; allowed are 2, 4, 6, 8"),
        ({"rank": 3}, "rank 3; allowed are 2, 4, 6, 8"),
        ({"gamma": 2.0}, "gamma is 2; it must lie between 0 and 1"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"gamma": 0.0}, "gamma is 0, which takes all effect"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"windows": 0}, "windows must be at least 1"),
        ({"eval_windows": -1}, "eval_windows must be at least 1"),
        ({"target_size": 0}, "target_size must be at least 1"),
        ({"window": 15}, "at least 16 tokens, not 15"),
        ({"learning_rate": float("nan")}, "learning rate must lie between 0 and 1"),
        ({"learning_rate": 0.0}, "learning rate must lie between 0 and 1"),
        ({"seed": 1 << 31}, "seed must lie between 0 and"),
        ({"seed": -1}, "seed must lie between 0 and"),
        ({"method": Method.RESIDUAL}, "residual needs --reference"),
        ({"method": Method.SVD, "reference": Path("r.gguf")}, "svd has no use for --reference"),
        ({"optimize_rank": True}, "without windows for choosing"),
        ({"export_lora": Path("folder/../out.nkat")}, "name the same file"),
        ({"export_lora": Path("out.nkat")}, "name the same file"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NkatError, match=message) as caught:
        ConversionJob(**{"input": Path("in.gguf"), "output": Path("out.nkat")} | changes)
    assert "\n" not in str(caught.value)


def test_the_checkpoint_stands_beside_the_output() -> None:
    job = ConversionJob(Path("in.gguf"), Path("folder/out.nkat"))
    assert job.checkpoint == Path("folder/out.nkat.checkpoint")
