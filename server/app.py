"""The web application: dialects and middleware around one service."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from engine.errors import NkatError
from engine.types import ChatPrompt
from server.auth import KeyGuard
from server.chat.adapter_guess import guess_adapter
from server.chat.adapters import Adapter, load_adapter
from server.chat.planner import ChatPlanner
from server.dialects.anthropic.routes import anthropic_routes
from server.dialects.kobold.routes import kobold_routes
from server.dialects.ollama.routes import ollama_routes
from server.dialects.openai.routes import openai_routes
from server.dialects.responses.routes import responses_routes
from server.logs import UnsupportedLog
from server.middleware.bodies import HeldBodies
from server.middleware.client_address import ClientAddress
from server.middleware.crashes import CrashBoundary
from server.middleware.headers import KoboldHeaders
from server.middleware.hosts import AllowedHosts, host_rule
from server.middleware.lingering import LingeringClose
from server.middleware.memory import MemoryReturn
from server.middleware.paths import KnownPaths
from server.middleware.proxies import TrustedProxies
from server.middleware.request_id import RequestId
from server.networks import Networks
from server.openapi import add_description
from server.password import key_of
from server.pools import WorkPool
from server.savedata import SaveData
from server.service import GenerationService
from server.settings import Settings
from server.story import read_story
from server.webui.routes import page_routes
from server.wire import replies
from server.wire.body_budget import BodyBudget


def create_app(service: GenerationService, settings: Settings) -> FastAPI:
    """The application that serves `service`. Holds nothing global: any number may live side by side.

    Raises `ConfigError` for files of the settings that cannot be used.
    """
    guard = KeyGuard(key_of(settings))
    log = UnsupportedLog()
    guessed = _guessed_adapter(service)
    chosen = (load_adapter(settings.adapter) or guessed) if settings.adapter else None
    tags = guessed if chosen is None else chosen
    planner = ChatPlanner(service.info, chosen, guessed, sizes=service, special=settings.special_in_messages)
    saves = None if settings.savedatafile is None else SaveData.open(settings.savedatafile)
    routers = (
        page_routes(service, guard, engine=service.engine, lite=settings.lite),
        kobold_routes(
            service,
            settings,
            guard,
            log,
            planner=planner,
            adapter=tags,
            story=read_story(settings.preloadstory),
            saves=saves,
        ),
        openai_routes(service, settings, guard, log, planner, tags),
        responses_routes(service, settings, guard, log, planner),
        anthropic_routes(service, settings, guard, log, planner),
        ollama_routes(service, settings, guard, log, planner),
    )
    routes = [route for router in routers for route in router.routes]
    endpoints = [route.path for route in routes if isinstance(route, APIRoute)]
    app = FastAPI(
        title="NKAT",
        openapi_url=None,
        middleware=[
            Middleware(RequestId),
            Middleware(TrustedProxies, proxies=Networks(settings.trusted_proxies or ())),
            Middleware(ClientAddress),
            Middleware(MemoryReturn),
            Middleware(LingeringClose),
            Middleware(KoboldHeaders),
            Middleware(AllowedHosts, rule=host_rule(settings)),
            Middleware(HeldBodies, budget=BodyBudget(settings.largest_body)),
            Middleware(CrashBoundary),
            Middleware(KnownPaths, endpoints=[*endpoints, "/openapi.json"]),
        ],
        exception_handlers={
            NkatError: replies.render_nkat_error,
            replies.HttpError: replies.render_http_error,
            replies.ClientGoneError: replies.render_client_gone,
            404: replies.render_unknown_path,
            405: replies.render_unknown_path,
        },
    )
    app.state.body_pool = WorkPool("bodies", threads=1, waiting_per_client=8)
    for router in routers:
        app.include_router(router)
    add_description(app, version("nkat"))
    return app


def _guessed_adapter(service: GenerationService) -> Adapter:
    """The tags that the model's own template writes, or the engine's where the file has none."""

    def render(messages: Sequence[Mapping[str, Any]], open_reply: bool) -> str:
        chat = ChatPrompt(tuple(messages), continue_last=False, open_reply=open_reply)
        return service.engine.render_chat_now(chat)

    return guess_adapter(render, chatml=False)
