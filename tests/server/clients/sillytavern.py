"""What SillyTavern's own server does, which stands between its page and ours: no CORS, its own parsers."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.server.live import Answer, LiveServer

NODE = {"User-Agent": "node-fetch/1.0", "Connection": "close", "Accept-Encoding": "gzip,deflate"}

TEXT: dict[str, Any] = {
    "prompt": "Write Bramble's next reply in a fictional chat between Bramble and User.\nBramble:",
    "max_new_tokens": 24, "max_tokens": 24, "temperature": 0.5, "top_p": 0.9, "typical_p": 1, "typical": 1,
    "sampler_seed": -1, "min_p": 0, "repetition_penalty": 1.1, "frequency_penalty": 0, "presence_penalty": 0,
    "top_k": 0, "skew": 0, "min_tokens": 0, "add_bos_token": True, "smoothing_factor": 0,
    "smoothing_curve": 1, "dry_allowed_length": 2, "dry_multiplier": 0, "dry_base": 1.75,
    "dry_sequence_breakers": '["\\n",":","\\"","*"]', "dry_penalty_last_n": 0, "max_tokens_second": 0,
    "stopping_strings": ["\nUser:", "\n***"], "stop": ["\nUser:", "\n***"], "truncation_length": 8192,
    "ban_eos_token": False, "skip_special_tokens": True, "top_a": 0, "tfs": 1, "mirostat_mode": 0,
    "mirostat_tau": 5, "mirostat_eta": 0.1, "custom_token_bans": "", "banned_strings": [],
    "api_type": "koboldcpp", "api_server": "http://127.0.0.1:5001", "legacy_api": False,
    "sampler_order": [6, 0, 1, 3, 4, 2, 5], "xtc_threshold": 0.1, "xtc_probability": 0, "grammar": "",
    "rep_pen": 1.1, "rep_pen_range": 0, "repetition_penalty_range": 0, "seed": -1, "guidance_scale": 1,
    "negative_prompt": "", "grammar_string": "", "repeat_penalty": 1.1, "tfs_z": 1, "repeat_last_n": 0,
    "n_predict": 24, "num_predict": 24, "num_ctx": 8192, "mirostat": 0, "ignore_eos": False,
    "rep_pen_slope": 1, "stream": True,
}  # fmt: skip
"""The body of a generation of "Text Completion", type KoboldCpp; `stream` is absent when it is off."""

CLASSIC: dict[str, Any] = {
    "prompt": "hello world", "use_story": False, "use_memory": False, "use_authors_note": False,
    "use_world_info": False, "max_context_length": 8192, "max_length": 24, "rep_pen": 1.1,
    "rep_pen_range": 600, "rep_pen_slope": 0, "temperature": 1, "tfs": 1, "top_a": 0, "top_k": 0,
    "top_p": 0.95, "min_p": 0, "typical": 1, "sampler_order": [6, 0, 1, 2, 3, 4, 5], "singleline": False,
    "use_default_badwordsids": False, "mirostat": 0, "mirostat_eta": 0.1, "mirostat_tau": 5, "grammar": "",
    "stop_sequence": ["\nUser:", "\n***"],
}  # fmt: skip
"""The body of a generation of "KoboldAI Classic"."""

CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Write Bramble's next reply."},
        {"role": "system", "content": "Bramble is a hedgehog."},
        {"role": "system", "content": "[Start a new Chat]"},
        {"role": "assistant", "content": "Good evening, I am Bramble."},
        {"role": "user", "content": "Hello?"},
    ],
    "model": "koboldcpp/tiny", "temperature": 1, "max_tokens": 24, "stream": True, "presence_penalty": 0,
    "frequency_penalty": 0, "top_p": 1, "logit_bias": {},
}  # fmt: skip
"""The body of "Chat Completion", source Custom: a greeting comes first, after several systems."""

COMPLETIONS = "/v1/completions"
CHATS = "/v1/chat/completions"


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """A body that lacks some fields."""
    return {name: value for name, value in body.items() if name not in names}


@dataclass
class Told:
    """What it has read of a stream. `swipes`: further texts, by their index."""

    text: str = ""
    swipes: dict[int, str] = field(default_factory=dict)
    thoughts: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False


class ApiError(Exception):
    """What it shows as an error; empty where it shows none."""


def data_of(stream: bytes) -> list[str]:
    """The data of each event: blank lines of either kind part events, and comments are skipped."""
    found = []
    for event in re.split(r"\r?\n\r?\n", stream.decode("utf-8")):
        # A raw U+2028 ends a line there, as everywhere in its reader.
        lines = [line for line in re.split(r"[\r\n\u2028\u2029]+", event) if line.startswith("data:")]
        if lines:
            found.append("\n".join(line.removeprefix("data:").removeprefix(" ") for line in lines))
    return found


def shown_error(said: Any) -> str | None:
    """What an object with an error shows: only text is shown, and KoboldCpp's own object shows nothing."""
    if not isinstance(said, dict) or not any(said.get(name) for name in ("error", "message", "detail")):
        return None
    error = said.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    message = message or said.get("message") or said.get("detail")
    return message if isinstance(message, str) else ""


def read_text(answer: Answer) -> Told:
    """A stream of `/v1/completions`. Raises `ApiError`."""
    _check(answer)
    told = Told()
    for data in data_of(answer.body):
        if data == "[DONE]":
            told.done = True
            break
        said = json.loads(data)
        if (error := shown_error(said)) is not None:
            raise ApiError(error)
        for choice in said.get("choices", [])[:1]:
            if choice["index"] > 0:
                told.swipes[choice["index"]] = told.swipes.get(choice["index"], "") + choice["text"]
            else:
                told.text += choice["text"]
    return told


def read_chat(answer: Answer) -> Told:
    """A stream of `/chat/completions`. Raises `ApiError`; an object without `choices` ends the reply."""
    _check(answer)
    told = Told()
    for data in data_of(answer.body):
        if data == "[DONE]":
            told.done = True
            break
        said = json.loads(data)
        if (error := shown_error(said)) is not None:
            raise ApiError(error)
        for choice in said["choices"][:1]:
            assert isinstance(choice["index"], int)
            delta = choice["delta"]
            told.text += delta.get("content") or ""
            told.thoughts += delta.get("reasoning_content") or delta.get("reasoning") or ""
            for part in delta.get("tool_calls") or []:
                while len(told.calls) <= part["index"]:
                    told.calls.append({})
                _join(told.calls[part["index"]], part)
    return told


def read_classic(answer: Answer) -> str:
    """A stream of Kobold's kind: every data is JSON, event names are not looked at."""
    _check(answer)
    return "".join(json.loads(data)["token"] for data in data_of(answer.body))


def _check(answer: Answer) -> None:
    if not 200 <= answer.status < 300:
        raise ApiError(shown_error(json.loads(answer.body)) or "")


def _join(call: dict[str, Any], part: dict[str, Any]) -> None:
    """Texts of a streamed call are put together, name by name: sent twice they would stand there twice."""
    for name, value in part.items():
        if isinstance(value, dict):
            _join(call.setdefault(name, {}), value)
        elif isinstance(value, str):
            call[name] = call.get(name, "") + value
        else:
            call[name] = value


@dataclass
class SillyTavern:
    """Its server; `key` is what the user typed, if anything."""

    server: LiveServer
    key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What its fetch sends with everything but the abort."""
        headers = NODE | {"Content-Type": "application/json"}
        return headers if self.key is None else headers | {"Authorization": f"Bearer {self.key}"}

    def post(self, path: str, body: Any) -> Answer:
        """A request with JSON."""
        return self.server.ask("POST", path, body, self.headers)

    def get(self, path: str) -> Answer:
        """A request without."""
        return self.server.ask("GET", path, headers=self.headers)

    def stop(self) -> Answer:
        """The user's stop: no body, no content type, no key."""
        return self.server.ask("POST", "/api/extra/abort", headers=NODE)
