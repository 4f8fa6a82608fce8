"""Who may have a connection, when there are many."""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable

from server.networks import Networks, household, parse_address


class Place:
    """One connection's place. It is idle at first: nothing has been asked yet."""

    def __init__(self, places: "Places", owner: str | None) -> None:
        self._places = places
        self.owner = owner
        self.idle_since = 0.0
        self.evict: Callable[[], object] = lambda: None
        """Closes the connection at once."""

    def set_busy(self, busy: bool) -> None:
        """Whether a request is being served. A busy connection is never closed for another's sake."""
        self._places.set_busy(self, busy)

    def leave(self) -> None:
        """The connection has ended."""
        self._places.leave(self)


class Places:
    """All connections of a server, at most `most` of them and at most `share` from one address.

    Where there is no room, the connection that has been idle for longest gives way, if it has been so for
    `young` seconds. Addresses in
    `free`, and this machine's, have no share: all clients of a proxy have the proxy's address.
    """

    def __init__(
        self,
        most: int,
        share: int,
        free: Networks,
        young: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._share = share
        self._free = free
        self._young = young
        self._clock = clock
        self._held: set[Place] = set()
        self._idle: OrderedDict[Place, None] = OrderedDict()
        self._held_by: defaultdict[str, set[Place]] = defaultdict(set)
        self._idle_of: defaultdict[str, OrderedDict[Place, None]] = defaultdict(OrderedDict)

    def __len__(self) -> int:
        return len(self._held)

    def take(self, address: str) -> Place | None:
        """A place for a client at `address`; None where nobody can give way."""
        owner = self._owner(address)
        if owner is not None and len(self._held_by.get(owner, ())) >= self._share:
            if not self._evict(self._idle_of.get(owner)):
                return None
        elif len(self._held) >= self._most and not self.evict_oldest():
            return None
        place = Place(self, owner)
        place.idle_since = self._clock()
        self._held.add(place)
        self._idle[place] = None
        if owner is not None:
            self._held_by[owner].add(place)
            self._idle_of[owner][place] = None
        return place

    def evict_oldest(self) -> bool:
        """Close the connection that has been idle for longest; whether there was one."""
        return self._evict(self._idle)

    def set_busy(self, place: Place, busy: bool) -> None:
        """See `Place`."""
        if place not in self._held or busy is not (place in self._idle):
            return
        place.idle_since = self._clock()
        for idle in self._idle_lists(place):
            if busy:
                del idle[place]
            else:
                idle[place] = None

    def leave(self, place: Place) -> None:
        """See `Place`."""
        if place not in self._held:
            return
        self._held.remove(place)
        for idle in self._idle_lists(place):
            idle.pop(place, None)
        if place.owner is not None:
            self._held_by[place.owner].remove(place)
            if not self._held_by[place.owner]:
                del self._held_by[place.owner], self._idle_of[place.owner]

    def _idle_lists(self, place: Place) -> list[OrderedDict[Place, None]]:
        return [self._idle] if place.owner is None else [self._idle, self._idle_of[place.owner]]

    def _evict(self, idle: OrderedDict[Place, None] | None) -> bool:
        if not idle:
            return False
        oldest = next(iter(idle))
        if self._clock() - oldest.idle_since < self._young:
            return False
        oldest.leave()
        oldest.evict()
        return True

    def _owner(self, address: str) -> str | None:
        found = parse_address(address)
        return None if found is None or found in self._free else household(address)
