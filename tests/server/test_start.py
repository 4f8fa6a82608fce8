"""What the settings say about GPUs, on its way to the engine. The machine is pretended: nothing is loaded."""

from pathlib import Path
from typing import Any

import pytest

from server.commands import start
from server.settings import Settings
from tests.backend_selector.machines import GIB, LAPTOP, with_cards


@pytest.mark.parametrize(
    ("said", "device"),
    [
        ({}, "cuda:0"),
        ({"gpulayers": 2}, "cpu=1,cuda:0=1"),
        ({"gpulayers": 0}, "cpu"),
        ({"tensor_split": (1, 1)}, "cuda:0=2,cuda:1=0"),
        ({"maingpu": 1}, "cuda:1"),
        ({"device": "cpu", "gpulayers": 3}, "cpu"),
    ],
)
def test_layers_are_placed(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], device: str
) -> None:
    monkeypatch.setattr(start, "probe_machine", lambda: with_cards(4 * GIB, 3 * GIB))
    asked = Settings(model=tiny_model, contextsize=256, quantkv=2, **said).engine_config()
    begun = start.choose_start(asked)
    assert begun.config.device == device
    assert begun.config.quantkv == 2
    assert ("cpu" not in device) == (begun.config.kernels == "triton")


def test_a_larger_step_needs_a_larger_workspace(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "probe_machine", lambda: with_cards(4 * GIB))
    larger: tuple[dict[str, Any], ...] = ({}, {"blasbatchsize": 4096}, {"parallelrequests": 256})
    needed = [
        start.choose_start(Settings(model=tiny_model, **said).engine_config()).choice.shares[0].workspace
        for said in larger
    ]
    assert needed[0] < min(needed[1:])


def test_gpus_that_there_are_not_are_told(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "probe_machine", lambda: LAPTOP)
    begun = start.choose_start(Settings(model=tiny_model, gpulayers=9, maingpu=0).engine_config())
    assert begun.config.device == "cpu"
    assert sum("there is no CUDA device" in warning for warning in begun.choice.warnings) == 2
