"""Answers of KoboldCpp where no model that draws, sees, hears or speaks is loaded."""

from fastapi import APIRouter, Request

from server.dialects.kobold.schemas import MediaBody
from server.wire.endpoint import FORM, JSON, body_of
from server.wire.replies import HttpError, JsonReply

_NO_IMAGE = {"images": [""], "parameters": {}, "info": ""}


def add_media_routes(router: APIRouter) -> None:
    """Add them to the dialect's routes. They need no key, and hence cost nothing: no body is read."""

    unseen = body_of(MediaBody)

    @router.post("/sdapi/v1/txt2img", tags=["Absent models"], openapi_extra=unseen)
    @router.post("/sdapi/v1/img2img", tags=["Absent models"], openapi_extra=unseen)
    async def draw(request: Request) -> JsonReply:
        """No image model is loaded: one empty image."""
        return JsonReply(_NO_IMAGE)

    @router.post("/sdapi/v1/interrogate", tags=["Absent models"], openapi_extra=unseen)
    async def interrogate(request: Request) -> JsonReply:
        """No model that sees is loaded: 503."""
        raise HttpError(503, "No LLaVA model loaded", "service_unavailable")

    recording = body_of(MediaBody, sent=(JSON, FORM))

    @router.post("/api/extra/transcribe", tags=["Absent models"], openapi_extra=recording)
    @router.post("/v1/audio/transcriptions", tags=["Absent models"], openapi_extra=recording)
    async def transcribe(request: Request) -> JsonReply:
        """No model that hears is loaded: empty text."""
        return JsonReply({"text": ""})

    @router.post("/api/extra/tts", tags=["Absent models"], openapi_extra=unseen)
    @router.post("/v1/audio/speech", tags=["Absent models"], openapi_extra=unseen)
    async def speak(request: Request) -> JsonReply:
        """No model that speaks is loaded: 503."""
        raise HttpError(503, "No TTS model loaded", "service_unavailable")

    @router.get("/speakers_list", tags=["Absent models"])
    async def speakers(request: Request) -> JsonReply:
        """No model that speaks is loaded: no voices."""
        return JsonReply([])
