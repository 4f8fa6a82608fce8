"""Which kernels a device gets. Cards are pretended: what is judged is the choice, not the card."""

from importlib.util import find_spec

import pytest
import torch

from engine.errors import ConfigError
from engine.kernels import dispatch, select_kernels
from engine.kernels.dispatch import device_kernels
from engine.native import native_kernels

CPU = torch.device("cpu")


def with_cards(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    """Let torch see cards of these capabilities."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index or 0])


def chosen(name: str, device: torch.device = CPU) -> str:
    return select_kernels(device, dense_bytes=0, threads=1, name=name).name


def test_the_processor() -> None:
    there = (*native_kernels(), "reference")
    assert chosen("auto") == there[0]
    assert [chosen(name) for name in there] == list(there)
    assert chosen(f"{there[0]}+triton") == there[0]
    assert chosen("triton+reference") == "reference"
    with pytest.raises(ConfigError, match=r"no kernels 'triton' on cpu; there are: .*reference"):
        chosen("triton")


@pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton here")
def test_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, (9, 0), (7, 5), (8, 0))
    assert device_kernels(torch.device("cuda:0")) == ("triton", "reference")
    assert device_kernels(torch.device("cuda:1")) == ("reference",)
    assert device_kernels(torch.device("cuda:2")) == ("triton", "reference")
    assert chosen("auto", torch.device("cuda:1")) == "reference"
    assert chosen("avx2+reference", torch.device("cuda:0")) == "reference"
    with pytest.raises(ConfigError, match="there are: triton, reference"):
        chosen("avx2", torch.device("cuda:0"))


def test_cards_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, (9, 0))
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    assert chosen("auto", torch.device("cuda:0")) == "reference"
