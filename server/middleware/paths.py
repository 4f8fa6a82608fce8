"""KoboldCpp's tolerance for paths: any prefix, trailing slashes, old spellings."""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

DEPTH = 4
"""Segments of the longest endpoint."""

ALIASES = {
    "/api/v1": "/api",
    "/docs": "/api",
    "/v1/completion": "/v1/completions",
    "/completions": "/v1/completions",
    "/chat/completions": "/v1/chat/completions",
    "/models": "/v1/models",
    "/responses": "/v1/responses",
    "/responses/input_tokens": "/v1/responses/input_tokens",
    "/messages": "/v1/messages",
    "/messages/count_tokens": "/v1/messages/count_tokens",
    "/embeddings": "/v1/embeddings",
}


class KnownPaths:
    """Pure ASGI. Turns a path into the endpoint that it ends with, if there is one."""

    def __init__(self, app: ASGIApp, endpoints: Iterable[str]) -> None:
        self._app = app
        self._targets = {path: path for path in endpoints if path != "/"}
        for path in tuple(self._targets):
            if path.startswith("/api/v1/"):
                self._targets[path.replace("/api/v1/", "/api/latest/")] = path
        self._targets |= ALIASES
        named = {path.partition("{")[0] for path in self._targets if "{" in path}
        self._stems = {stem: stem for stem in named} | {stem.removeprefix("/v1"): stem for stem in named}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as an ASGI application."""
        if scope["type"] == "http":
            path = self.endpoint(scope["path"])
            scope = {**scope, "path": path, "raw_path": path.encode("utf-8", "replace"), "root_path": ""}
        await self._app(scope, receive, send)

    def endpoint(self, path: str) -> str:
        """The endpoint meant by `path`: the longest one that it ends with, else the path itself.

        Of endpoints whose end is a name the beginning is looked for.
        """
        path = path.rstrip("/") or "/"
        parts = path.rsplit("/", DEPTH)
        for first in range(1, len(parts)):
            target = self._targets.get("/" + "/".join(parts[first:]))
            if target is not None:
                return target
        for stem, target in self._stems.items():
            _, found, name = path.partition(stem)
            if found:
                return target + name
        return path
