"""The endpoints that clients ask when they connect. Open to all, as in KoboldCpp."""

from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from typing import Any, NoReturn

from fastapi import APIRouter, Request

from server.auth import KeyGuard
from server.dialects.kobold import convert
from server.service import GenerationService
from server.settings import Settings
from server.wire.names import model_name
from server.wire.replies import HttpError, JsonReply
from server.wire.shown import shown_info

UNITED_VERSION = "1.2.5"

KOBOLDCPP_VERSION = "1.104"
"""Clients switch features on by this number: it is the newest whose features are all here. With 1.88 come
instruct placeholders, with 1.104 adaptive-p and, as `jinja` says, chats through `/v1/chat/completions`."""


_NO_IMAGE_MODEL = {"samples_format": "png", "sd_model_checkpoint": "inactive"}

_MANIFEST = {
    "name": "NKAT",
    "short_name": "NKAT",
    "start_url": "./",
    "display": "standalone",
    "icons": [],
}

_SERVICE = {
    "version": "0.2",
    "software": {
        "name": "NKAT",
        "version": metadata.version("nkat"),
        "repository": "",
        "homepage": "",
        "logo": "",
    },
    "api": {
        "koboldai": {
            "name": "KoboldAI API",
            "rel_url": "/api",
            "documentation": "/docs",
            "version": UNITED_VERSION,
        },
        "openai": {"name": "OpenAI API", "rel_url": "/v1", "documentation": "/docs", "version": "1"},
    },
}


def add_info_routes(
    router: APIRouter,
    service: GenerationService,
    settings: Settings,
    guard: KeyGuard,
    story: Mapping[str, Any],
) -> None:
    """Add the routes that only tell. `story`: what `--preloadstory` names, else empty."""
    length = convert.ADVERTISED_LENGTH if settings.defaultgenamt is None else settings.defaultgenamt

    def tell(path: str, meaning: str, answer: Callable[[Request], Any]) -> None:
        router.add_api_route(path, _handler(answer), methods=["GET"], summary=meaning)

    def model(request: Request) -> dict[str, str]:
        return {"result": model_name(shown_info(service.info, guard, request))}

    def context(request: Request) -> dict[str, int]:
        return {"value": service.info.context_length}

    version = {
        "result": "KoboldCpp",
        "version": KOBOLDCPP_VERSION,
        "protected": guard.protected,
        "llm": True,
        "txt2img": False,
        "vision": False,
        "audio": False,
        "transcribe": False,
        "multiplayer": False,
        "websearch": False,
        "tts": False,
        "embeddings": True,
        "music": False,
        "savedata": settings.savedatafile is not None,
        "admin": 0,
        "router": False,
        "guidance": False,
        "jinja": settings.jinja,
        "mcp": False,
    }

    def perf() -> dict[str, Any]:
        return convert.perf_reply(service.status(), quiet=settings.quiet)

    tell("/api/v1/model", "The name of the loaded model", model)
    tell("/api/v1/info/version", "The version of the KoboldAI API", lambda _: {"result": UNITED_VERSION})
    tell("/api/v1/config/max_length", "Tokens that a reply usually has", lambda _: {"value": length})
    tell("/api/v1/config/max_context_length", "The context in tokens", context)
    tell("/api/v1/config/soft_prompt", "No soft prompt is loaded", lambda _: {"value": ""})
    tell("/api/v1/config/soft_prompts_list", "There are no soft prompts", lambda _: {"values": []})
    tell("/api/extra/true_max_context_length", "The context in tokens", context)
    tell("/api/extra/version", "Which KoboldCpp this is like, and what it can do", lambda _: version)
    tell("/api/extra/perf", "Speeds, counters and the queue", lambda _: perf())
    tell("/api/extra/preloadstory", "The story to begin with", lambda _: story)
    tell("/ping", "Whether the server lives", lambda _: {"status": "healthy"})
    tell("/.well-known/serviceinfo", "What this service is", lambda _: _SERVICE)
    tell(
        "/props",
        "llama.cpp's description of the model",
        lambda request: convert.props_reply(shown_info(service.info, guard, request), settings),
    )
    tell("/slots", "Not supported: 501", lambda _: _no_slots())
    tell("/manifest.json", "The manifest of the page as an app", lambda _: _MANIFEST)
    # No image model: clients ask for these at connect and want lists.
    for name in ("sd-models", "samplers", "latent-upscale-modes", "upscalers", "loras", "schedulers"):
        tell(f"/sdapi/v1/{name}", "No image model is loaded", lambda _: [])
    tell("/sdapi/v1/options", "No image model is loaded", lambda _: _NO_IMAGE_MODEL)


def _no_slots() -> NoReturn:
    raise HttpError(501, "This server does not support slots endpoint.", "not_supported_error")


def _handler(answer: Callable[[Request], Any]) -> Callable[[Request], Awaitable[JsonReply]]:
    async def handle(request: Request) -> JsonReply:
        return JsonReply(answer(request))

    return handle
