"""The save slots that clients keep on the server."""

import asyncio

from fastapi import APIRouter, Depends, Request

from engine.errors import NkatError
from server.auth import KeyGuard
from server.dialects.kobold.schemas import SaveBody, SlotBody
from server.savedata import Save, SaveData
from server.settings import Settings
from server.wire.body import read_model
from server.wire.body_limits import SMALL_BODY
from server.wire.endpoint import body_of
from server.wire.own_pages import strange_page
from server.wire.replies import HttpError, JsonReply

_OFF = "no saves are kept here: start the server with --savedatafile FILE"


def add_save_routes(router: APIRouter, settings: Settings, guard: KeyGuard, saves: SaveData | None) -> None:
    """Add them to the dialect's routes. Without `saves` they say that there are none."""
    with_key = [Depends(guard.require)]
    limit = settings.largest_body

    def require_writer(request: Request) -> None:
        # Who knows the key may write from any page.
        if not guard.protected and strange_page(request):
            raise HttpError(
                403, "Saves are written by the server's own pages and by KoboldAI Lite.", "forbidden"
            )

    @router.post("/api/extra/data/list", dependencies=with_key)
    async def list_saves(request: Request) -> JsonReply:
        """The titles of all slots; an empty one for an empty slot."""
        return JsonReply([] if saves is None else saves.titles())

    @router.post("/api/extra/data/load", dependencies=with_key, openapi_extra=body_of(SlotBody))
    async def load(request: Request) -> JsonReply:
        """What a slot holds."""
        body = await read_model(request, SlotBody, SMALL_BODY)
        save = None if saves is None else saves.load(body.slot)
        if save is None:
            return JsonReply({"success": False, "data": None})
        return JsonReply(
            {"success": True, "data": {"title": save.title, "format": save.format, "data": save.data}}
        )

    @router.post(
        "/api/extra/data/save",
        dependencies=[*with_key, Depends(require_writer)],
        openapi_extra=body_of(SaveBody),
    )
    async def store(request: Request) -> JsonReply:
        """Put data into a slot."""
        body = await read_model(request, SaveBody, limit)
        if saves is None:
            return JsonReply({"success": False, "error": _OFF})
        try:
            await asyncio.to_thread(saves.save, body.slot, Save(body.title, body.format, body.data))
        except NkatError as error:
            return JsonReply({"success": False, "error": str(error)})
        return JsonReply({"success": True, "error": ""})
