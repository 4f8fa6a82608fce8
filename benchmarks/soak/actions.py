"""What clients do: one function a habit, each with a connection of its own."""

import http.client
import json
import random
import socket
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.streams import WORDS

TIMEOUT_SECONDS = 120.0
_GBNF = 'root ::= "The " [a-z]{1,12} (" and the " [a-z]{1,12}){0,4} "."'
_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
_SAMPLERS: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 1.2, "top_p": 0.9, "top_k": 40},
    {"min_p": 0.05, "temperature": 1.0},
    {"mirostat": 2, "mirostat_tau": 4.0},
    {"dry_multiplier": 0.8, "xtc_probability": 0.5, "xtc_threshold": 0.1},
    {"rep_pen": 1.2, "typical": 0.9, "tfs": 0.95, "smoothing_factor": 0.2},
)


class Client:
    """One person: a random generator, the server's port, and what was answered."""

    def __init__(self, port: int, seed: int, key: str | None = None) -> None:
        self.rng = random.Random(seed)
        self.port = port
        self.answers: dict[str, int] = {}
        """Answers by status; `broken` for connections that the server ended without one."""
        self.faults: list[str] = []
        """What should not have come."""
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def act(self) -> None:
        """Do one thing."""
        habit, weight = list(HABITS), list(HABITS.values())
        chosen = self.rng.choices(habit, weight)[0]
        try:
            chosen(self)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._note("broken")
            self.faults.append(f"{chosen.__name__}: {type(error).__name__}: {error}")

    def text(self, words: int) -> str:
        """Random words."""
        return " ".join(self.rng.choices(WORDS, k=words))

    def ask(self, path: str, body: Mapping[str, Any] | None) -> bytes:
        """One request, its whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            content = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, content, self._headers)
            response = connection.getresponse()
            said = response.read()
            self._note(str(response.status))
            if response.status >= 500 and response.status != 503:
                self.faults.append(f"{path}: {response.status} {said[:200]!r}")
            return said
        finally:
            connection.close()

    def leave(self, path: str, body: Mapping[str, Any], after: int) -> None:
        """One request whose client hangs up after so many bytes of the answer."""
        raw = json.dumps(body).encode()
        head = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Length: {len(raw)}"]
        head += [f"{name}: {value}" for name, value in self._headers.items()]
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SECONDS) as connection:
            connection.sendall("\r\n".join([*head, "", ""]).encode() + raw)
            while after > 0 and (got := connection.recv(min(after, 4096))):
                after -= len(got)
        self._note("left")

    def _note(self, what: str) -> None:
        self.answers[what] = self.answers.get(what, 0) + 1


def _generate(client: Client) -> None:
    sampler = client.rng.choice(_SAMPLERS)
    prompt = client.text(client.rng.choice((5, 50, 400)))
    client.ask("/api/v1/generate", {"prompt": prompt, "max_length": client.rng.randint(1, 48)} | sampler)


def _stream(client: Client) -> None:
    body = {"prompt": client.text(20), "max_length": 40} | client.rng.choice(_SAMPLERS)
    client.ask("/api/extra/generate/stream", body)


def _long_prompt(client: Client) -> None:
    client.ask("/api/v1/generate", {"prompt": client.text(4000), "max_length": 2})


def _chat(client: Client) -> None:
    messages = [{"role": "user", "content": client.text(10)}]
    stream = client.rng.random() < 0.5
    client.ask("/v1/chat/completions", {"messages": messages, "max_tokens": 24, "stream": stream})


def _completions(client: Client) -> None:
    prompts = [client.text(6) for _ in range(2)]
    client.ask("/v1/completions", {"prompt": prompts, "max_tokens": 12, "logprobs": 3})


def _anthropic(client: Client) -> None:
    messages = [{"role": "user", "content": client.text(10)}]
    client.ask("/v1/messages", {"model": "m", "max_tokens": 16, "messages": messages})


def _responses(client: Client) -> None:
    client.ask("/v1/responses", {"input": client.text(10), "max_output_tokens": 16, "store": False})


def _ollama(client: Client) -> None:
    body = {"model": "m", "prompt": client.text(10), "options": {"num_predict": 16}}
    client.ask("/api/generate", body)


def _gbnf(client: Client) -> None:
    client.ask("/api/v1/generate", {"prompt": client.text(8), "max_length": 32, "grammar": _GBNF})


def _schema(client: Client) -> None:
    response = {"type": "json_schema", "json_schema": {"name": "p", "schema": _SCHEMA}}
    messages = [{"role": "user", "content": "Somebody as JSON."}]
    client.ask("/v1/chat/completions", {"messages": messages, "max_tokens": 40, "response_format": response})


def _embed(client: Client) -> None:
    client.ask("/v1/embeddings", {"input": [client.text(12), client.text(80)]})


def _count(client: Client) -> None:
    client.ask("/api/extra/tokencount", {"prompt": client.text(client.rng.choice((10, 5000)))})


def _abort(client: Client) -> None:
    key = f"soak-{client.rng.randrange(10**9)}"
    body = {"prompt": client.text(20), "max_length": 400, "genkey": key, "ban_eos_token": True}
    client.leave("/api/extra/generate/stream", body, after=1)
    client.ask("/api/extra/generate/check", {"genkey": key})
    client.ask("/api/extra/abort", {"genkey": key})


def _leave(client: Client) -> None:
    body = {"prompt": client.text(20), "max_length": 400, "ban_eos_token": True}
    path = client.rng.choice(("/api/extra/generate/stream", "/api/v1/generate"))
    client.leave(path, body, after=client.rng.choice((0, 1, 2000)) if "stream" in path else 0)


def _bad(client: Client) -> None:
    client.ask("/api/v1/generate", {"prompt": 5})
    client.ask("/api/v1/generate", {"prompt": "x", "grammar": "root ::= (("})


def _theta(client: Client) -> None:
    client.ask("/api/nkat/theta", {"enabled": client.rng.random() < 0.5})


def _look(client: Client) -> None:
    for path in ("/api/v1/model", "/api/extra/perf", "/v1/models", "/"):
        client.ask(path, None)


HABITS: Mapping[Callable[[Client], None], float] = {
    _generate: 6,
    _stream: 6,
    _long_prompt: 1,
    _chat: 4,
    _completions: 2,
    _anthropic: 2,
    _responses: 2,
    _ollama: 2,
    _gbnf: 2,
    _schema: 2,
    _embed: 2,
    _count: 3,
    _abort: 2,
    _leave: 3,
    _bad: 1,
    _theta: 0.5,
    _look: 3,
}
"""How often each is done, in relation to the others."""
