"""The page at `/`: what runs here and how to connect."""

from html import escape

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from server.service import GenerationService

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>NKAT</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44em;margin:3em auto;padding:0 1em}}
code{{background:#8883;padding:.1em .3em}}</style>
<h1>NKAT</h1>
<p>Serving <b>{model}</b> ({quantization}, {architecture}) with a context of {context} tokens.</p>
<ul>
<li>KoboldAI Lite, SillyTavern (KoboldCpp): <code>{base}</code></li>
<li>OpenAI clients: base URL <code>{base}/v1</code></li>
</ul>
<p>Try it:</p>
<pre><code>curl {base}/api/v1/generate -d '{{"prompt": "Once upon a time", "max_length": 40}}'</code></pre>
</html>
"""


def page_routes(service: GenerationService, *, protected: bool) -> APIRouter:
    """Routes of the pages; with a password the model's name is not shown."""
    router = APIRouter()

    async def landing(request: Request) -> HTMLResponse:
        info = service.info
        return HTMLResponse(
            _PAGE.format(
                model="a protected model" if protected else escape(info.name),
                quantization=escape(info.quantization),
                architecture=escape(info.architecture),
                context=info.context_length,
                base=escape(str(request.base_url).rstrip("/")),
            )
        )

    for path in ("/", "/api", "/v1"):
        router.add_api_route(path, landing, methods=["GET"])
    return router
