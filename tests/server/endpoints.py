"""All endpoints of the server, read from its routes: a new one is protected, or named here with a reason."""

from collections.abc import Iterator
from typing import cast

from fastapi.routing import iter_route_contexts

from engine.worker import EngineWorker
from server.app import create_app
from server.client import EngineClient
from server.service import GenerationService
from server.settings import Settings
from tests.server.dialects.scripted import ScriptedWorker

Endpoint = tuple[str, str]
"""Method and path."""

ASSETS = "/nkat/"
"""Below this are parts of the pages."""
FREE_GETS = {
    **dict.fromkeys(("/", "/nkat", "/lcpp", "/api", "/v1", "/manifest.json"), "a page"),
    "/openapi.json": "the description of the API",
    "/api/nkat/status": "what the page shows; names are left out without the key",
    **dict.fromkeys(("/api/v1/model", "/v1/models", "/api/tags", "/api/ps", "/props"), "what is loaded"),
    **dict.fromkeys(("/api/v1/info/version", "/api/extra/version", "/api/version"), "versions"),
    "/.well-known/serviceinfo": "what this is",
    "/ping": "whether it lives",
    **dict.fromkeys(("/api/extra/perf", "/slots"), "how it goes"),
    "/api/v1/config/max_length": "a setting",
    "/api/v1/config/max_context_length": "a setting",
    "/api/extra/true_max_context_length": "a setting",
    "/api/extra/preloadstory": "what pages begin with",
    "/api/v1/config/soft_prompt": "there are none",
    "/api/v1/config/soft_prompts_list": "there are none",
    "/speakers_list": "no model that speaks",
    **{
        f"/sdapi/v1/{name}": "no image model"
        for name in (
            "sd-models", "samplers", "latent-upscale-modes", "upscalers", "loras", "schedulers", "options",
        )
    },
}  # fmt: skip
"""GET endpoints that everybody may ask, with the reason."""
FREE_POSTS = {
    "/sdapi/v1/txt2img": "no image model",
    "/sdapi/v1/img2img": "no image model",
    "/sdapi/v1/interrogate": "no model that sees",
    "/api/extra/transcribe": "no model that hears",
    "/v1/audio/transcriptions": "no model that hears",
    "/api/extra/tts": "no model that speaks",
    "/v1/audio/speech": "no model that speaks",
}
"""POST endpoints that neither reach the engine nor keep anything, with the reason."""


def _all() -> Iterator[Endpoint]:
    # A server without a model of its own: that changes no endpoint.
    service = GenerationService(EngineClient(cast(EngineWorker, ScriptedWorker())), 1)
    for context in iter_route_contexts(create_app(service, Settings()).routes):
        assert context.path_format is not None
        for method in sorted((context.methods or set()) - {"HEAD"}):
            yield method, context.path_format.replace("{response_id}", "resp_x")


ENDPOINTS: tuple[Endpoint, ...] = tuple(_all())
FREE: tuple[Endpoint, ...] = (
    *(("GET", path) for path in FREE_GETS),
    *(("POST", path) for path in FREE_POSTS),
    *(endpoint for endpoint in ENDPOINTS if endpoint[1].startswith(ASSETS)),
)
PROTECTED: tuple[Endpoint, ...] = tuple(endpoint for endpoint in ENDPOINTS if endpoint not in FREE)
"""All others."""
