"""SillyTavern against a live server, in its three modes: what it sends, and what it makes of the answers."""

import json
import socket
from typing import Any

import pytest

from engine.types import FinishReason, JsonGrammar, SamplingParams
from server import stops
from server.settings import Settings
from tests.server.clients.running import running
from tests.server.clients.sillytavern import (
    CHAT,
    CHATS,
    CLASSIC,
    COMPLETIONS,
    TEXT,
    ApiError,
    SillyTavern,
    read_classic,
    read_text,
    without,
)
from tests.server.dialects.scripted import ScriptedWorker
from tests.server.live import PATIENCE, LiveServer, read_answer, serving, wait_for

COUNT = "/api/extra/tokencount"
STREAM = "/api/extra/generate/stream"
LONG_TEXT = TEXT | {"max_tokens": 2000, "ban_eos_token": True}
DONE = {"success": "true", "done": "true"}


# Text Completion


def test_connect(tavern: SillyTavern) -> None:
    answer = tavern.get("/v1/models")
    assert answer.status == 200
    assert answer.json["data"][0]["id"] == "koboldcpp/tiny"


def test_derived_templates_and_context(tavern: SillyTavern) -> None:
    said = tavern.get("/props").json
    assert isinstance(said["chat_template"], str), "it makes a hash of it"
    assert said["default_generation_settings"]["n_ctx"] == 2048


@pytest.mark.parametrize("text", ["", "hello world", "ü🙂\n" * 200, "Bramble: *waves*\u2028"])
def test_token_counts(tavern: SillyTavern, text: str) -> None:
    said = tavern.post(COUNT, {"prompt": text}).json
    assert said["ids"] == tavern.server.worker.encode(text)
    assert said["value"] == len(said["ids"])
    assert not {"length", "count"} & said.keys(), "they would be taken instead of `value`"


def test_token_counts_do_not_wait_for_a_generation(slow_server: LiveServer) -> None:
    tavern = SillyTavern(slow_server)
    with running(slow_server, COMPLETIONS, LONG_TEXT):
        for part in range(10):
            assert tavern.post(COUNT, {"prompt": f"part {part} " * 40}).status == 200
        whole = tavern.post(COUNT, {"prompt": "hello world " * 5000}).json
        assert whole["value"] > 8192, "what is longer than the context is counted, too"
        assert slow_server.worker.snapshot().running == 1


def test_a_generation(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say(" Good evening! \u2028*waves*", FinishReason.STOP)
    told = read_text(SillyTavern(server).post(COMPLETIONS, TEXT))
    assert (told.text, told.swipes, told.done) == (" Good evening! \u2028*waves*", {}, True)
    request = worker.asked[-1]
    assert worker.prompt == TEXT["prompt"]
    assert (request.max_tokens, request.stop) == (24, ("\nUser:", "\n***"))
    assert (request.ban_eos, request.ignore_eos, request.grammar, request.banned_phrases) == (
        False,
        False,
        None,
        (),
    )
    assert request.logprobs is None
    assert request.sampling == SamplingParams(
        temperature=0.5,
        top_p=0.9,
        rep_pen=1.1,
        rep_pen_range=1,
        dry_penalty_last_n=0,
        dry_sequence_breakers=("\n", ":", '"', "*"),
        xtc_threshold=0.1,
    )
    answer = SillyTavern(server).post(COMPLETIONS, without(TEXT, "stream"))
    assert answer.json["choices"][0]["text"] == told.text


NEWER = without(TEXT, "grammar", "seed", "tfs_z") | {
    "dry_sequence_breakers": ["\n", ":", '"', "*"], "trim_stop": True, "nsigma": 0, "top_n_sigma": 0,
    "adaptive_target": -0.01, "adaptive_decay": 0.9, "include_reasoning": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 42, "sampler_seed": 42}, {"seed": 42}),
        ({"mirostat_mode": 2, "mirostat": 2}, {"mirostat": 2, "mirostat_tau": 5.0, "mirostat_eta": 0.1}),
        (
            {"dynamic_temperature": True, "dynatemp_low": 0.5, "dynatemp_high": 1.5, "dynatemp_range": 0.5,
             "dynatemp_exponent": 1.5, "temperature": 1.0},
            {"temperature": 1.0, "dynatemp_range": 0.5, "dynatemp_exponent": 1.5},
        ),
        ({"logit_bias": {"5": -100, "7": 3}}, {"logit_bias": ((5, -100.0), (7, 3.0))}),
        ({"custom_token_bans": "5, 7"}, {"logit_bias": ((5, -100.0), (7, -100.0))}),
        (
            {"dry_multiplier": 0.8, "dry_penalty_last_n": 1024, "xtc_probability": 0.5},
            {"dry_multiplier": 0.8, "dry_penalty_last_n": 1024, "xtc_probability": 0.5},
        ),
        (
            {"frequency_penalty": 0.2, "presence_penalty": 0.3},
            {"frequency_penalty": 0.2, "presence_penalty": 0.3},
        ),
        ({"nsigma": 1.5, "adaptive_target": 0.4}, {"nsigma": 1.5, "adaptive_target": 0.4}),
    ],
)  # fmt: skip
def test_samplers_of_newer_versions(
    scripted: tuple[LiveServer, ScriptedWorker], changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    server, worker = scripted
    worker.say("Hm.")
    assert read_text(SillyTavern(server).post(COMPLETIONS, NEWER | changes)).text == "Hm."
    sampling = worker.asked[-1].sampling
    assert {name: getattr(sampling, name) for name in expected} == expected
    assert sampling.dry_sequence_breakers == ("\n", ":", '"', "*")


def test_other_wishes_of_newer_versions(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    schema = {"type": "object", "properties": {"mood": {"type": "string"}}}
    changes = {
        "json_schema": schema, "banned_strings": ["ministrations"], "ban_eos_token": True, "n_probs": 10,
        "logprobs": 10,
    }  # fmt: skip
    read_text(SillyTavern(server).post(COMPLETIONS, NEWER | changes))
    request = worker.asked[-1]
    assert isinstance(request.grammar, JsonGrammar)
    assert json.loads(request.grammar.schema) == schema
    assert (request.banned_phrases, request.ban_eos, request.logprobs) == (("ministrations",), True, 10)


def test_it_runs_on_a_real_engine(tavern: SillyTavern) -> None:
    """All samplers at once, a context larger than the server's, and a prompt that does not fit."""
    everything = {
        "dry_multiplier": 0.8, "xtc_probability": 0.5, "min_p": 0.02, "top_a": 0.1, "tfs": 0.95,
        "typical": 0.95, "smoothing_factor": 0.2, "dynatemp_range": 0.5, "nsigma": 2, "top_k": 40,
        "ban_eos_token": True,
        "logprobs": 10, "presence_penalty": 0.1, "banned_strings": ["hello"], "logit_bias": {"3": -5},
        "prompt": TEXT["prompt"] * 200,
    }  # fmt: skip
    told = read_text(tavern.post(COMPLETIONS, NEWER | everything))
    assert told.text
    assert told.done
    assert "hello" not in told.text.lower()


def test_swipes(tavern: SillyTavern) -> None:
    told = read_text(tavern.post(COMPLETIONS, LONG_TEXT | {"max_tokens": 8, "n": 3}))
    assert told.text
    assert told.swipes.keys() == {1, 2}
    assert all(told.swipes.values())


@pytest.mark.parametrize(
    ("changes", "shown"),
    [({"temperature": "hot"}, "temperature: must be a number"), ({"grammar": "root ::= (("}, "grammar")],
)
@pytest.mark.parametrize("stream", [True, False])
def test_errors_are_shown(tavern: SillyTavern, changes: dict[str, Any], shown: str, stream: bool) -> None:
    body = (TEXT if stream else without(TEXT, "stream")) | changes
    with pytest.raises(ApiError, match=shown):
        read_text(tavern.post(COMPLETIONS, body))


def test_a_busy_server_is_503(tavern: SillyTavern, tiny_settings: Settings) -> None:
    """It tries again after 429, with growing pauses, up to five times."""
    settings = tiny_settings.model_copy(update={"parallelrequests": 1, "multiuser": 0})
    with serving(tavern.server.worker, settings) as narrow, running(narrow, COMPLETIONS, LONG_TEXT):
        busy = SillyTavern(narrow)
        for path, body in ((COMPLETIONS, TEXT), (CHATS, CHAT)):
            assert busy.post(path, body).status == 503
            with pytest.raises(ApiError, match=r"Server is busy; please try again later\."):
                read_text(busy.post(path, body))
        assert busy.post("/api/v1/generate", CLASSIC).json["detail"]["msg"].startswith("Server is busy")


@pytest.mark.parametrize("path", [COMPLETIONS, STREAM])
def test_stop(tavern: SillyTavern, path: str) -> None:
    body = (
        LONG_TEXT if path == COMPLETIONS else CLASSIC | {"max_length": 2000, "use_default_badwordsids": True}
    )
    with running(tavern.server, path, body) as connection:
        assert tavern.stop().json == DONE, "without a body, a type or a genkey"
        answer = read_answer(connection)
    assert read_text(answer).text if path == COMPLETIONS else read_classic(answer)


@pytest.mark.parametrize("first", ["abort", "hang-up"])
def test_stop_in_one_tab_leaves_the_other(
    tavern: SillyTavern, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server hangs up and posts the abort, in either order, and has one address for all its users."""
    monkeypatch.setattr(stops, "AFTER_SECONDS", PATIENCE)
    monkeypatch.setattr(stops, "BEFORE_SECONDS", PATIENCE)
    other = LONG_TEXT | {"max_tokens": 200, "stream": False}
    with (
        running(tavern.server, COMPLETIONS, LONG_TEXT) as mine,
        running(tavern.server, COMPLETIONS, other) as tab,
    ):
        if first == "abort":
            assert tavern.stop().json == DONE
        mine.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: tavern.server.service.status().open == 1)
        if first == "hang-up":
            assert tavern.stop().json == DONE
        assert read_answer(tab).json["usage"]["completion_tokens"] == 200


def test_stop_with_a_password(locked_server: LiveServer, key: str) -> None:
    """The abort comes without the key; the hang-up that follows does it."""
    tavern = SillyTavern(locked_server, key)
    aborted = locked_server.worker.snapshot().requests_aborted
    connection = locked_server.send("POST", COMPLETIONS, json.dumps(LONG_TEXT).encode(), tavern.headers)
    with connection:
        assert connection.recv(1).startswith(b"H")
        assert tavern.stop().status == 401
        assert locked_server.service.status().open == 1
    locked_server.wait_until_idle()
    assert locked_server.worker.snapshot().requests_aborted == aborted + 1


def test_a_password(locked_server: LiveServer, key: str) -> None:
    with pytest.raises(ApiError, match="key is missing or invalid"):
        read_text(SillyTavern(locked_server).post(COMPLETIONS, TEXT))
    assert SillyTavern(locked_server).post(COUNT, {"prompt": "x"}).status == 401
    assert read_text(SillyTavern(locked_server, key).post(COMPLETIONS, TEXT)).done
    assert SillyTavern(locked_server, key).post(COUNT, {"prompt": "x"}).status == 200


# KoboldAI Classic


def test_connect_to_classic(tavern: SillyTavern) -> None:
    assert tavern.get("/api/v1/info/version").json["result"] >= "1.2.4"
    assert tavern.get("/api/extra/version").json["result"] > "9", "a word is newer than every number"
    assert tavern.get("/api/v1/model").json["result"] == "koboldcpp/tiny"


def test_classic(tavern: SillyTavern) -> None:
    body = CLASSIC | {"sampler_seed": 7}
    text = tavern.post("/api/v1/generate", body).json["results"][0]["text"]
    answer = tavern.post(STREAM, body)
    assert read_classic(answer) == text
    assert b"[DONE]" not in answer.body
    assert tavern.post("/api/v1/generate", CLASSIC).status == 200


def test_errors_of_classic(tavern: SillyTavern) -> None:
    answer = tavern.post("/api/v1/generate", CLASSIC | {"grammar": "root ::= (("})
    assert answer.status == 400
    assert isinstance(answer.json["detail"]["msg"], str)
