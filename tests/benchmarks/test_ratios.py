import pytest

from benchmarks.ratios import Pairs, take_turns


def test_the_median_of_ratios_is_not_moved_by_one_disturbed_pair() -> None:
    pairs = Pairs((50.0, 52.0, 5.0, 49.0, 51.0), (100.0, 104.0, 100.0, 98.0, 102.0))
    assert pairs.ratios == (0.5, 0.5, 0.05, 0.5, 0.5)
    assert pairs.median == 0.5
    assert pairs.quartiles == (0.5, 0.5)


def test_the_quartiles_hold_the_middle_half() -> None:
    pairs = Pairs((1.0, 2.0, 3.0, 4.0, 5.0), (1.0,) * 5)
    assert pairs.quartiles == (2.0, 4.0)


def test_one_pair_is_its_own_quartiles() -> None:
    assert Pairs((3.0,), (4.0,)).quartiles == (0.75, 0.75)


def test_sides_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = Pairs((1.0, 2.0), (1.0,)).ratios


def test_sides_alternate_who_goes_first() -> None:
    order: list[str] = []

    def side(name: str) -> str:
        order.append(name)
        return f"{name}{len(order)}"

    results = list(take_turns(3, [lambda: side("a"), lambda: side("b")]))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert results == [("a1", "b2"), ("a4", "b3"), ("a5", "b6")]


def test_one_side_alone_takes_every_turn() -> None:
    assert list(take_turns(2, [lambda: 1])) == [(1,), (1,)]
