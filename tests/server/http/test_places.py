"""Who gives way to whom when there are many connections."""

import pytest

from server.http.places import Place, Places
from server.networks import Networks


class Room:
    """Places, and the names of the connections that were closed for others."""

    def __init__(self, most: int = 3, share: int = 3, young: float = 0.0) -> None:
        self.now = 0.0
        free = Networks(["192.168.0.0/16", "2001:db8:f::/48"])
        self.places = Places(most, share, free, young, lambda: self.now)
        self.closed: list[str] = []

    def enter(self, name: str, address: str = "") -> Place | None:
        place = self.places.take(address or f"10.0.0.{name}")
        if place is not None:
            place.evict = lambda: self.closed.append(name)
        return place

    def fill(self, *names: str) -> list[Place]:
        return [place for name in names if (place := self.enter(name))]


def test_the_connection_that_was_idle_for_longest_gives_way() -> None:
    room = Room()
    one, _, three = room.fill("1", "2", "3")
    one.set_busy(True)
    one.set_busy(False)
    three.set_busy(True)
    for name in "456":
        assert room.enter(name)
    assert room.closed == ["2", "1", "4"]
    assert len(room.places) == 3


def test_the_busy_ones_stay() -> None:
    room = Room()
    busy = room.fill("1", "2", "3")
    for place in busy:
        place.set_busy(True)
        place.set_busy(True)
    assert room.enter("4") is None
    assert not room.places.evict_oldest()
    busy[1].leave()
    busy[1].leave()
    assert room.enter("4")
    assert room.closed == []


def test_a_closed_connection_takes_no_further_part() -> None:
    room = Room(most=1)
    first = room.enter("1")
    assert first
    room.enter("2")
    first.set_busy(False)
    first.leave()
    assert len(room.places) == 1
    room.enter("3")
    assert room.closed == ["1", "2"]


@pytest.mark.parametrize(
    ("first", "second", "one_household"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", False),
        ("192.168.1.2", "192.168.1.2", False),
        ("::ffff:192.168.1.2", "192.168.1.2", False),
        ("2001:db8:f::1", "2001:db8:f::1", False),
        ("::ffff:127.0.0.1", "127.0.0.1", False),
    ],
)
def test_an_address_has_its_share(first: str, second: str, one_household: bool) -> None:
    room = Room(most=10, share=1)
    busy = room.enter("1", first)
    assert busy
    busy.set_busy(True)
    assert (room.enter("2", second) is None) is one_household
    busy.set_busy(False)
    if one_household:
        assert room.enter("3", second)
        assert room.closed == ["1"]


def test_who_has_all_of_a_share_gives_way_before_others() -> None:
    room = Room(most=3, share=2)
    room.enter("old")
    room.enter("a", "10.1.1.1")
    room.enter("b", "10.1.1.1")
    room.enter("c", "10.1.1.1")
    assert room.closed == ["a"]
    room.enter("new", "10.2.2.2")
    assert room.closed == ["a", "old"]


def test_the_young_stay() -> None:
    """What they ask may be on its way."""
    room = Room(most=2, young=1.0)
    first, _ = room.fill("1", "2")
    room.now = 0.5
    assert room.enter("3") is None
    first.set_busy(True)
    first.set_busy(False)
    room.now = 1.0
    assert room.enter("3")
    assert room.enter("4") is None
    room.now = 1.5
    assert room.enter("4")
    assert room.closed == ["2", "1"]
