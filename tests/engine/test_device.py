"""The names of devices, and of several with a model's layers."""

import pytest
import torch

from engine.device import make_current, model_places, torch_device
from engine.errors import ConfigError
from tests.engine.kernels.test_dispatch import with_cards

CPU = torch.device("cpu")


def test_one_device_has_all_layers() -> None:
    assert model_places("cpu", 30) == ((CPU, 30),)
    assert torch_device("cpu") == CPU


def test_layers_on_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, (9, 0), (8, 6))
    places = model_places("cpu=9,cuda:1=20,cuda:0=1", 30)
    assert places == ((CPU, 9), (torch.device("cuda:1"), 20), (torch.device("cuda:0"), 1))
    assert model_places("cpu=30,cuda:0=0", 30)[-1] == (torch.device("cuda:0"), 0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "use auto, cpu, cuda or cuda:N"),
        ("meta", "use auto, cpu, cuda or cuda:N"),
        ("cuda:2", "torch sees 2 CUDA devices"),
        ("cpu=30", "name 2 to 16 devices"),
        ("cpu=10,cpu=20", "each once"),
        ("cpu=10,cuda=20", "name 2 to 16 devices"),
        ("cpu=10,cuda:0=20,", "name 2 to 16 devices"),
        ("cpu=-10,cuda:0=40", "name 2 to 16 devices"),
        ("cpu=10,cuda:0=19", "the model's 30 layers"),
        ("cpu=0,cuda:0=30", "none but the last may be 0"),
        ("cpu=10,cuda:7=20", "torch sees 2 CUDA devices"),
        (",".join(f"cuda:{number}=1" for number in range(30)), "name 2 to 16 devices"),
        ("=" * 10_000, "name 2 to 16 devices"),
    ],
)
def test_names_of_no_device(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, (9, 0), (8, 6))
    with pytest.raises(ConfigError, match=words) as caught:
        model_places(name, 30)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_the_thread_takes_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for name in ("cpu", "cuda", "cuda:1"):
        make_current(torch.device(name))
    assert taken == [torch.device("cuda:1")]
