"""How many prompt tokens go beside replies, on machines of different kinds. No clock is involved."""

from collections.abc import Callable

import pytest

from engine.pace import LEAST, MEASURE_EVERY, MOST_BETWEEN, QUANTUM, STRETCH, Load, Pace

Cost = Callable[[int, int], float]
"""Seconds of a step with so many rows and prompt tokens."""


def drive(pace: Pace, cost: Cost, steps: int, rows: int = 1) -> list[tuple[int, float]]:
    """Prompt tokens and seconds of steps in which prompts take all the room there is."""
    found = []
    for _ in range(steps):
        room = pace.room(rows)
        seconds = cost(rows, room)
        pace.learn(Load(rows, room), seconds)
        found.append((room, seconds))
    return found


@pytest.mark.parametrize(
    ("alone", "fixed", "token"),
    [(0.012, 0.0, 0.0004), (0.012, 0.002, 0.0003), (0.005, 0.004, 0.00001)],
)
def test_steps_take_no_longer_than_said(alone: float, fixed: float, token: float) -> None:
    found = drive(Pace(), lambda _, prompt: alone + (fixed + token * prompt if prompt else 0), 60)
    assert all(seconds <= 1.01 * STRETCH * alone for _, seconds in found)
    # The room that there is was found, and is used.
    best = ((STRETCH - 1) * alone - fixed) / token
    assert max(room for room, _ in found) >= 0.8 * best - QUANTUM


@pytest.mark.parametrize(("fixed", "token"), [(0.015, 0.0009), (0.05, 0.0001), (0.0, 0.003)])
def test_replies_keep_their_pace_where_a_step_costs_much_anyway(fixed: float, token: float) -> None:
    found = drive(Pace(), lambda _, prompt: 0.005 + (fixed + token * prompt if prompt else 0), 400)
    assert {room for room, _ in found} == {0, LEAST}
    average = sum(seconds for _, seconds in found) / len(found)
    assert 0.8 * STRETCH * 0.005 < average < 1.05 * STRETCH * 0.005


def test_prompts_advance_on_the_slowest_machine() -> None:
    rooms = [room for room, _ in drive(Pace(), lambda _, prompt: 0.01 + prompt * 1.0, 200)]
    assert set(rooms) == {0, LEAST}
    for at in range(len(rooms) - MOST_BETWEEN):
        assert LEAST in rooms[at : at + MOST_BETWEEN + 1]


def test_what_replies_take_alone_is_measured_now_and_then() -> None:
    pace = Pace()
    rooms = [room for room, _ in drive(pace, lambda _, prompt: 0.01 + prompt * 1e-4, 3 * MEASURE_EVERY)]
    gaps = [at for at, room in enumerate(rooms) if room == 0]
    assert gaps == [0, MEASURE_EVERY + 1, 2 * MEASURE_EVERY + 2]


def test_one_slow_step_changes_nothing() -> None:
    pace = Pace()

    def cost(rows: int, prompt: int) -> float:
        return 0.01 + prompt * 1e-4

    room = drive(pace, cost, 20)[-1][0]
    pace.learn(Load(1, room), 9.0)
    assert pace.room(1) == room
    pace.learn(Load(1, 0), 9.0)
    assert pace.room(1) == room


def test_many_replies_have_a_pace_of_their_own() -> None:
    pace = Pace()

    def cost(rows: int, prompt: int) -> float:
        return 0.01 * rows + prompt * 1e-4

    few = drive(pace, cost, 20)[-1][0]
    assert pace.room(8) == 0
    many = drive(pace, cost, 20, rows=8)[-1][0]
    assert many > 4 * few
    assert pace.room(1) == few


def test_small_chunks_say_nothing_of_the_cost_of_a_token() -> None:
    pace = Pace()
    drive(pace, lambda _, prompt: 0.01 + prompt * 1e-4, 20)
    room = pace.room(1)
    for _ in range(9):
        pace.learn(Load(1, 2), 0.02)
    assert pace.room(1) == room
