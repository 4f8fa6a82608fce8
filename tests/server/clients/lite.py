"""What KoboldAI Lite, a web page, does: how it connects, what it sends, how it reads the answers.

Written after what version 339 of the page was seen to do.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.server.live import Answer, LiveServer

ORIGIN = "https://lite.koboldai.net"

# JavaScript's `.` leaves out U+2028 and U+2029 as well.
_REST = r"([^\n\r\u2028\u2029]*)"
_KOBOLD_EVENT = re.compile(rf"^event: {_REST}\ndata: {_REST}(\r?\n){{2}}", re.MULTILINE)
_OPENAI_EVENT = re.compile(rf"^data: ?{_REST}(\r?\n){{2}}", re.MULTILINE)

STORY: dict[str, Any] = {
    "n": 1, "max_context_length": 6144, "max_length": 768, "rep_pen": 1.05, "temperature": 0.75,
    "top_p": 0.92, "top_k": 100, "top_a": 0, "typical": 1, "tfs": 1, "rep_pen_range": 360,
    "rep_pen_slope": 0.7, "sampler_order": [6, 0, 1, 3, 4, 2, 5], "memory": "", "trim_stop": True,
    "genkey": "KCPP9003", "min_p": 0, "dynatemp_range": 0, "dynatemp_exponent": 1, "smoothing_factor": 0,
    "smoothing_curve": 1, "nsigma": 0, "banned_tokens": [], "render_special": False, "logprobs": False,
    "presence_penalty": 0, "logit_bias": {}, "stop_sequence": [], "use_default_badwordsids": False,
    "bypass_eos": False, "prompt": "Once upon a time",
}  # fmt: skip
"""The body of a generation in story mode with the settings that a fresh page has."""

INSTRUCT: dict[str, Any] = {
    name: value for name, value in STORY.items() if name not in ("prompt", "memory")
} | {
    "messages": [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "Hello?"},
    ],
    "stop_sequence": ["{{[INPUT]}}", "{{[OUTPUT]}}"],
    "replace_instruct_placeholders": True,
    "continue_assistant_turn": True,
    "stream": True,
}
"""The body in instruct mode for `/v1/chat/completions`: Kobold's names, and no `model`."""

SHORT = STORY | {"max_length": 12, "use_default_badwordsids": True}
"""The same for twelve tokens, whatever the model would like."""

STREAM = "/api/extra/generate/stream"
GENERATE = "/api/v1/generate"
CHECK = "/api/extra/generate/check"
ABORT = "/api/extra/abort"
DONE = {"success": "true", "done": "true"}
"""What an abort answers that has ended something."""


def compares_as(version: str, wanted: str) -> bool:
    """Whether the page takes `version` for `wanted` or newer: part by part, what is no number being older."""
    have, want = ([_number(part) for part in text.split(".")] for text in (version, wanted))
    length = max(len(have), len(want))
    have, want = (part + [0] * (length - len(part)) for part in (have, want))
    return have >= want


def _number(part: str) -> int:
    return int(part) if part.isdecimal() else -1


@dataclass
class Connection:
    """What the page knows after it has connected."""

    model: str
    version: str
    stops: bool
    """Whether it sends stop sequences."""
    flags: dict[str, Any]
    context: int
    story: dict[str, Any]


@dataclass
class Told:
    """What the page has read of a stream of the OpenAI kind."""

    text: str = ""
    thoughts: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str | None = None
    dropped: list[str] = field(default_factory=list)
    """Data that is no JSON, which the page skips."""


class Lite:
    """One page, on another origin than the server, with a key or without."""

    def __init__(self, server: LiveServer, key: str | None = None) -> None:
        self.server = server
        self._headers = {"Content-Type": "application/json", "Origin": ORIGIN}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """A `fetch` of the page: the browser asks for leave first, and hides answers without CORS headers."""
        asked = "authorization,content-type" if "Authorization" in self._headers else "content-type"
        leave = self.server.ask(
            "OPTIONS",
            path,
            headers={
                "Origin": ORIGIN,
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": asked,
            },
        )
        allowed = [
            name.strip().lower() for name in (leave.header("access-control-allow-headers") or "").split(",")
        ]
        assert leave.status == 200
        assert leave.header("access-control-allow-origin") in ("*", ORIGIN)
        assert set(asked.split(",")) <= set(allowed), "`*` does not cover Authorization"
        answer = self.server.ask(method, path, body, self._headers)
        assert answer.header("access-control-allow-origin") in ("*", ORIGIN), "else: Failed to fetch"
        return answer

    def get(self, path: str) -> Any:
        """JSON, whatever the status: the page does not look at it."""
        return self.ask("GET", path).json

    def post(self, path: str, body: Any) -> Any:
        """JSON, whatever the status."""
        return self.ask("POST", path, body).json

    def connect(self) -> Connection:
        """The calls of "Connect", in the page's order, and what it makes of them."""
        model = self.get("/api/v1/model")["result"]
        assert model, "The custom endpoint failed to respond correctly"
        assert model not in ("ReadOnly", "inactive"), "no model was loaded"
        united = self.get("/api/v1/info/version")["result"]
        assert self.get("/api/v1/config/max_context_length")["value"] > 0
        flags = self.get("/api/extra/version")
        assert isinstance(flags["version"], str), "a.replace is not a function"
        context = self.get("/api/extra/true_max_context_length")["value"]
        story = self.get("/api/extra/preloadstory")
        # A plain fetch: no headers of its own, hence no leave to ask for.
        images = self.server.ask("GET", "/sdapi/v1/sd-models", headers={"Origin": ORIGIN})
        assert images.header("access-control-allow-origin") in ("*", ORIGIN)
        assert not [one for one in images.json if one["model_name"] != "inactive" and one["filename"]]
        return Connection(model, flags["version"], compares_as(united, "1.2.2"), flags, context, story)

    def stream(self, body: dict[str, Any]) -> tuple[str, str | None]:
        """The text of a generation by server-sent events, and the last `finish_reason`.

        Raises `ShownError` for what the page shows in a box.
        """
        answer = self.ask("POST", STREAM, body)
        if not 200 <= answer.status < 300:
            raise ShownError(f"Error occurred while SSE streaming: {answer.body.decode()}")
        text, finish = "", None
        left = answer.body.decode("utf-8")
        while event := _KOBOLD_EVENT.search(left):
            data = json.loads(event[2])
            text += data["token"]
            finish = data["finish_reason"] or finish
            left = left[event.end() :]
        assert left == "", "nothing that the page does not understand"
        return text, finish

    def generate(self, body: dict[str, Any]) -> str:
        """The text of a generation in one piece. Raises `ShownError`."""
        said = self.post(GENERATE, body)
        if not said.get("results"):
            raise ShownError(
                f"Error occurred during text generation: {json.dumps(said)[:500]}",
                offers_abort=said.get("detail", {}).get("type") == "service_unavailable",
            )
        return str(said["results"][0]["text"])

    def chat(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> Told:
        """A streamed turn of instruct mode, or of the mode for OpenAI's servers. Raises `ShownError`."""
        answer = self.ask("POST", path, body)
        if not 200 <= answer.status < 300:
            raise ShownError(f"Error while SSE streaming: {answer.body.decode()}")
        return read_openai(answer.body.decode("utf-8"))


class ShownError(Exception):
    """A box that the page shows; `offers_abort`: with a button that ends the running request."""

    def __init__(self, text: str, offers_abort: bool = False) -> None:
        super().__init__(text)
        self.offers_abort = offers_abort


def read_openai(stream: str) -> Told:
    """The page's reading of OpenAI's kind of stream. A streamed call counts only with its finish reason."""
    told = Told()
    calls: dict[int, dict[str, Any]] = {}
    while event := _OPENAI_EVENT.search(stream):
        stream = stream[event.end() :]
        try:
            data = json.loads(event[1])
        except ValueError:
            told.dropped.append(event[1])
            continue
        for choice in data.get("choices", [])[:1]:
            delta = choice.get("delta", {})
            if choice.get("text"):
                told.text += choice["text"]
            elif delta.get("content"):
                told.text += delta["content"]
            elif thought := delta.get("reasoning_content") or delta.get("reasoning"):
                told.thoughts += thought
            for part in delta.get("tool_calls") or []:
                call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += part.get("id", "")
                call["name"] += part["function"].get("name", "")
                call["arguments"] += part["function"].get("arguments", "")
            told.finish = choice.get("finish_reason") or told.finish
    if told.finish == "tool_calls":
        told.calls = list(calls.values())
    return told
