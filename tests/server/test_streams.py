"""Streams byte for byte, and what happens when clients leave, look or stop."""

import json
import string
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.worker import EngineWorker
from server.settings import Settings
from tests.server.clients.running import LONG, running
from tests.server.live import Answer, LiveServer, read_answer, serving, wait_for

GENERATE = "/api/v1/generate"
STREAM = "/api/extra/generate/stream"
CHECK = "/api/extra/generate/check"
ABORT = "/api/extra/abort"
CHAT_LONG = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2000, "ban_eos_token": True}
DONE = {"success": "true", "done": "true"}


def test_kobold_framing_is_exact(server: LiveServer) -> None:
    body = {"prompt": "hello", "max_length": 5, "ban_eos_token": True}
    answer = server.post(STREAM, body)
    assert answer.header("content-type") == "text/event-stream"
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("cache-control") == "no-store"
    assert answer.body.isascii()
    assert b"\r" not in answer.body
    assert b"[DONE]" not in answer.body
    rebuilt = b""
    pieces = [json.loads(event.split("data: ")[1]) for event in answer.body.decode().split("\n\n")[:-1]]
    for piece in pieces:
        token, finish = json.dumps(piece["token"]), json.dumps(piece["finish_reason"])
        data = f'{{"token": {token}, "finish_reason": {finish}}}'
        rebuilt += f"event: message\ndata: {data}\n\n".encode()
    assert rebuilt == answer.body
    assert [piece["finish_reason"] for piece in pieces][-1] == "length"


def test_openai_framing_is_exact(server: LiveServer) -> None:
    answer = server.post("/v1/completions", {"prompt": "hello", "max_tokens": 3, "stream": True})
    events = answer.body.decode("ascii").split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") and "\n" not in event for event in events[:-2])


@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_a_greedy_stream_says_what_a_reply_says(server: LiveServer, path: str) -> None:
    body = {"prompt": "hello world", "max_length": 30, "temperature": 0, "ban_eos_token": True}
    whole = server.post(GENERATE, body).json["results"][0]["text"]
    streamed = server.post(STREAM, body).body.decode().split("\n\n")[:-1]
    assert "".join(json.loads(event.split("data: ")[1])["token"] for event in streamed) == whole
    assert whole


@pytest.mark.parametrize("stop", [[], [f"{letter}!" for letter in string.ascii_lowercase]])
def test_streamed_offsets_go_on_over_the_chunks(server: LiveServer, stop: list[str]) -> None:
    """As the whole reply has them, also where the end of each text is held back for a stop string."""
    prompts, length = ["hello ", "the world"], 60
    body = {
        "prompt": prompts, "n": 2, "echo": True, "logprobs": 1, "max_tokens": length, "temperature": 0,
        "ban_eos_token": True, "stop": stop, "grammar": "root ::= [a-z ]+",
    }  # fmt: skip
    whole = [choice["logprobs"] for choice in server.post("/v1/completions", body).json["choices"]]
    events = server.post("/v1/completions", body | {"stream": True}).body.decode("ascii").split("\n\n")[:-2]
    choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    for index, expected in enumerate(whole):
        parts = [choice["logprobs"] for choice in choices if choice["index"] == index and choice["logprobs"]]
        assert len(parts) > 1
        for name in ("tokens", "text_offset"):
            assert [entry for part in parts for entry in part[name]] == expected[name]
        sizes = [len(token) for token in expected["tokens"]]
        assert "".join(expected["tokens"]).startswith(prompts[index // 2])
        assert len(sizes) > length
        assert expected["text_offset"] == [sum(sizes[:place]) for place in range(len(sizes))]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GENERATE, LONG),
        (STREAM, LONG),
        ("/v1/chat/completions", CHAT_LONG),
        ("/v1/chat/completions", CHAT_LONG | {"stream": True}),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2, "max_tokens": 2000, "ban_eos_token": True}),
    ],
)
def test_a_client_that_leaves_gives_everything_back(
    server: LiveServer, path: str, body: dict[str, Any]
) -> None:
    aborted = server.worker.snapshot().requests_aborted
    with running(server, path, body):
        pass
    server.wait_until_idle()
    assert server.worker.snapshot().requests_aborted > aborted


def test_abort_without_a_body_ends_the_keyless_request(server: LiveServer) -> None:
    with running(server, GENERATE, LONG) as connection:
        assert server.post(ABORT).json == DONE
        result = read_answer(connection).json["results"][0]
    assert result["finish_reason"] == "length"
    assert result["text"]
    assert server.post(ABORT).json == {"success": "false", "done": "false"}


def test_abort_by_key(server: LiveServer) -> None:
    with running(server, STREAM, LONG | {"genkey": "KCPP1"}) as connection:
        assert server.post(ABORT, {"genkey": "KCPP2"}).json["success"] == "false"
        assert server.post(ABORT).json["success"] == "false", "it has a key"
        assert server.post(ABORT, {"genkey": "KCPP1"}).json == DONE
        last = read_answer(connection).body.decode().split("\n\n")[-2]
    assert json.loads(last.split("data: ")[1])["finish_reason"] == "length"


def test_keyless_abort_concerns_the_callers_address(server: LiveServer, tiny_settings: Settings) -> None:
    settings = tiny_settings.model_copy(update={"trusted_proxies": ("127.0.0.1",)})
    with serving(server.worker, settings) as proxied, running(proxied, GENERATE, LONG) as connection:
        other = proxied.ask("POST", ABORT, headers={"X-Forwarded-For": "192.0.2.7"})
        assert other.json["success"] == "false"
        assert proxied.post(ABORT).json == DONE
        read_answer(connection)


def test_check_while_it_runs_and_after(server: LiveServer) -> None:
    with running(server, GENERATE, LONG | {"genkey": "KCPP7"}) as connection:
        wait_for(lambda: text_of(server.post(CHECK, {"genkey": "KCPP7"})))
        assert text_of(server.post(CHECK, {"genkey": "other"})) == ""
        first = text_of(server.post(CHECK, {"genkey": "KCPP7"}))
        server.post(ABORT, {"genkey": "KCPP7"})
        whole = read_answer(connection).json["results"][0]["text"]
    assert whole.startswith(first)
    assert text_of(server.post(CHECK, {"genkey": "KCPP7"})) == whole


def test_keyless_check(server: LiveServer) -> None:
    text = server.post(GENERATE, {"prompt": "hello", "max_length": 4}).json["results"][0]["text"]
    assert text_of(server.get(CHECK)) == text_of(server.post(CHECK, b"{x")) == text


def text_of(answer: Answer) -> Any:
    return answer.json["results"][0]["text"]


def test_eight_at_once(server: LiveServer) -> None:
    bodies = [{"prompt": f"hello {n}", "max_length": 12, "temperature": 0} for n in range(8)]
    alone = [text_of(server.post(GENERATE, body)) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda body: text_of(server.post(GENERATE, body)), bodies))
    assert together == alone


def test_info_is_answered_while_it_runs(server: LiveServer) -> None:
    with running(server, GENERATE, LONG):
        assert server.get("/api/extra/perf").json["idle"] == 0
        assert server.post("/api/extra/tokencount", {"prompt": "hello"}).json["value"] > 0
        assert server.worker.snapshot().running == 1, "they have not waited for its end"


def test_busy(server: LiveServer, tiny_settings: Settings) -> None:
    settings = tiny_settings.model_copy(update={"parallelrequests": 1, "multiuser": 0})
    with serving(server.worker, settings) as narrow, running(narrow, GENERATE, LONG):
        for path, body in ((GENERATE, LONG), (STREAM, LONG), ("/v1/chat/completions", CHAT_LONG)):
            answer = narrow.post(path, body)
            assert answer.status == 503
            assert answer.json["detail"] == {
                "msg": "Server is busy; please try again later.",
                "type": "service_unavailable",
            }
        assert narrow.post(ABORT).json == DONE
        wait_for(lambda: narrow.service.status().open == 0)
        assert narrow.post(GENERATE, {"prompt": "a", "max_length": 1}).status == 200
        too_many = narrow.post("/v1/completions", {"prompt": "a", "n": 2})
        assert too_many.status == 400, "no waiting would help"


def test_perf_tells_of_the_last_generation(server: LiveServer) -> None:
    server.post(
        GENERATE, {"prompt": "hello world", "max_length": 6, "sampler_seed": 9, "ban_eos_token": True}
    )
    perf = server.get("/api/extra/perf").json
    assert perf["last_token_count"] == 6
    assert perf["last_seed"] == 9
    assert perf["stop_reason"] == 0
    assert perf["idle"] == 1
    assert perf["last_input_count"] > 0


def test_token_count(server: LiveServer) -> None:
    counted = server.post("/api/extra/tokencount", {"prompt": "hello world", "special": False}).json
    assert counted["ids"] == server.worker.encode("hello world", add_bos=False)
    assert counted["value"] == len(counted["ids"])
    assert counted.keys() == {"value", "ids", "prompt"}, "`length` and `count` mean more to SillyTavern"


def test_prompts_longer_than_the_context_are_cut(server: LiveServer) -> None:
    for memory in ("", "hello " * 3000):
        body = {"prompt": "hello world " * 3000, "memory": memory, "max_length": 2}
        assert server.post(GENERATE, body).status == 200
    assert server.post(GENERATE, LONG | {"max_context_length": 1, "max_length": 2}).status == 200


def test_bad_token_ids_are_the_clients_fault(server: LiveServer) -> None:
    answer = server.post("/v1/completions", {"prompt": [10**9], "max_tokens": 1})
    assert answer.status == 400
    assert "token ids" in answer.json["error"]["message"]


def test_template_arguments_cannot_replace_the_engines(server: LiveServer) -> None:
    body = CHAT_LONG | {"max_tokens": 1, "chat_template_kwargs": {"tools": 1, "self": 2, "x": 3}}
    assert server.post("/v1/chat/completions", body).status == 200


def test_what_sillytavern_sends(server: LiveServer) -> None:
    body = {
        "prompt": "hello", "max_new_tokens": 4, "max_tokens": 4, "temperature": 0.5, "typical_p": 1,
        "sampler_seed": -1, "repetition_penalty": 1.1, "top_k": 0, "add_bos_token": True, "dry_multiplier": 0,
        "dry_sequence_breakers": '["\\n",":","\\"","*"]', "stopping_strings": ["\nUser:"],
        "stop": ["\nUser:"], "typical": 1,
        "truncation_length": 8192, "mirostat_mode": 0, "custom_token_bans": "", "banned_strings": [],
        "api_type": "koboldcpp", "sampler_order": [6, 0, 1, 3, 4, 2, 5], "xtc_threshold": 0.1,
        "xtc_probability": 0, "grammar": "", "rep_pen": 1.1, "rep_pen_range": 0, "seed": -1,
        "guidance_scale": 1, "negative_prompt": "", "num_ctx": 8192, "rep_pen_slope": 1, "stream": True,
    }  # fmt: skip
    answer = server.post("/v1/completions", body)
    assert answer.status == 200
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_fields_without_effect_are_logged_once(
    server: LiveServer, tiny_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "server.unsupported")
    with serving(server.worker, tiny_settings) as fresh:
        for _ in range(2):
            fresh.post(GENERATE, {"prompt": "a", "max_length": 1, "guidance_scale": 2})
    assert caplog.text.count("guidance_scale") == 1


def test_a_dead_engine_answers_present_and_later_requests(tiny_settings: Settings) -> None:
    worker = EngineWorker.start(tiny_settings.engine_config())
    with serving(worker, tiny_settings) as server:
        plain, stream, openai = (
            server.send("POST", path, json.dumps(body).encode())
            for path, body in (
                (GENERATE, LONG),
                (STREAM, LONG),
                (
                    "/v1/completions",
                    {"prompt": "a", "max_tokens": 2000, "ban_eos_token": True, "stream": True},
                ),
            )
        )
        wait_for(lambda: worker.snapshot().running == 3)
        worker.close()
        with plain, stream, openai:
            answer = read_answer(plain)
            assert answer.status == 500
            assert answer.json["detail"]["type"] == "server_error"
            assert b'"finish_reason": "error"' in read_answer(stream).body
            assert b'data: {"error": {"message": ' in read_answer(openai).body
        assert server.post(GENERATE, LONG).status == 500
        assert server.post(STREAM, LONG).status == 500
        assert server.get("/api/v1/model").status == 200
