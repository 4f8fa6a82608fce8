"""Layers on devices: by examples, and by what must hold for all of them."""

import re
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_selector.facts import MachineFacts, Wishes
from backend_selector.placement import _owners, place
from backend_selector.select import select_backend
from backend_selector.shares import read_shares
from engine.config import DEFAULT_CONTEXT_LENGTH
from engine.errors import ConfigError
from tests.backend_selector.machines import GIB, LAPTOP, LARGE, MIB, TINY, WORKSTATION, with_cards

USUAL = 4096
"""Tokens of context that a place on a card is worth."""


def test_a_card_that_can_hold_all_of_it() -> None:
    choice = select_backend(LARGE, with_cards(6 * GIB, 40 * GIB), Wishes())
    assert (choice.device.value, choice.kernels.value) == ("cuda:1", "triton")
    assert choice.layers.value == (("cuda:1", 32),)
    (share,) = choice.shares
    assert share.weights == (300 + 32 * 124 + 400) * MIB + 33 * MIB
    assert share.cache == choice.kv_tokens.value * 128 * 1024
    assert share.workspace > 0
    assert "8 bits" in choice.dtype.reason


def test_as_many_layers_as_fit() -> None:
    machine = with_cards(3 * GIB)
    choice = select_backend(LARGE, machine, Wishes())
    (cpu, on_cpu), (cuda, on_cuda) = choice.layers.value
    assert (cpu, cuda, on_cpu + on_cuda) == ("cpu", "cuda:0", 32)
    assert choice.device.value == f"cpu={on_cpu},cuda:0={on_cuda}"
    assert choice.kernels.value == "avx2+triton"
    assert f"{on_cuda + 1} of 33" in choice.layers.reason
    layers = on_cuda + 1
    assert 10 < layers < 25
    assert place(LARGE, machine, Wishes(gpulayers=layers)).spare >= USUAL
    assert place(LARGE, machine, Wishes(gpulayers=layers + 1)).spare < USUAL
    # The embedding is in front, the output at the end.
    front, back = choice.shares
    assert front.weights == round(1.04 * (300 + on_cpu * 120) * MIB) + on_cpu * MIB
    assert back.weights == (on_cuda * 125 + 401) * MIB


@pytest.mark.parametrize(
    ("wishes", "device"),
    [
        (Wishes(gpulayers=1), "cpu=32,cuda:0=0"),
        (Wishes(gpulayers=2), "cpu=31,cuda:0=1"),
        (Wishes(gpulayers=32), "cpu=1,cuda:0=31"),
        (Wishes(gpulayers=999), "cuda:0"),
        (Wishes(gpulayers=999, maingpu=1), "cuda:1"),
        (Wishes(gpulayers=5, device="cuda:1"), "cpu=28,cuda:1=4"),
        (Wishes(gpulayers=0), "cpu"),
        (Wishes(gpulayers=-1), "cuda:0"),
        (Wishes(gpulayers=0, maingpu=1), "cpu"),
        (Wishes(maingpu=1), "cuda:1"),
        (Wishes(maingpu=-1), "cuda:0"),
        (Wishes(device="cuda"), "cuda:0"),
        (Wishes(tensor_split=(7, 3)), "cuda:0=24,cuda:1=8"),
        (Wishes(tensor_split=(3, 7)), "cuda:0=10,cuda:1=22"),
        (Wishes(tensor_split=(0, 1, 0)), "cuda:1"),
        (Wishes(tensor_split=(1, 1), gpulayers=11), "cpu=22,cuda:0=6,cuda:1=4"),
        (Wishes(tensor_split=(1, 1), gpulayers=11, device="cuda"), "cpu=22,cuda:0=6,cuda:1=4"),
        (Wishes(tensor_split=(96, 4)), "cuda:0=32,cuda:1=0"),
        (Wishes(device="cpu", gpulayers=9), "cpu"),
        (Wishes(kernels="portable"), "cpu"),
        (Wishes(kernels="portable", gpulayers=5, maingpu=0), "cpu=28,cuda:0=4"),
        (Wishes(kernels="triton"), "cuda:0"),
    ],
)
def test_wishes(wishes: Wishes, device: str) -> None:
    placement = place(LARGE, with_cards(40 * GIB, 32 * GIB), wishes)
    assert placement.device == device
    assert sum(stage.blocks for stage in placement.stages) == 32
    if wishes.gpulayers is not None and wishes.gpulayers >= 0 and device != "cpu":
        assert placement.gpu_layers == min(wishes.gpulayers, 33)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (Wishes(maingpu=2), "no device cuda:2: there are 2 CUDA devices"),
        (Wishes(tensor_split=(1, 0, 1)), "no device cuda:2"),
        (Wishes(kernels="triton", device="cpu"), "no kernels 'triton' on cpu"),
        (Wishes(kernels="magic", gpulayers=33), "no kernels 'magic' on cuda:0; there are: triton"),
    ],
)
def test_what_there_is_not(wishes: Wishes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        place(LARGE, with_cards(40 * GIB, 32 * GIB), wishes)


@pytest.mark.parametrize(
    "shares", [(), (0.0, 0.0), (1.0, -1.0), (float("nan"),), (float("inf"), 1.0), (1.0,) * 17]
)
def test_shares_that_make_no_sense(shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="--tensor-split: "):
        Wishes(tensor_split=shares)
    with pytest.raises(ConfigError, match="--tensor-split is for several GPUs"):
        Wishes(tensor_split=(1, 1), device="cuda:0")


@pytest.mark.parametrize("text", ["7,3", "7 3", " 7.0,  3", "7\t3"])
def test_shares_as_text(text: str) -> None:
    assert read_shares(text) == (7.0, 3.0)


@pytest.mark.parametrize("text", ["", "a", "7;3", "0,0", "-1,2", "nan", "1e999", "1," * 10**6])
def test_texts_that_are_no_shares(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_shares(text)


def test_without_cards_the_processor_takes_all_and_says_so() -> None:
    wishes = Wishes(gpulayers=9, tensor_split=(1, 1), maingpu=3, quantkv=1)
    choice = select_backend(TINY, LAPTOP, wishes)
    assert choice.device.value == "cpu"
    told = " ".join(choice.warnings)
    for flag in ("--gpulayers", "--tensor-split", "--maingpu"):
        assert f"{flag} has no effect: there is no CUDA device" in told
    assert "--quantkv counts on CUDA devices alone" in told
    assert select_backend(TINY, LAPTOP, Wishes(gpulayers=-1, maingpu=-1)).warnings == ()
    with pytest.raises(ConfigError, match="there is no CUDA device"):
        select_backend(TINY, LAPTOP, Wishes(device="cuda", gpulayers=9))


def test_cards_for_the_reference_kernels_alone_get_no_part_of_a_model_by_themselves() -> None:
    small = replace(LARGE, trained_context=512)
    assert place(small, WORKSTATION, Wishes()).device == "cuda:1"
    assert place(small, replace(WORKSTATION, cuda=WORKSTATION.cuda[:1]), Wishes()).device == "cpu"


def test_layers_that_one_card_has_no_room_for_go_to_both() -> None:
    machine = with_cards(3 * GIB, 3 * GIB)
    few, many = (place(LARGE, machine, Wishes(gpulayers=layers)) for layers in (8, 30))
    assert few.device == "cpu=25,cuda:0=7"
    assert many.device == "cpu=3,cuda:0=15,cuda:1=14"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("wishes", "devices"),
    [
        (Wishes(gpulayers=1), ["cpu", "cuda:0"]),
        (Wishes(tensor_split=(1, 1)), ["cuda:0", "cuda:1"]),
        (Wishes(tensor_split=(1, 1), gpulayers=21), ["cpu", "cuda:0", "cuda:1"]),
        (Wishes(gpulayers=33), ["cuda:0"]),
        (Wishes(device="cpu"), ["cpu"]),
    ],
)
def test_a_tied_embedding_is_needed_at_both_ends(wishes: Wishes, devices: list[str], tied: bool) -> None:
    """Where the first block is and, as the output matrix, where the last one is; once where both are."""
    file = replace(LARGE, tied=tied, output=TINY.output if tied else LARGE.output)
    stages = place(file, with_cards(40 * GIB, 32 * GIB), wishes).stages
    assert [stage.device for stage in stages] == devices
    for number, stage in enumerate(stages):
        packed = 120 * stage.blocks if stage.device == "cpu" else 124 * stage.blocks
        other = stage.blocks
        if stage is stages[-1]:
            packed, other = packed + (0 if tied else 400), other + 1
        if number == 0 or (stage is stages[-1] and tied):
            packed += 300
        assert stage.weights == round((1.04 if stage.device == "cpu" else 1) * packed * MIB) + other * MIB


def test_several_cards_share_what_none_can_hold() -> None:
    choice = select_backend(LARGE, with_cards(4 * GIB, 3 * GIB), Wishes())
    assert [device for device, _ in choice.layers.value] == ["cuda:0", "cuda:1"]
    assert all(share.used <= share.free for share in choice.shares)


def test_a_quantised_cache_makes_room_for_layers() -> None:
    machine = with_cards(3 * GIB)
    layers = [place(LARGE, machine, Wishes(contextsize=16384, quantkv=q)).gpu_layers for q in (0, 1, 2)]
    assert layers == sorted(set(layers))
    whole = select_backend(LARGE, with_cards(40 * GIB), Wishes(quantkv=2))
    assert whole.shares[0].cache == whole.kv_tokens.value * 32 * 8 * 2 * (64 + 8)
    odd = replace(LARGE, cache_shape=replace(LARGE.cache_shape, value_dim=65))
    with pytest.raises(ConfigError, match="heads of 65"):
        select_backend(odd, machine, Wishes(quantkv=2))


def apply_each(advice: str) -> list[Wishes]:
    """The wishes that an error's flags amount to, each alone."""
    flags: list[tuple[str, str]] = re.findall(r"--(\w+) (\d+)", advice)
    changes: list[dict[str, Any]] = [{name: int(value)} for name, value in flags]
    return [Wishes(**change) for change in changes]


@pytest.mark.parametrize(
    ("free", "wishes"),
    [
        (6 * GIB, Wishes(gpulayers=33, contextsize=16384)),
        (4 * GIB, Wishes(gpulayers=33, contextsize=4096)),
        (5600 * MIB, Wishes(device="cuda:0", gpulayers=33, contextsize=8192)),
        (3 * GIB, Wishes(gpulayers=99)),
        (300 * MIB, Wishes(gpulayers=2)),
    ],
)
def test_what_does_not_fit_says_what_would(free: int, wishes: Wishes) -> None:
    machine = with_cards(free)
    with pytest.raises(ConfigError, match=r"of 33 layers on cuda:0 need .* are free: ") as caught:
        select_backend(LARGE, machine, wishes)
    message = str(caught.value)
    assert "\n" not in message
    flags = apply_each(message)
    assert flags
    for change in flags:
        layers = wishes.gpulayers if change.gpulayers is None else change.gpulayers
        context = change.contextsize or wishes.contextsize
        changed = replace(wishes, gpulayers=layers, contextsize=context, quantkv=change.quantkv)
        select_backend(LARGE, machine, changed)
    most = next(change.gpulayers for change in flags if change.gpulayers is not None)
    assert f"{most} of 33 layers would fit" in message or "all on the processor would fit" in message
    with pytest.raises(ConfigError):
        select_backend(
            LARGE,
            machine,
            replace(wishes, gpulayers=most + 1, contextsize=wishes.contextsize or DEFAULT_CONTEXT_LENGTH),
        )


def test_nothing_would_fit() -> None:
    machine: MachineFacts = with_cards(300 * MIB, available=300 * MIB)
    with pytest.raises(ConfigError, match="free some memory"):
        select_backend(LARGE, machine, Wishes(gpulayers=9, contextsize=4096))


def test_koboldcpps_command_for_a_split_model() -> None:
    machine = with_cards(40 * GIB, 32 * GIB)
    one = select_backend(LARGE, machine, Wishes(gpulayers=5, maingpu=1, quantkv=1)).koboldcpp
    assert "--usecublas 1 --gpulayers 5 --quantkv 1" in " ".join(one)
    two = select_backend(LARGE, machine, Wishes(tensor_split=(5, 4))).koboldcpp
    assert "--usecublas --gpulayers 33 --tensor_split 19 14" in " ".join(two)


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=8).filter(any), st.integers(1, 130))
def test_layers_go_to_shares_in_order_and_in_proportion(shares: list[float], layers: int) -> None:
    owners = _owners(shares, layers)
    assert len(owners) == layers
    assert owners == sorted(owners)
    assert all(shares[owner] > 0 for owner in owners)
    bounds = list(accumulate(shares))
    for number, share in enumerate(shares):
        assert abs(owners.count(number) - layers * share / bounds[-1]) <= 1 + 1e-9
