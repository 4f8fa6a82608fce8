"""Many clients at one server: who waits, who is refused, who is let in, and that none feels the others."""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from engine.worker import EngineWorker
from server.settings import Settings
from tests.server.clients.running import LONG, queued, running
from tests.server.live import Answer, LiveServer, read_answer, serving, wait_for

GENERATE = "/api/v1/generate"
STREAM = "/api/extra/generate/stream"
CHECK = "/api/extra/generate/check"
ABORT = "/api/extra/abort"
DONE = {"success": "true", "done": "true"}
BUSY = {"msg": "Server is busy; please try again later.", "type": "service_unavailable"}
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def single_worker(tiny_settings: Settings) -> Iterator[EngineWorker]:
    """An engine that computes one generation at a time: the others really wait."""
    settings = tiny_settings.model_copy(update={"parallelrequests": 1, "contextsize": 8192})
    worker = EngineWorker.start(settings.engine_config())
    yield worker
    worker.close()


def single(tiny_settings: Settings, multiuser: int) -> Settings:
    return tiny_settings.model_copy(update={"parallelrequests": 1, "multiuser": multiuser})


def text_of(answer: Answer) -> str:
    return str(answer.json["results"][0]["text"])


# Limits


@pytest.mark.parametrize(
    ("parallel", "multiuser", "capacity"),
    [(1, 0, 1), (1, 1, 11), (1, 2, 2), (4, 0, 4), (4, 5, 8), (16, 1, 26)],
)
def test_capacity(parallel: int, multiuser: int, capacity: int) -> None:
    """Running and waiting ones together: 0 lets none wait, 1 ten, N otherwise N - 1."""
    assert Settings(parallelrequests=parallel, multiuser=multiuser).capacity == capacity


def test_who_waits_and_who_is_refused(single_worker: EngineWorker, tiny_settings: Settings) -> None:
    with serving(single_worker, single(tiny_settings, 3)) as server, ExitStack() as stack:
        first = stack.enter_context(running(server, GENERATE, LONG | {"genkey": "A"}))
        waiting = [
            stack.enter_context(queued(server, GENERATE, {"prompt": "hello", "max_length": 2, "genkey": key}))
            for key in "BC"
        ]
        assert server.get("/api/extra/perf").json["queue"] == 2
        for path, body in (
            (GENERATE, {"prompt": "hello"}),
            (STREAM, {"prompt": "hello"}),
            ("/request", {"text": "hello"}),
            ("/v1/completions", {"prompt": "hello"}),
            ("/v1/completions", {"prompt": "hello", "stream": True}),
            ("/v1/chat/completions", CHAT),
            ("/v1/chat/completions", CHAT | {"stream": True}),
            ("/v1/responses", {"input": "hello", "model": ""}),
            ("/v1/messages", CHAT | {"model": ""}),
            ("/api/generate", {"prompt": "hello", "model": ""}),
            ("/api/chat", CHAT | {"model": ""}),
        ):
            answer = server.post(path, body)
            assert (answer.status, answer.json["detail"]) == (503, BUSY), path
            assert answer.header("access-control-allow-origin") == "*"
            assert answer.header("retry-after") is None
        assert server.post(ABORT, {"genkey": "A"}).json == DONE
        assert text_of(read_answer(first))
        assert [read_answer(one).status for one in waiting] == [200, 200]
        server.wait_until_idle()
        assert server.post(GENERATE, {"prompt": "hello", "max_length": 2}).status == 200


def test_several_choices_need_several_places(single_worker: EngineWorker, tiny_settings: Settings) -> None:
    with serving(single_worker, single(tiny_settings, 3)) as server:
        with running(server, GENERATE, LONG):
            assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "n": 3}).status == 503
        server.wait_until_idle()
        reply = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "n": 3})
        assert len(reply.json["choices"]) == 3
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "n": 4}).status == 400


def test_a_queued_stream_is_silent_until_its_turn(
    single_worker: EngineWorker, tiny_settings: Settings
) -> None:
    body = {"prompt": "hello", "max_length": 3, "ban_eos_token": True}
    with serving(single_worker, single(tiny_settings, 1)) as server, running(server, GENERATE, LONG) as first:
        with queued(server, STREAM, body) as second:
            assert server.post(CHECK, {}).json == {"results": [{"text": ""}]}, "the newest keyless one"
            first.close()
            answer = read_answer(second)
        assert (answer.status, answer.header("content-type")) == (200, "text/event-stream")
        assert b'"finish_reason": "length"' in answer.body


def test_waiting_ones_come_in_their_order(single_worker: EngineWorker, tiny_settings: Settings) -> None:
    with serving(single_worker, single(tiny_settings, 1)) as server, ExitStack() as stack:
        stack.enter_context(running(server, GENERATE, LONG | {"genkey": "0"}))
        for key in "123":
            stack.enter_context(queued(server, GENERATE, LONG | {"genkey": key}))
        for key in "0123":
            wait_for(lambda key=key: text_of(server.post(CHECK, {"genkey": key})))
            assert not any(text_of(server.post(CHECK, {"genkey": later})) for later in "123" if later > key)
            assert server.post(ABORT, {"genkey": key}).json == DONE


# Who is meant by check and abort


def test_several_run_and_one_is_meant(server: LiveServer) -> None:
    with ExitStack() as stack:
        connections = {
            key: stack.enter_context(running(server, GENERATE, LONG | {"genkey": key}))
            for key in ("A", "B", "")
        }
        for key in connections:
            wait_for(lambda key=key: text_of(server.post(CHECK, {"genkey": key})))
        begun = {key: text_of(server.post(CHECK, {"genkey": key})) for key in connections}
        assert len(set(begun.values())) == 3, "three texts with three seeds"
        assert server.post(ABORT, {"genkey": "C"}).json["success"] == "false"
        assert server.service.status().open == 3
        assert server.post(ABORT, {"genkey": "B"}).json == DONE
        assert text_of(read_answer(connections["B"])).startswith(begun["B"])
        assert server.service.status().open == 2
        assert server.post(ABORT, b"").json == DONE
        assert text_of(read_answer(connections[""])).startswith(begun[""])
        assert text_of(server.post(CHECK, {"genkey": "A"})).startswith(begun["A"])
        assert server.post(ABORT, {"genkey": "A"}).json == DONE
        assert read_answer(connections["A"]).json["results"][0]["finish_reason"] == "length"
    assert text_of(server.post(CHECK, {"genkey": "B"})).startswith(begun["B"]), "remembered behind its end"


def test_one_key_for_several(server: LiveServer) -> None:
    with ExitStack() as stack:
        body = LONG | {"genkey": "same"}
        connections = [stack.enter_context(running(server, GENERATE, body)) for _ in range(3)]
        assert server.post(ABORT, {"genkey": "same"}).json == DONE
        assert all(text_of(read_answer(connection)) for connection in connections)


def test_a_waiting_one_is_aborted_at_once(single_worker: EngineWorker, tiny_settings: Settings) -> None:
    with (
        serving(single_worker, single(tiny_settings, 1)) as server,
        running(server, GENERATE, LONG | {"genkey": "A"}) as first,
        queued(server, GENERATE, LONG | {"genkey": "B"}) as second,
    ):
        assert server.post(ABORT, {"genkey": "B"}).json == DONE
        result = read_answer(second).json["results"][0]
        assert (result["text"], result["finish_reason"], result["completion_tokens"]) == ("", "length", 0)
        assert server.service.status().open == 1, "the other one still runs"
        assert text_of(server.post(CHECK, {"genkey": "A"}))
        first.close()
        server.wait_until_idle()


@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_who_leaves_frees_the_place(single_worker: EngineWorker, tiny_settings: Settings, path: str) -> None:
    """Running or waiting: the next one in line takes over, and a new one may wait."""
    short = {"prompt": "hello", "max_length": 2}
    aborted = single_worker.snapshot().requests_aborted
    with serving(single_worker, single(tiny_settings, 2)) as server:
        with running(server, path, LONG) as first:
            with queued(server, path, LONG):
                assert server.post(GENERATE, short).status == 503
            wait_for(lambda: server.service.status().open == 1)
            with queued(server, GENERATE, short) as third:
                first.close()
                assert read_answer(third).status == 200
        server.wait_until_idle()
    assert single_worker.snapshot().requests_aborted == aborted + 2


@pytest.mark.parametrize("seed", [1, 2])
def test_a_crowd_leaves_nothing_behind(tiny_worker: EngineWorker, tiny_settings: Settings, seed: int) -> None:
    """Clients that finish, hang up at any moment, or abort, more of them than places."""
    settings = tiny_settings.model_copy(update={"parallelrequests": 4, "multiuser": 3})

    def visit(server: LiveServer, number: int) -> int | None:
        rng = random.Random(1000 * seed + number)
        path = rng.choice((GENERATE, STREAM, "/v1/completions", "/v1/chat/completions"))
        key = f"K{number % 5}"
        body = (
            LONG
            | CHAT
            | {"genkey": key, "max_tokens": None, "stream": rng.random() < 0.5, "n": rng.choice((1, 2))}
        )
        body["max_length"] = rng.choice((0, 1, 20, 8000))
        with server.send("POST", path, json.dumps(body).encode()) as connection:
            time.sleep(rng.choice((0, 0, 0.002, 0.02, 0.1)))
            if rng.random() < 0.4:
                return None
            if body["max_length"] == 8000:
                server.post(ABORT, {"genkey": key})
            return read_answer(connection).status

    with serving(tiny_worker, settings) as server:
        with ThreadPoolExecutor(12) as pool:
            statuses = [pool.submit(visit, server, number) for number in range(60)]
            wait_for(lambda: all(status.done() for status in statuses))
        assert {200} <= {status.result() for status in statuses} <= {200, 503, None}
        server.wait_until_idle()
        assert tiny_worker.snapshot().waiting == 0
        assert (
            len(server.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "n": 6}).json["choices"]) == 6
        )


# Nobody notices the others

_JSON = '{"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "yy"]}},'
WISHES: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"top_k": 5, "top_p": 0.8},
    {"min_p": 0.1, "temperature": 2},
    {"rep_pen": 1.3, "rep_pen_range": 64, "rep_pen_slope": 0.5},
    {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    {"mirostat": 2, "mirostat_tau": 3},
    {"mirostat": 1},
    {"dry_multiplier": 1, "dry_allowed_length": 1, "dry_sequence_breakers": ["\n"]},
    {"xtc_probability": 0.7, "xtc_threshold": 0.05, "smoothing_factor": 0.5},
    {"dynatemp_range": 0.6, "tfs": 0.9, "typical": 0.9, "top_a": 0.2, "sampler_order": [5, 0, 2, 3]},
    {"adaptive_target": 0.3, "nsigma": 2},
    {"grammar": 'root ::= [a-f ]+ "."'},
    {"grammar": _JSON + '"required": ["a", "b"], "additionalProperties": false}', "max_length": 300},
    {"banned_tokens": [" the", "wor", "hel"], "logit_bias": {"7": 4}},
    {"stop_sequence": ["e", "ing"], "logprobs": True, "banned_tokens": ["er"], "top_k": 0},
]


def test_each_gets_what_it_gets_alone(tiny_settings: Settings) -> None:
    """Sixteen requests with sixteen sets of wishes, one after the other and then all at once."""
    settings = tiny_settings.model_copy(update={"parallelrequests": 16})
    worker = EngineWorker.start(settings.engine_config())
    bodies = [
        {
            "prompt": f"hello world {place}",
            "max_length": 30,
            "sampler_seed": 100 + place,
            "ban_eos_token": True,
        }
        | wishes
        for place, wishes in enumerate(WISHES)
    ]
    try:
        with serving(worker, settings) as server:

            def ask(body: dict[str, Any]) -> Any:
                answer = server.post(GENERATE, body)
                assert answer.status == 200
                return answer.json["results"][0]

            def stream(body: dict[str, Any]) -> str:
                events = server.post(STREAM, body).body.decode("ascii").split("\n\n")[:-1]
                return "".join(json.loads(event.partition("data: ")[2])["token"] for event in events)

            alone = [ask(body) for body in bodies]
            with ThreadPoolExecutor(len(bodies)) as pool:
                together = list(pool.map(ask, bodies))
                streamed = list(pool.map(stream, bodies))
            assert together == alone
            assert streamed == [result["text"] for result in alone]
            assert len({result["text"] for result in alone}) == len(alone)
            assert alone[12]["text"].strip("abcdef .") == ""
            assert json.loads(alone[13]["text"]).keys() == {"a", "b"}
            assert not any(phrase in alone[14]["text"].lower() for phrase in (" the", "wor", "hel"))
    finally:
        worker.close()
