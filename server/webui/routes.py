"""Routes of the pages, of their files, and of the two endpoints that only they have."""

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from server.auth import KeyGuard
from server.service import GenerationService
from server.webui.assets import CONTENT_TYPES, LITE_LOCAL, Asset, read_assets, read_lite
from server.webui.status import EngineControl, Surroundings, ThetaBody, change_theta, status_reply
from server.wire.body import read_model
from server.wire.body_limits import SMALL_BODY
from server.wire.endpoint import body_of
from server.wire.own_pages import require_json, require_own_page
from server.wire.replies import JsonReply
from server.wire.shown import shown_info

PAGE_PATHS = ("/nkat", "/lcpp")
"""Where our page is whatever `/` shows. KoboldAI Lite links to `/lcpp` for the server's other page."""

DOCS_PATHS = ("/api", "/v1")
"""`/docs` is another spelling of `/api`: see `server.middleware.paths`."""

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; object-src 'none'; frame-ancestors 'self'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""On our own pages. Lite has scripts inside its page, and talks to other hosts if the user wants it to."""


def page_routes(
    service: GenerationService,
    guard: KeyGuard,
    *,
    engine: EngineControl,
    lite: Path | None = None,
) -> APIRouter:
    """Routes of the pages.

    `lite` is shown at `/` instead of our page, talking to this server. Raises `ConfigError` when that file
    cannot be read.
    """
    router = APIRouter()
    assets = read_assets()
    page, docs = assets.pop("index.html"), assets.pop("docs.html")

    def show(path: str, asset: Asset, headers: dict[str, str]) -> None:
        router.add_api_route(path, _sender(asset, headers), methods=["GET"], include_in_schema=False)

    if lite is None:
        show("/", page, HEADERS)
    else:
        _add_lite(router, read_lite(lite))
    for path in PAGE_PATHS:
        show(path, page, HEADERS)
    for path in DOCS_PATHS:
        show(path, docs, HEADERS)
    for name, asset in assets.items():
        show(f"/nkat/{name}", asset, HEADERS)
    _add_endpoints(
        router, service, guard, engine, Surroundings(version("nkat"), guard.protected, lite is not None)
    )
    return router


def _add_endpoints(
    router: APIRouter,
    service: GenerationService,
    guard: KeyGuard,
    engine: EngineControl,
    around: Surroundings,
) -> None:
    @router.get("/api/nkat/status", tags=["NKAT"], summary="The model, theta, and what goes on")
    async def status(request: Request) -> JsonReply:
        info = shown_info(service.info, guard, request)
        return JsonReply(status_reply(info, service.status(), engine, around))

    @router.post(
        "/api/nkat/theta",
        tags=["NKAT"],
        summary="Switch theta or change its strength, for later requests that do not say `theta` themselves",
        dependencies=[Depends(guard.require), Depends(require_own_page), Depends(require_json)],
        openapi_extra=body_of(ThetaBody),
    )
    async def theta(request: Request) -> JsonReply:
        return JsonReply(change_theta(engine, await read_model(request, ThetaBody, SMALL_BODY)))


def _add_lite(router: APIRouter, lite: Asset) -> None:
    @router.get("/", include_in_schema=False)
    async def show_lite(request: Request) -> Response:
        # Without the word in its address Lite sends prompts to AI Horde, which is strangers' machines.
        if LITE_LOCAL not in request.query_params:
            asked = [(LITE_LOCAL, "1"), *request.query_params.multi_items()]
            return RedirectResponse(f"{request.scope.get('root_path', '')}/?{urlencode(asked)}", 302)
        return Response(lite.body, headers={"content-type": lite.content_type})

    @router.get("/sw.js", include_in_schema=False)
    async def service_worker() -> Response:
        """What Lite registers to be installable. It keeps nothing and answers nothing."""
        return Response(b"", headers={"content-type": CONTENT_TYPES[".js"]})


def _sender(asset: Asset, headers: dict[str, str]) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(asset.body, headers={"content-type": asset.content_type} | headers)

    return send
