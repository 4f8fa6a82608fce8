"""How a run goes on when parts fail, hang or find no time, and what becomes of its figures."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Triton looks at this when it is imported, and when kernels are defined.
os.environ.setdefault("TRITON_INTERPRET", "1")

from benchmarks.gpu.gates import Gate, failed_checks, gates
from benchmarks.gpu.peer import peer
from benchmarks.gpu.plan import Part, prepared_parts, timed_parts
from benchmarks.gpu.roofline import points
from benchmarks.gpu.run import ChildLauncher, PartError, Run, merge
from benchmarks.gpu.settings import QUICK, Figures, Settings, Sizes
from engine.gguf import NATIVE_TYPES

DEVICE = "cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda:0"
SETTINGS = Settings(device=DEVICE, shape="tiny")
SMALL = Settings(
    device=DEVICE, shape="tiny", sizes=Sizes(check_shape=(6, 256), check_heads=(64,), check_rows=(1,))
)


class Script:
    """A launcher whose parts do what a function says."""

    def __init__(self, work: Callable[[Part], Iterator[Figures]], workers: int = 1) -> None:
        self.work = work
        self.workers = workers
        self.closed = False

    def __call__(self, part: Part, settings: Settings, seconds: float) -> Iterator[Figures]:
        return self.work(part)

    def close(self) -> None:
        self.closed = True


def test_settings_survive_the_way_to_a_child() -> None:
    settings = Settings(sizes=QUICK, model="a.gguf", text="b.txt", cpu_perplexity=4.5)
    assert Settings.from_json(json.loads(json.dumps(settings.as_json()))) == settings


def test_the_cache_has_room_for_all_streams_and_for_the_longest_prompt() -> None:
    for sizes in (Sizes(), QUICK):
        longest = sizes.context + sizes.steps + 1 + max(sizes.streams)
        blocks = -(-longest // sizes.block)
        assert sizes.slots >= max(sizes.streams) * blocks * sizes.block
        assert sizes.slots >= sizes.positions >= max(sizes.prompts) + sizes.steps + 1
        assert sizes.positions % sizes.block == 0


def test_every_type_and_every_recorded_size_is_prepared() -> None:
    parts = prepared_parts(Settings())
    types = [name for part in parts if part.kind == "products" for name in part.arguments]
    assert sorted(types) == sorted(kind.name for kind in NATIVE_TYPES)
    steps = [count for part in parts if part.arguments[:1] == ("steps",) for count in part.arguments[1:]]
    assert sorted(map(int, steps)) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    assert len({part.name for part in parts}) == len(parts)


def test_optional_parts_need_their_files() -> None:
    kinds = [part.kind for part in timed_parts(Settings())]
    assert kinds == ["bandwidth", "steps", "theta", "engine"]
    given = Settings(model="m", text="t", llama_bench="b", peer_model="p")
    assert [part.kind for part in timed_parts(given)][4:] == ["perplexity", "peer"]


def test_figures_below_the_same_name_come_together() -> None:
    into: Figures = {"decode": {"1": {"a": 1}}, "copy": 1}
    merge(into, {"decode": {"1": {"b": 2}, "4": {"a": 3}}, "copy": 2})
    assert into == {"decode": {"1": {"a": 1, "b": 2}, "4": {"a": 3}}, "copy": 2}


@pytest.mark.parametrize("workers", [1, 4])
def test_a_part_that_fails_takes_no_other_along(workers: int) -> None:
    def work(part: Part) -> Iterator[Figures]:
        yield {"begun": {part.name: True}}
        if part.kind in ("stars", "steps"):
            raise RuntimeError("CUDA error:\n an illegal memory access")
        yield {"done": {part.name: True}}

    said: list[str] = []
    run = Run(SETTINGS, Script(work, workers), said.append)
    run.carry_out()
    every = {part.name for part in (*prepared_parts(SETTINGS), *timed_parts(SETTINGS))}
    assert set(run.figures["begun"]) == every
    assert set(run.figures["done"]) == every - {"stars", "steps"}
    assert run.errors == dict.fromkeys(("stars", "steps"), "CUDA error: an illegal memory access")
    assert set(run.part_seconds) == every
    assert any("illegal memory access" in line for line in said)


def test_what_has_no_time_is_left_out_and_said() -> None:
    def work(part: Part) -> Iterator[Figures]:
        yield {"done": {part.name: True}}

    said: list[str] = []
    run = Run(SETTINGS, Script(work), said.append, seconds=30)
    run.carry_out()
    # 20 seconds are left for what is timed: enough for one with a need of 15.
    assert run.left_out == ["steps", "theta", "engine"]
    assert "bandwidth" in run.figures["done"]
    assert any(line.startswith("theta: left out") for line in said)
    assert run.errors == {}


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interruption_ends_the_run(workers: int) -> None:
    def work(part: Part) -> Iterator[Figures]:
        raise KeyboardInterrupt
        yield {}

    script = Script(work, workers)
    with pytest.raises(KeyboardInterrupt):
        Run(SETTINGS, script, lambda _: None).carry_out()
    assert script.closed or workers == 1


@pytest.mark.triton
def test_a_child_computes_a_part() -> None:
    figures: Figures = {}
    for each in ChildLauncher(1)(Part("rest"), SMALL, 60):
        merge(figures, each)
    assert len(figures["checks"]) == 6
    assert failed_checks(figures) == []


def test_what_a_child_could_not_do_is_told_in_one_line() -> None:
    with pytest.raises(PartError, match=r"^ValueError: no part is called magic$"):
        list(ChildLauncher(1)(Part("magic"), SMALL, 60))


def test_a_child_ends_with_its_time_and_with_its_parent() -> None:
    launcher = ChildLauncher(1)
    heard: list[Figures] = []
    with pytest.raises(PartError, match="the run's time is over"):
        heard.extend(launcher(Part("rest"), SMALL, 0.1))
    assert heard == [], "it was killed before it could say anything: its imports alone take longer"
    launcher.close()
    with pytest.raises(PartError, match="the run was ended"):
        list(launcher(Part("rest"), SMALL, 60))


def test_without_a_card_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path / "out")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert run.returncode == 2
    assert run.stderr == "nkat: this benchmark needs a CUDA device, and torch finds none\n"
    assert run.stdout == ""
    assert not (tmp_path / "out").exists()


MEASURED: dict[str, Any] = {
    "gemv_bandwidth_fraction": 0.71,
    "decode": {"1": {"tokens_per_second": 310.0}, "32": {"tokens_per_second": 2400.0}},
    "prefill": {"2048": {"tokens_per_second": 16000.0}},
    "theta": {"decode_overhead": 0.02},
    "graphs": {"speedup": 1.2},
}


def test_gates() -> None:
    found = {gate.name: gate for gate in gates(MEASURED)}
    passed = [name.split(",")[0] for name, gate in found.items() if gate.passed]
    assert passed == [
        "decode of one stream",
        "GEMV",
        "prefill of 2048",
        "theta",
    ]
    assert found["decode of 32 streams over one's"].value == pytest.approx(2400 / 310)
    assert [gate.passed for gate in gates({})] == [False] * 6


@pytest.mark.parametrize(("change", "passed"), [(0.002, True), (-0.004, False), (0.004, False)])
def test_the_gate_of_the_perplexity(change: float, passed: bool) -> None:
    *_, gate = gates(MEASURED | {"perplexity": {"change": change}})
    assert gate.passed is passed


def test_a_bound_is_met_exactly() -> None:
    assert Gate("", 0.03, 0.03, most=True).passed
    assert Gate("", 300, 300).passed
    assert not Gate("", float("nan"), 300).passed


def test_points_of_the_roofline() -> None:
    figures = {
        "weight_bytes": 4e9,
        "weight_flops": 1.3e10,
        "cache_bytes_per_token": 5e5,
        "decode": {"4": {"step_seconds": 0.002}},
        "prefill": {"2048": {"first_token_seconds": 0.1}, "2048 by 512": {"first_token_seconds": 0.2}},
    }
    decode, prefill = points(figures, context=100)
    assert decode.intensity == pytest.approx(4 * 1.3e10 / (4e9 + 4 * 100 * 5e5))
    assert decode.flops_per_second == pytest.approx(4 * 1.3e10 / 0.002)
    assert prefill.intensity == pytest.approx(2048 * 1.3e10 / (4e9 + 2048 * 5e5))
    assert prefill.flops_per_second == pytest.approx(2048 * 1.3e10 / 0.1)


def test_the_peer_is_llama_cpps_bench(tmp_path: Path) -> None:
    told = tmp_path / "told"
    program = tmp_path / "llama-bench"
    lines = [
        '{"build_commit": "abc", "n_prompt": 512, "n_gen": 0, "avg_ts": 8000.5}',
        '{"build_commit": "abc", "n_prompt": 0, "n_gen": 128, "avg_ts": 150.5}',
    ]
    body = f"open({str(told)!r}, 'w').write(' '.join(sys.argv[1:]))\nprint({chr(10).join(lines)!r})"
    program.write_text(f"#!{sys.executable}\nimport sys\n{body}\n", encoding="utf-8")
    program.chmod(0o755)
    figures: Figures = {}
    for each in peer(Settings(sizes=QUICK, llama_bench=str(program), peer_model="m.gguf")):
        merge(figures, each)
    assert figures["peer"] == {"build": "abc", "prefill": {"512": 8000.5}, "decode": {"1": 150.5}}
    assert "-m m.gguf" in told.read_text()
    assert "-ngl 99" in told.read_text()
    assert "-p 512,2048 -n 128" in told.read_text()
