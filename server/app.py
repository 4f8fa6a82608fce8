"""The web application: dialects and middleware around one service."""

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from engine.errors import NkatError
from server.auth import KeyGuard
from server.dialects.kobold.routes import kobold_routes
from server.dialects.openai.routes import openai_routes
from server.logs import OnceLog
from server.middleware.crashes import CrashBoundary
from server.middleware.headers import KoboldHeaders
from server.middleware.paths import KnownPaths
from server.middleware.request_id import RequestId
from server.pages import page_routes
from server.service import GenerationService
from server.settings import Settings
from server.wire import replies


def create_app(service: GenerationService, settings: Settings) -> FastAPI:
    """The application that serves `service`. Holds nothing global: any number may live side by side."""
    guard = KeyGuard(None if settings.password is None else settings.password.get_secret_value())
    log = OnceLog()
    routers = (
        page_routes(service, protected=guard.protected),
        kobold_routes(service, settings, guard, log),
        openai_routes(service, settings, guard, log),
    )
    routes = [route for router in routers for route in router.routes]
    endpoints = [route.path for route in routes if isinstance(route, APIRoute)]
    app = FastAPI(
        title="NKAT",
        openapi_url=None,
        middleware=[
            Middleware(RequestId),
            Middleware(KoboldHeaders),
            Middleware(CrashBoundary),
            Middleware(KnownPaths, endpoints=endpoints),
        ],
        exception_handlers={
            NkatError: replies.render_nkat_error,
            replies.HttpError: replies.render_http_error,
            replies.ClientGoneError: replies.render_client_gone,
            404: replies.render_unknown_path,
            405: replies.render_unknown_path,
        },
    )
    for router in routers:
        app.include_router(router)
    return app
