"""The endpoints that clients ask when they connect. Open to all, as in KoboldCpp."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request

from server.auth import KeyGuard
from server.dialects.kobold import convert
from server.service import GenerationService
from server.settings import Settings
from server.wire.replies import JsonReply

UNITED_VERSION = "1.2.5"

KOBOLDCPP_VERSION = "1.76"
"""Clients switch features on by this number. It is the level whose behaviour is implemented: from 1.88
on, KoboldAI Lite sends instruct placeholders that the server has to replace."""


def add_info_routes(
    router: APIRouter, service: GenerationService, settings: Settings, guard: KeyGuard
) -> None:
    """Add the routes that only tell."""
    length = convert.ADVERTISED_LENGTH if settings.defaultgenamt is None else settings.defaultgenamt

    def tell(path: str, answer: Callable[[Request], Any]) -> None:
        router.add_api_route(path, _handler(answer), methods=["GET"])

    def model(request: Request) -> dict[str, str]:
        return {"result": convert.model_name(service.info, hidden=not guard.admits(request))}

    def context(request: Request) -> dict[str, int]:
        return {"value": service.info.context_length}

    version = {
        "result": "KoboldCpp",
        "version": KOBOLDCPP_VERSION,
        "protected": guard.protected,
        "txt2img": False,
        "vision": False,
        "transcribe": False,
    }
    tell("/api/v1/model", model)
    tell("/api/v1/info/version", lambda _: {"result": UNITED_VERSION})
    tell("/api/v1/config/max_length", lambda _: {"value": length})
    tell("/api/v1/config/max_context_length", context)
    tell("/api/v1/config/soft_prompt", lambda _: {"value": ""})
    tell("/api/v1/config/soft_prompts_list", lambda _: {"values": []})
    tell("/api/extra/true_max_context_length", context)
    tell("/api/extra/version", lambda _: version)
    tell("/api/extra/perf", lambda _: convert.perf_reply(service.status(), quiet=settings.quiet))
    tell("/api/extra/preloadstory", lambda _: {})
    # No image model: clients ask for these at connect and want lists.
    for name in ("sd-models", "samplers", "latent-upscale-modes", "upscalers"):
        tell(f"/sdapi/v1/{name}", lambda _: [])
    tell("/sdapi/v1/options", lambda _: {"samples_format": "png", "sd_model_checkpoint": "inactive"})


def _handler(answer: Callable[[Request], Any]) -> Callable[[Request], Awaitable[JsonReply]]:
    async def handle(request: Request) -> JsonReply:
        return JsonReply(answer(request))

    return handle
