"""Checks and measurements themselves, and the whole command, on a tiny model in Triton's interpreter.

With TRITON_INTERPRET=0 they run on a card.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

# Triton looks at this when it is imported, and when kernels are defined.
os.environ.setdefault("TRITON_INTERPRET", "1")

from benchmarks.gpu import bandwidth as gpu_bandwidth
from benchmarks.gpu import check_products as gpu_check_products
from benchmarks.gpu import launches as gpu_launches
from benchmarks.gpu import random_model
from benchmarks.gpu import run as gpu_run
from benchmarks.gpu import settings as gpu_settings
from benchmarks.gpu.check import Check
from benchmarks.gpu.command import benchmark, check_settings
from benchmarks.gpu.gates import failed_checks
from benchmarks.gpu.model_shapes import SHAPES
from benchmarks.gpu.parts import run_part
from benchmarks.gpu.plan import Part
from benchmarks.gpu.settings import Figures, Settings, Sizes
from engine.errors import ConfigError
from engine.gguf import GGMLType
from engine.kernels.cuda import gemv
from engine.kernels.cuda.interpret import INTERPRETED
from engine.kernels.cuda.linear import project

pytestmark = pytest.mark.triton

SIZES = Sizes(
    streams=(1,),
    context=3,
    steps=1,
    repeats=1,
    prompts=(10,),
    chunk=8,
    buffer_bytes=2**12,
    square=16,
    launches=2,
    check_rows=(1, 9, 97),
    check_shape=(5, 256),
    check_heads=(64,),
)
SETTINGS = Settings(device="cpu" if INTERPRETED else "cuda:0", shape="tiny", sizes=SIZES)


@pytest.fixture(autouse=True)
def _large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes as long for a program of two rows as for one of all."""
    if INTERPRETED:
        monkeypatch.setattr(gemv, "tiling", lambda *_: gemv.Tiling(rows=256, warps=1, unroll=1))


def found(part: Part, settings: Settings = SETTINGS) -> Figures:
    figures: Figures = {}
    for each in run_part(part, settings):
        gpu_run.merge(figures, each)
    return figures


@pytest.mark.parametrize(
    ("part", "count"),
    [
        (Part("products", ("Q6_K", "F16")), 10),
        (Part("products", ("Q8_0",)), 5),
        (Part("attention", ("F16",)), 3),
        (Part("attention", ("Q4",)), 3),
        (Part("rest"), 6),
    ],
    ids=lambda it: it.name if isinstance(it, Part) else None,
)
def test_checks_pass(part: Part, count: int) -> None:
    figures = found(part)
    assert len(figures["checks"]) == count
    assert failed_checks(figures) == []
    # What is compared is computed: nothing but values that are kept to the bit agrees altogether.
    errors = {name: check["error"] for name, check in figures["checks"].items()}
    assert all(error > 0 for name, error in errors.items() if name.startswith("product"))


def test_star_products_pass() -> None:
    figures = found(Part("stars"), replace(SETTINGS, sizes=replace(SIZES, check_rows=(2, 9))))
    assert len(figures["checks"]) == 6
    assert failed_checks(figures) == []


@pytest.mark.parametrize("off", [1e-2, float("nan")])
def test_a_kernel_that_errs_is_found(monkeypatch: pytest.MonkeyPatch, off: float) -> None:
    def wrong(*arguments: Any) -> list[torch.Tensor]:
        return [out * (1 + off) for out in project(*arguments)]

    monkeypatch.setattr(gpu_check_products, "project", wrong)
    figures = found(Part("products", ("F32",)))
    failed = failed_checks(figures)
    assert failed == [f"product F32, {count} rows" for count in SIZES.check_rows]
    assert all("failure" not in figures["checks"][name] for name in failed)
    json.dumps(figures, allow_nan=False)


def test_a_kernel_that_does_not_run_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("out of resources")

    monkeypatch.setattr(gpu_check_products, "embed", fails)
    figures = found(Part("products", ("F32",)))
    assert failed_checks(figures) == ["embed F32"]
    assert figures["checks"]["embed F32"]["failure"] == "RuntimeError: out of resources"


def test_the_tolerance_itself_passes_and_nothing_beyond() -> None:
    assert Check("", 0.5, lambda: 0.5).run()["passed"]
    for error in (0.51, float("inf"), float("nan")):
        assert not Check("", 0.5, lambda error=error: error).run()["passed"]  # type: ignore[misc]


class InProcess:
    """Runs the parts of a chosen kind here, others not at all."""

    workers = 1

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def __call__(self, part: Part, settings: Settings, seconds: float) -> Iterator[Figures]:
        return run_part(part, settings) if part.kind in self.kinds else iter(())

    def close(self) -> None:
        """Nothing runs elsewhere."""


@pytest.fixture
def _floats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow model of float32, which the interpreter multiplies fast; and few types beside it."""
    narrow = replace(SHAPES["tiny"], width=64, feed_forward=96, heads=1, kv_heads=1)
    monkeypatch.setattr(gpu_settings, "SHAPES", {"tiny": narrow})
    for module in (random_model, gpu_launches):
        monkeypatch.setattr(module, "q4_k_m", lambda *_: GGMLType.F32)
    monkeypatch.setattr(gpu_bandwidth, "TYPES", (GGMLType.F16,))


@pytest.mark.usefixtures("_floats")
def test_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = {"name": "no card"}
    launcher = InProcess("bandwidth", "steps", "theta", "rest")
    assert benchmark(SETTINGS, launcher, tmp_path / "out", card) == 0
    printed = capsys.readouterr().out
    said = json.loads(printed.splitlines()[-1])
    assert said == json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))
    assert said["errors"] == {}
    assert said["left_out"] == []
    assert said["card"] == card
    assert set(said["gemv"]) == {"q+k+v F32", "output F32", "gate+up F32", "down F32"}
    gate = said["gemv"]["gate+up F32"]
    assert gate["bytes"] == 2 * 96 * 64 * 4
    assert gate["bytes_per_second"] == pytest.approx(gate["bytes"] / gate["seconds"])
    assert gate["copy_fraction"] == pytest.approx(gate["bytes_per_second"] / said["copy_bytes_per_second"])
    assert set(said["gemv_types"]) == {"F16"}
    assert said["gemv_bandwidth_fraction"] > 0
    assert set(said["decode"]) == {"1"}
    assert set(said["prefill"]) == {"10", "10 by 8"}
    assert said["checks"]["a recording's logits"]["passed"]
    assert said["graphs"]["speedup"] > 0
    assert {"decode_overhead", "prefill_overhead", "rank"} <= set(said["theta"])
    assert said["weight_bytes"] == 4 * (64 * (4 * 64 + 3 * 96) + 64 * 64)
    assert len(said["gates"]) == 6
    assert (tmp_path / "out" / "roofline.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "out" / "gpu.txt").read_text(encoding="utf-8")
    for part in (
        "kernel checks against float64: 7 of 7 passed",
        "theta of rank 4 adds",
        "gates",
        "q+k+v F32",
    ):
        assert part in text
        assert part in printed


def test_a_failure_is_told_and_ends_the_command_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu_check_products, "dequantize", fails)
    parts = [Part("products", ("F32",)), Part("attention", ("magic",))]
    monkeypatch.setattr(gpu_run, "prepared_parts", lambda _: parts)
    launcher = InProcess("products", "attention")
    settings = replace(SETTINGS, sizes=replace(SIZES, check_rows=(1,)))
    assert benchmark(settings, launcher, tmp_path, {"name": "no card"}) == 1
    printed = capsys.readouterr().out
    said = json.loads(printed.splitlines()[-1])
    assert said["checks"]["dequantise F32"]["failure"] == "RuntimeError: no such kernel"
    assert said["checks"]["product F32, 1 rows"]["passed"]
    assert said["errors"] == {"attention magic": "'magic'"}
    assert said["left_out"] == ["roofline.png: the card's limits were not measured"]
    assert "failed: dequantise F32: RuntimeError: no such kernel" in printed
    assert "attention magic ended early: 'magic'" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": "gpt5"}, "no shape 'gpt5'"),
        ({"model": __file__}, "--model and --text go together"),
        ({"model": __file__, "text": "/no/text"}, "there is no file /no/text"),
        ({"llama_bench": __file__}, "--llama-bench and --peer-model go together"),
        ({"cpu_perplexity": 4.0}, "--cpu-perplexity needs"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(replace(SETTINGS, **changes))
