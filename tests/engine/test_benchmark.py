"""The measuring itself: what is timed, in what order, and what is left behind."""

import gc
from pathlib import Path
from typing import Any

import pytest

from engine.benchmark import DecodeTimes, measure_decode
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import RequestError
from tests.engine.driving import request, run
from tests.support.stars import write_star_model


@pytest.fixture(scope="module")
def star_model(tiny_model: Path) -> Path:
    return write_star_model(tiny_model.with_suffix(".nkat"), tiny_model)[0]


def load(path: Path, **others: Any) -> Engine:
    return Engine.load(EngineConfig(path, context_length=128, device="cpu", threads=1, **others))


def test_overhead_is_the_median_of_the_groups_ratios() -> None:
    times = DecodeTimes(
        baseline=(1.0, 1.0, 2.0, 2.0, 1.0, 3.0), nkat=(1.2, 1.0, 2.1, 2.3, 99.0, 1.0), prefill=(1.0,)
    )
    assert times.ratios == pytest.approx([1.1, 1.1, 25.0])
    assert times.overhead == pytest.approx(0.1)
    assert times.overhead_quartiles == pytest.approx((0.1, (25 + 1.1) / 2 - 1))


def test_no_overhead_without_theta() -> None:
    times = DecodeTimes(baseline=(1.0, 2.0), nkat=(), prefill=(1.0,))
    assert times.overhead is None
    assert times.overhead_quartiles is None


def test_one_group_has_no_spread() -> None:
    assert DecodeTimes((1.0, 1.0), (2.0, 2.0), ()).overhead_quartiles == (1.0, 1.0)


@pytest.mark.parametrize(("new_tokens", "timed"), [(1, 2), (2, 2), (5, 6)])
def test_as_many_steps_as_asked_for(star_model: Path, tiny_model: Path, new_tokens: int, timed: int) -> None:
    for path, theta in ((star_model, True), (tiny_model, False)):
        done: list[tuple[int, int]] = []
        times = measure_decode(
            load(path),
            prompt_tokens=20,
            new_tokens=new_tokens,
            iterations=3,
            report=lambda *counts, done=done: done.append(counts),
        )
        assert len(times.baseline) == 3 * timed
        assert len(times.nkat) == (3 * timed if theta else 0)
        assert len(times.prefill) == 3
        assert done == [(1, 3), (2, 3), (3, 3)]
        assert min(*times.baseline, *times.prefill) > 0


def test_the_switch_is_on_off_off_on(star_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(star_model)
    star = engine.star
    assert star is not None
    seen: list[bool] = []
    plain_step = engine.step

    def step() -> Any:
        seen.append(star.enabled)
        assert not gc.isenabled()
        return plain_step()

    monkeypatch.setattr(engine, "step", step)
    measure_decode(engine, prompt_tokens=4, new_tokens=4, iterations=1)
    # the prompt, the timed steps, and the one that finds nothing left to do
    assert seen[-10:] == [True, *[True, False, False, True] * 2, True]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_engine_is_left_as_it_was(star_model: Path, enabled: bool) -> None:
    engine = load(star_model)
    engine.set_theta(enabled=enabled)
    expected = run(engine, [request("x", "hello world", 12)])["x"].tokens
    measure_decode(engine, prompt_tokens=20, new_tokens=4, iterations=1)
    assert engine.star is not None
    assert engine.star.enabled is enabled
    assert gc.isenabled()
    engine.check_integrity()
    assert run(engine, [request("x", "hello world", 12)])["x"].tokens == expected


def test_an_interrupt_leaves_the_engine_in_order(star_model: Path) -> None:
    engine = load(star_model)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_decode(engine, prompt_tokens=20, new_tokens=4, iterations=2, report=interrupt)
    assert not engine.has_work
    assert gc.isenabled()
    engine.check_integrity()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt_tokens": 128}, "do not fit the context of 128"),
        ({"prompt_tokens": 0}, "at least one"),
        ({"new_tokens": 0}, "at least one"),
        ({"iterations": 0}, "at least one"),
    ],
)
def test_what_cannot_be_timed(tiny_model: Path, arguments: dict[str, int], message: str) -> None:
    counts: dict[str, Any] = {"prompt_tokens": 8, "new_tokens": 2, **arguments}
    with pytest.raises(RequestError, match=message):
        measure_decode(load(tiny_model), **counts)
