"""What KoboldCpp's endpoints take and tell beside the text: placeholders, log probabilities, grammars."""

import codecs
import json
import math
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from engine.types import GenerationRequest, TextPrompt
from tests.server.live import LiveServer
from tests.server.test_kobold_endpoints import CHAT, GENERATE, GREEDY, STREAM, result_of

LAST_LOGPROBS = "/api/extra/last_logprobs"


@pytest.fixture
def asked(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> list[GenerationRequest]:
    """The requests that reach the engine, as the dialect made them; they are carried out as ever."""
    requests: list[GenerationRequest] = []
    prepare = server.worker.prepare

    def record(request: GenerationRequest) -> GenerationRequest:
        requests.append(request)
        return prepare(request)

    monkeypatch.setattr(server.worker, "prepare", record)
    return requests


PLACED = (
    "{{[SYSTEM]}}Be brief.{{[SYSTEM_END]}}{{[INPUT]}}Hello?{{[INPUT_END]}}{{[OUTPUT]}}Hi.{{[OUTPUT_END]}}"
    "{{[INPUT]}}And now?{{[INPUT_END]}}{{[OUTPUT]}}"
)
OPENED = "{{[INPUT]}}Hello?{{[OUTPUT]}}Hi.{{[INPUT]}}And now?{{[OUTPUT]}}"


@pytest.mark.parametrize(("text", "messages"), [(PLACED, CHAT), (OPENED, CHAT[1:])])
@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_placeholders_are_the_templates_tags(
    server: LiveServer, asked: list[GenerationRequest], path: str, text: str, messages: Any
) -> None:
    counted = server.post("/api/extra/tokencount", {"messages": messages}).json
    for cut in (0, text.index("Hello"), text.index("{{[OUTPUT]}}")):
        body = {
            "memory": text[:cut],
            "prompt": text[cut:],
            "stop_sequence": ["{{[INPUT]}}", "{{[OUTPUT]}}", "\nMe:"],
            "max_length": 1,
        }
        assert server.post(path, body).status == 200
        prompt = asked[-1].prompt
        assert isinstance(prompt, TextPrompt)
        assert prompt.memory + prompt.text == counted["prompt"]
        assert server.worker.encode(prompt.memory) + server.worker.encode(prompt.text) == counted["ids"]
        assert asked[-1].stop == ("<|im_start|>user", "<|im_start|>assistant", "\nMe:")


def test_placeholders_are_text_where_nobody_wants_them(
    server: LiveServer, asked: list[GenerationRequest]
) -> None:
    body = {"prompt": OPENED, "stop_sequence": ["{{[INPUT]}}"], "max_length": 1}
    server.post(GENERATE, body | {"replace_instruct_placeholders": False})
    assert asked[-1].prompt == TextPrompt(OPENED)
    assert asked[-1].stop == ("{{[INPUT]}}",)


def test_a_placeholder_ends_the_text(server: LiveServer) -> None:
    """Grammars write the tags letter by letter: what ends the text is the string."""
    body = {
        "prompt": "{{[INPUT]}}hello{{[OUTPUT]}}",
        "grammar": 'root ::= "hi<" "|im_start|>user" "more"',
        "stop_sequence": ["{{[INPUT]}}"],
        "max_length": 60,
    }
    result = result_of(server.post(GENERATE, body))
    assert (result["text"], result["finish_reason"]) == ("hi", "stop")


# Log probabilities


def check_logprobs(told: dict[str, Any], text: str, count: int, *, most: int) -> None:
    """KoboldCpp's object: `count` tokens that make up `text`, each with up to `most` alternatives."""
    assert told.keys() == {
        "content", "tokens", "token_ids", "token_logprobs", "top_logprobs", "text_offset",
    }  # fmt: skip
    assert all(len(part) == count for part in told.values())
    raw = b"".join(bytes(entry["bytes"]) for entry in told["content"])
    assert codecs.getincrementaldecoder("utf-8")("replace").decode(raw) == text, (
        "no half character at the end"
    )
    assert told["tokens"] == [entry["token"] for entry in told["content"]]
    assert told["token_ids"] == [entry["token_id"] for entry in told["content"]]
    assert told["token_logprobs"] == [entry["logprob"] for entry in told["content"]]
    assert told["text_offset"] == [sum(map(len, told["tokens"][:place])) for place in range(count)]
    for entry, row in zip(told["content"], told["top_logprobs"], strict=True):
        others = entry["top_logprobs"]
        assert 1 <= len(others) <= most
        assert row == {other["token"]: other["logprob"] for other in others}
        assert [other["logprob"] for other in others] == sorted(
            (other["logprob"] for other in others), reverse=True
        )
        assert -9.2104 <= entry["logprob"] <= 0
        for one in (entry, *others):
            assert bytes(one["bytes"]).decode(errors="replace") == one["token"]


def test_log_probabilities(server: LiveServer) -> None:
    body = {
        "prompt": "hello",
        "max_length": 12,
        "ban_eos_token": True,
        "logprobs": True,
        "top_k": 3,
        "top_p": 1,
    }
    result = result_of(server.post(GENERATE, body))
    check_logprobs(result["logprobs"], result["text"], 12, most=3)
    for entry in result["logprobs"]["content"]:
        assert math.isclose(
            sum(math.exp(other["logprob"]) for other in entry["top_logprobs"]), 1, abs_tol=1e-3
        )
        assert {"token_id": entry["token_id"], "logprob": entry["logprob"]} in [
            {name: other[name] for name in ("token_id", "logprob")} for other in entry["top_logprobs"]
        ], "the token was drawn from those left by the samplers"
    greedy = result_of(server.post(GENERATE, GREEDY | {"logprobs": True}))
    assert greedy["logprobs"]["token_logprobs"] == [0.0] * 12
    many = result_of(server.post(GENERATE, body | {"top_k": 0, "temperature": 3}))
    assert {len(entry["top_logprobs"]) for entry in many["logprobs"]["content"]} == {10}


def test_last_log_probabilities(server: LiveServer) -> None:
    assert server.post(LAST_LOGPROBS, {"genkey": "KCPP0000"}).json == {"logprobs": None}
    body = GREEDY | {"logprobs": True, "genkey": "KCPP4711"}
    streamed = server.post(STREAM, body).body.decode("ascii").split("\n\n")[:-1]
    text = "".join(json.loads(event.split("data: ", 1)[1])["token"] for event in streamed)
    told = server.post(LAST_LOGPROBS, {"genkey": "KCPP4711"}).json["logprobs"]
    check_logprobs(told, text, 12, most=10)
    assert result_of(server.post(GENERATE, GREEDY | {"logprobs": True}))["logprobs"] == told
    assert server.get(LAST_LOGPROBS).json["logprobs"] == told, "the caller's last without a key"
    server.post(GENERATE, GREEDY)
    assert server.get(LAST_LOGPROBS).json == server.post(LAST_LOGPROBS, b"{x").json == {"logprobs": None}
    assert server.post(LAST_LOGPROBS, {"genkey": "KCPP4711"}).json["logprobs"] == told


# Grammars


class Mood(Enum):
    GOOD = "good"
    BAD = 'bad "and" \\ worse'


class Place(BaseModel):
    x: int
    y: int | None


class Person(BaseModel):
    name: Annotated[str, Field(max_length=5)]
    kind: Literal["cat", "dog"]
    mood: Mood
    here: Place
    seen: Annotated[list[bool], Field(min_length=1, max_length=3)]


@pytest.mark.parametrize("model", [Place, Person])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_schema_as_a_grammar(server: LiveServer, model: type[BaseModel], wrapped: bool, seed: int) -> None:
    schema = model.model_json_schema()
    made = server.post("/api/extra/json_to_grammar", {"schema": schema} if wrapped else schema).json
    assert made["success"] is True
    body = {"prompt": "hello", "grammar": made["result"], "max_length": 900, "sampler_seed": seed, "top_k": 0}
    result = result_of(server.post(GENERATE, body))
    assert result["finish_reason"] == "stop"
    model.model_validate_json(result["text"])
    direct = result_of(server.post(GENERATE, body | {"grammar": json.dumps(schema)}))
    model.model_validate_json(direct["text"])


@pytest.mark.parametrize("schema", [5, [], {"type": "unheard-of"}, {"$ref": "#/nowhere"}])
def test_what_is_no_schema(server: LiveServer, schema: Any) -> None:
    said = server.post("/api/extra/json_to_grammar", {"schema": schema})
    assert (said.status, said.json) == (200, {"result": "", "success": False})


@pytest.mark.parametrize("path", [GENERATE, STREAM])
@pytest.mark.parametrize("grammar", ["root ::= ((((", 'answer ::= "yes"', "{", '{"type": "unheard-of"}'])
def test_a_bad_grammar_is_the_clients_fault(server: LiveServer, path: str, grammar: str) -> None:
    answer = server.post(path, GREEDY | {"grammar": grammar})
    assert answer.status == 400
    assert answer.json["detail"]["type"] == "bad_input"
    assert "\n" not in answer.json["detail"]["msg"]
