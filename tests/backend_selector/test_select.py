"""The choice by examples and by properties: nothing is probed here."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_selector.cache import BLOCK
from backend_selector.facts import (
    CpuFacts,
    CudaDevice,
    FileFacts,
    MachineFacts,
    PartSizes,
    ThetaFacts,
    Widths,
    Wishes,
)
from backend_selector.select import select_backend
from engine.architectures import CacheShape
from engine.config import EngineConfig
from engine.errors import ConfigError, ModelFileError, NkatError
from tests.backend_selector.machines import (
    GIB,
    LAPTOP,
    MIB,
    NATIVE,
    OTHER_SHA,
    SHA,
    SMALL_GPU,
    THETA,
    TINY,
    TRITON,
    WORKSTATION,
    machine,
    scaled,
)

STAR = replace(TINY, path=Path("models/tiny.nkat"), theta=THETA, surplus=True)
SIDECAR = replace(TINY, theta=THETA, sha256=SHA)


def test_a_plain_model_on_a_laptop() -> None:
    choice = select_backend(TINY, LAPTOP, Wishes())
    assert (choice.engine.value, choice.gamma) == ("baseline", None)
    assert choice.device.value == "cpu"
    assert (choice.kernels.value, choice.dtype.value) == ("reference", "float32")
    assert (choice.context.value, choice.kv_tokens.value) == (8192, 2 * 8192)
    assert choice.threads.value == 8
    assert choice.layers.value == (("cpu", 30),)
    assert choice.memory == 541 * MIB + 4 * 4096 * 45 * 1024
    assert choice.warnings == ()


def test_native_kernels_keep_the_model_packed_and_the_cache_in_half() -> None:
    facts = replace(LAPTOP, kernels=NATIVE)
    choice = select_backend(TINY, facts, Wishes())
    assert choice.kernels.value == "avx2"
    assert "8 bits" in choice.dtype.reason
    assert choice.memory == round(1.04 * 90 * MIB) + MIB + 4 * 4096 * 45 * 512
    assert select_backend(TINY, facts, Wishes(kernels="reference")).memory > choice.memory
    assert (
        select_backend(TINY, replace(WORKSTATION, kernels=facts.kernels), Wishes()).kernels.value
        == "reference"
    )
    with pytest.raises(ConfigError, match=r"no kernels 'avx2' on cuda:1; there are: reference"):
        select_backend(
            TINY, replace(WORKSTATION, kernels=facts.kernels), Wishes(device="cuda:1", kernels="avx2")
        )


@pytest.mark.parametrize(
    ("file", "wishes", "engine", "gamma"),
    [
        (TINY, Wishes(), "baseline", None),
        (STAR, Wishes(), "nkat", 0.97),
        (STAR, Wishes(gamma=0.0), "nkat", 0.0),
        (STAR, Wishes(theta=False), "baseline", None),
        (SIDECAR, Wishes(theta_path=Path("theta_rank4.bin")), "nkat", 0.97),
    ],
)
def test_theta_decides_the_engine(file: FileFacts, wishes: Wishes, engine: str, gamma: float | None) -> None:
    choice = select_backend(file, LAPTOP, wishes)
    assert choice.engine.value == engine
    assert (None if choice.gamma is None else choice.gamma.value) == gamma


def test_theta_of_another_model_is_refused() -> None:
    wrong = replace(SIDECAR, sha256=OTHER_SHA)
    with pytest.raises(ModelFileError, match=r"theta\.bin.*a{12}\.\.\..*b{12}\.\.\.") as caught:
        select_backend(wrong, LAPTOP, Wishes(theta_path=Path("theta.bin")))
    assert "\n" not in str(caught.value)
    assert select_backend(wrong, LAPTOP, Wishes(theta=False)).engine.value == "baseline"


@pytest.mark.parametrize(
    ("matrices", "wish", "device"),
    [
        (540 * MIB, "auto", "cuda:1"),  # the one with more free memory
        (39 * GIB, "auto", "cuda:1"),
        (40 * GIB, "auto", "cpu"),  # more than half of what is free
        (540 * MIB, "cuda", "cuda:0"),
        (540 * MIB, "cuda:1", "cuda:1"),
        (40 * GIB, "cuda:1", "cuda:1"),
        (540 * MIB, "cpu", "cpu"),
    ],
)
def test_the_device(matrices: int, wish: str, device: str) -> None:
    choice = select_backend(scaled(matrices), WORKSTATION, Wishes(device=wish))
    assert choice.device.value == device
    assert choice.layers.value == ((device, 30),)


def test_a_context_that_no_gpu_can_hold_goes_to_the_cpu() -> None:
    small = replace(WORKSTATION, cuda=(SMALL_GPU,))
    assert select_backend(TINY, small, Wishes()).device.value == "cuda:0"
    assert select_backend(TINY, small, Wishes(contextsize=200_000)).device.value == "cpu"


@pytest.mark.parametrize("wish", ["cuda:7", "cuda:-1", "cuda:", "gpu", "auto:1", "cpu:0", ""])
def test_devices_that_there_are_not(wish: str) -> None:
    with pytest.raises(ConfigError, match="cuda"):
        select_backend(TINY, WORKSTATION, Wishes(device=wish))


def test_packed_weights_are_told() -> None:
    choice = select_backend(TINY, machine(GIB), Wishes())
    assert any("slow" in warning for warning in choice.warnings)
    assert choice.memory <= GIB


def test_the_cache_shrinks_before_the_context_does() -> None:
    choice = select_backend(TINY, machine(1200 * MIB), Wishes())
    assert choice.context.value == 8192
    assert 8192 <= choice.kv_tokens.value < 2 * 8192
    assert "want of memory" in choice.kv_tokens.reason


def test_the_context_is_lowered_with_a_reason() -> None:
    choice = select_backend(TINY, machine(300 * MIB), Wishes())
    assert 256 <= choice.context.value < 4096
    assert choice.context.reason.startswith("lowered from 8192")
    assert choice.kv_tokens.value == choice.context.value


@pytest.mark.parametrize("wish", ["contextsize", "kvtokens"])
def test_all_that_fits_may_be_asked_for(wish: str) -> None:
    def wishing(tokens: int) -> Wishes:
        fields: dict[str, Any] = {wish: tokens}
        return Wishes(**fields)

    with pytest.raises(ConfigError, match=f"--{wish} ") as caught:
        select_backend(TINY, machine(300 * MIB), wishing(8192))
    found = re.search(rf"say --{wish} (\d+)", str(caught.value))
    assert found is not None
    most = int(found[1])
    choice = select_backend(TINY, machine(300 * MIB), wishing(most))
    # What nobody asks for leaves a margin, and so would allow less.
    assert most > select_backend(TINY, machine(300 * MIB), Wishes()).context.value
    assert choice.kv_tokens.value == most
    with pytest.raises(ConfigError, match=f"--{wish} "):
        select_backend(TINY, machine(300 * MIB), wishing(most + 1))


@pytest.mark.parametrize(
    ("available", "wishes", "words"),
    [
        (300 * MIB, Wishes(contextsize=4096), "say --contextsize 33"),
        (300 * MIB, Wishes(kvtokens=10_000), "say --kvtokens 33"),
        (20 * MIB, Wishes(), "smaller model"),
        (0, Wishes(), "free some memory"),
        (24 * GIB, Wishes(contextsize=2048, kvtokens=2047), "raise --kvtokens"),
        (24 * GIB, Wishes(kernels="magic"), "there are: reference"),
        (24 * GIB, Wishes(dtype="int3"), "use auto or float32"),
    ],
)
def test_what_cannot_be_is_one_clear_line(available: int, wishes: Wishes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        select_backend(TINY, machine(available), wishes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wish",
    [
        {"contextsize": 0},
        {"threads": -1},
        {"kvtokens": 0},
        {"gamma": 1.1},
        {"gamma": float("nan")},
        {"device": "gpu"},
        {"device": "cuda:"},
        {"device": "cuda:x"},
        {"device": "cpu:0"},
    ],
)
def test_wishes_that_make_no_sense(wish: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--"):
        Wishes(**wish)


@pytest.mark.parametrize(
    ("file", "facts", "wishes", "words"),
    [
        (TINY, LAPTOP, Wishes(contextsize=10_000), "trained on 8192"),
        (TINY, LAPTOP, Wishes(threads=9), "8 physical cores"),
        (TINY, LAPTOP, Wishes(gamma=0.5), "no effect"),
        (TINY, replace(LAPTOP, torch=None), Wishes(), "not installed"),
    ],
)
def test_warnings(file: FileFacts, facts: MachineFacts, wishes: Wishes, words: str) -> None:
    assert any(words in warning for warning in select_backend(file, facts, wishes).warnings)


def test_the_koboldcpp_command() -> None:
    star = select_backend(STAR, WORKSTATION, Wishes(device="cuda:1", threads=3, contextsize=100))
    assert " ".join(star.koboldcpp) == (
        "koboldcpp --model models/tiny.gguf --skiplauncher --contextsize 256 --threads 3 "
        "--usecublas 1 --gpulayers 31 --lora models/tiny.lora.gguf"
    )
    plain = select_backend(TINY, LAPTOP, Wishes())
    assert " ".join(plain.koboldcpp) == (
        "koboldcpp --model models/tiny.gguf --skiplauncher --contextsize 8192 --threads 8 --usecpu"
    )


@pytest.mark.parametrize(
    ("file", "wishes", "needs"),
    [
        (TINY, Wishes(), []),
        (STAR, Wishes(), ["models/tiny.lora.gguf", "the plain model, models/tiny.gguf"]),
        (STAR, Wishes(theta=False), ["the plain model, models/tiny.gguf"]),
        (SIDECAR, Wishes(theta_path=Path("theta_rank4.bin")), ["models/tiny.lora.gguf"]),
    ],
)
def test_what_the_koboldcpp_command_needs(file: FileFacts, wishes: Wishes, needs: list[str]) -> None:
    choice = select_backend(file, LAPTOP, wishes)
    assert len(choice.koboldcpp_needs) == len(needs)
    assert all(need in said for need, said in zip(needs, choice.koboldcpp_needs, strict=True))
    assert choice.warnings == ()


def test_a_star_model_does_not_stand_in_for_its_own_base() -> None:
    command = select_backend(replace(STAR, path=Path("x.gguf")), LAPTOP, Wishes()).koboldcpp
    assert command[2] == "x.base.gguf"


def test_the_block_is_the_engines() -> None:
    assert EngineConfig(Path("x")).block_size == BLOCK


sizes = st.one_of(st.integers(0, 64 * MIB), st.integers(0, 2**42))
devices = st.builds(
    CudaDevice,
    index=st.integers(0, 3),
    name=st.text(max_size=5),
    total=sizes,
    free=sizes,
    capability=st.just((8, 0)),
    kernels=st.sampled_from([TRITON, ("reference",)]),
)
machines = st.builds(
    MachineFacts,
    cpu=st.builds(
        CpuFacts, model=st.text(max_size=5), physical_cores=st.integers(1, 256), features=st.just(())
    ),
    total_memory=sizes,
    available_memory=sizes,
    python=st.just("3.12.1"),
    torch=st.sampled_from([None, "2.13.0"]),
    cuda=st.lists(devices, max_size=3, unique_by=lambda device: device.index).map(tuple),
    kernels=st.sampled_from([NATIVE, ("reference",)]),
)
parts = st.builds(PartSizes, dense=sizes, packed=sizes, planes=sizes, other=sizes)
files = st.builds(
    FileFacts,
    path=st.sampled_from([Path("m.gguf"), Path("m.nkat"), Path("m")]),
    architecture=st.just("llama"),
    name=st.text(max_size=5),
    size=sizes,
    quantisation=st.just("Q4_0"),
    tensor_types=st.just(("Q4_0",)),
    parameters=st.integers(1, 2**40),
    trained_context=st.integers(1, 2**31),
    cache_shape=st.builds(
        CacheShape,
        layers=st.just(0),
        kv_heads=st.integers(1, 64),
        key_dim=st.integers(1, 512),
        value_dim=st.integers(1, 512),
    ),
    widths=st.builds(Widths, *[st.integers(1, 2**18)] * 4),
    embedding=parts,
    blocks=st.lists(parts, min_size=1, max_size=12).map(tuple),
    output=parts,
    tied=st.booleans(),
    theta=st.none()
    | st.builds(
        ThetaFacts,
        rank=st.sampled_from([2, 4, 6, 8]),
        gamma=st.floats(0, 1),
        method=st.just("svd"),
        base_sha256=st.sampled_from([SHA, OTHER_SHA, ""]),
        tensors=st.integers(0, 300),
    ),
    sha256=st.sampled_from([None, SHA]),
    surplus=st.booleans(),
)


def wish(**fields: Any) -> Wishes | None:
    """None for wishes that make no sense together."""
    try:
        return Wishes(**fields)
    except ConfigError:
        return None


wishes_ = st.builds(
    wish,
    device=st.sampled_from(["auto", "auto", "cpu", "cuda", "cuda:1"]),
    gpulayers=st.none() | st.integers(-1, 14),
    tensor_split=st.none() | st.lists(st.floats(0, 9), min_size=1, max_size=4).map(tuple),
    maingpu=st.none() | st.integers(-1, 3),
    quantkv=st.integers(0, 2),
    contextsize=st.none() | st.integers(1, 2**20),
    kvtokens=st.none() | st.integers(1, 2**20),
    threads=st.none() | st.integers(1, 512),
    theta=st.booleans(),
    gamma=st.none() | st.floats(0, 1),
).filter(lambda wishes: wishes is not None)


@given(files, machines, wishes_)
def test_every_choice_keeps_its_promises(file: FileFacts, facts: MachineFacts, wishes: Wishes) -> None:
    try:
        choice = select_backend(file, facts, wishes)
    except NkatError:
        return
    assert choice == select_backend(file, facts, wishes)
    free = {f"cuda:{device.index}": device.free for device in facts.cuda} | {"cpu": facts.available_memory}
    slots = -(-choice.kv_tokens.value // BLOCK) * BLOCK
    for share in choice.shares:
        assert share.used <= share.free == free[share.device]
        assert min(share.weights, share.cache, share.workspace) >= 0
    assert sum(share.cache for share in choice.shares) >= slots * file.layers * file.cache_shape.kv_heads
    assert choice.memory == sum(share.used for share in choice.shares)
    assert choice.layers.value == tuple((share.device, share.layers) for share in choice.shares)
    assert 1 <= choice.context.value <= choice.kv_tokens.value
    assert wishes.contextsize in (None, choice.context.value)
    assert wishes.kvtokens in (None, choice.kv_tokens.value)
    assert sum(count for _, count in choice.layers.value) == file.layers
    assert (choice.engine.value == "nkat") == (wishes.theta and file.theta is not None)
    assert all(decision["reason"] for decision in asdict(choice).values() if isinstance(decision, dict))


@given(files, machines, wishes_, sizes)
def test_more_memory_never_makes_less_possible(
    file: FileFacts, facts: MachineFacts, wishes: Wishes, more: int
) -> None:
    facts, wishes = replace(facts, cuda=()), replace(wishes, device="cpu")
    try:
        before = select_backend(file, facts, wishes)
    except NkatError:
        return
    after = select_backend(file, replace(facts, available_memory=facts.available_memory + more), wishes)
    assert after.context.value >= before.context.value
