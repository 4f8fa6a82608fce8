"""How much of what clients sent is held in memory at a time."""

from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send

from server.http.protocol import TAKEN
from server.networks import household

FREE_BODY = 128 << 10
"""Bytes of each body that do not count: most chats are smaller, and large ones must not keep them out."""

HELD_BODIES = 4
"""Bodies of the largest size that requests in progress may hold, all together."""

HELD_BY_ONE = 2
"""The same for the requests of one address, so that others find room."""

HOLD = "nkat.hold"
"""Under which name the scope carries `Account.hold`."""


class HeldBodies:
    """Pure ASGI. Keeps the books; `server.wire.body` asks before it keeps what it has read.

    A body counts until the client has taken the answer: its texts live on in the generation, and the answer
    may be as large. `largest`: bytes of the largest body.
    """

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app = app
        self._most = largest * HELD_BODIES
        self._most_of_one = largest * HELD_BY_ONE
        self._held = 0
        self._held_by: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        account = Account(self, household(scope["client"][0]) if scope["client"] is not None else None)
        try:
            await self._app({**scope, HOLD: account.hold}, receive, send)
            if account.counted and TAKEN in scope:
                await scope[TAKEN]()
        finally:
            self.release(account)

    def take(self, account: "Account", size: int) -> bool:
        """Count bytes of a request; whether there was room for them."""
        owner = account.owner
        if self._held + size > self._most:
            return False
        if owner is not None and self._held_by[owner] + size > self._most_of_one:
            return False
        self._held += size
        account.counted += size
        if owner is not None:
            self._held_by[owner] += size
        return True

    def release(self, account: "Account") -> None:
        """The request is no more."""
        self._held -= account.counted
        if account.owner is not None:
            self._held_by[account.owner] -= account.counted
            if not self._held_by[account.owner]:
                del self._held_by[account.owner]


class Account:
    """What one request holds. `owner`: whose share it counts to; None for nobody's."""

    def __init__(self, books: HeldBodies, owner: str | None) -> None:
        self._books = books
        self.owner = owner
        self.counted = 0
        self._size = 0

    def hold(self, size: int) -> bool:
        """So many bytes more are to be kept; whether they may."""
        before = max(0, self._size - FREE_BODY)
        self._size += size
        return self._books.take(self, max(0, self._size - FREE_BODY) - before)
