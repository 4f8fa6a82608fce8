"""Streams of one HTTP server at once, the same client for every server."""

import http.client
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.peer import PeerError
from benchmarks.sizes import STREAM_TOKENS, STREAMS

WORDS = (
    "sea",
    "lamp",
    "storm",
    "harbour",
    "night",
    "keeper",
    "boat",
    "gull",
    "stone",
    "tide",
    "rope",
    "wind",
)
_PROMPT_WORDS = 8
_SECONDS = 300.0


def stream_all(port: int, seed: int) -> float:
    """Tokens/s of all streams together, from the first request to the last token. Raises `PeerError`."""
    prompts = _prompts(seed)
    start = time.perf_counter()
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = list(pool.map(lambda prompt: _stream(port, prompt), prompts))
    tokens = sum(made for made, _ in streams)
    if tokens != STREAMS * STREAM_TOKENS:
        raise PeerError(f"the server made {tokens} tokens, not {STREAMS} x {STREAM_TOKENS}")
    return tokens / (max(end for _, end in streams) - start)


def answers(port: int) -> bool:
    """Whether the server makes tokens already."""
    body = {"prompt": "The", "max_tokens": 1}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        return _post(connection, body).status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _stream(port: int, prompt: str) -> tuple[int, float]:
    """The tokens that one request made, as the server counts them, and when the last came."""
    body = {
        "prompt": prompt,
        "max_tokens": STREAM_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        # One of them is what the server calls it; either knows nothing of the other.
        "ignore_eos": True,
        "bypass_eos": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    last, end = b"{}", 0.0
    try:
        response = _post(connection, body)
        # Nothing but the last event is parsed: the client shares the processor with what it measures.
        for line in response:
            if line.startswith(b"data: {"):
                last, end = line[6:], time.perf_counter()
        usage = json.loads(last).get("usage") or {}
        return int(usage.get("completion_tokens", 0)), end
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PeerError(f"a stream of the server on port {port} broke: {error}") from None
    finally:
        connection.close()


def _post(connection: http.client.HTTPConnection, body: dict[str, Any]) -> http.client.HTTPResponse:
    content = json.dumps(body).encode()
    connection.request("POST", "/v1/completions", content, {"Content-Type": "application/json"})
    return connection.getresponse()


def _prompts(seed: int) -> list[str]:
    """Short prompts that differ from their first words on, so that no prefix is cached."""
    rng = random.Random(seed)
    return [
        f"{seed}.{number} The " + " ".join(rng.choices(WORDS, k=_PROMPT_WORDS)) for number in range(STREAMS)
    ]
