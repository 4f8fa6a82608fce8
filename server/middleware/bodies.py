"""Requests hold what they were sent until they have been served."""

from starlette.types import ASGIApp, Receive, Scope, Send

from server.http.protocol import TAKEN
from server.networks import household
from server.wire.body_budget import BodyBudget

SHARE = "nkat.body"
"""Under which name the scope carries the request's `BodyShare`."""


class HeldBodies:
    """Pure ASGI. Gives each request its share of `budget`, until the client has taken the answer.

    The texts of a body live on in the generation after it was parsed, and the answer may be as large.
    """

    def __init__(self, app: ASGIApp, budget: BodyBudget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        owner = household(scope["client"][0]) if scope["client"] is not None else None
        with self._budget.open(owner) as share:
            await self._app({**scope, SHARE: share}, receive, send)
            if share.taken and TAKEN in scope:
                await scope[TAKEN]()
