"""KoboldAI Lite against a live server: what the page sends, word for word, and what its user would see."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from engine.types import FinishReason
from server.settings import Settings
from tests.server.clients.lite import INSTRUCT, STORY, Lite, ShownError, compares_as, read_openai
from tests.server.clients.running import LONG, queued, running
from tests.server.dialects.scripted import ScriptedWorker
from tests.server.live import LiveServer, read_answer, serving, wait_for

STREAM = "/api/extra/generate/stream"
GENERATE = "/api/v1/generate"
CHECK = "/api/extra/generate/check"
ABORT = "/api/extra/abort"
SHORT = STORY | {"max_length": 12, "use_default_badwordsids": True}
DONE = {"success": "true", "done": "true"}

FEATURES = {
    "1.30": "genkey, abort, check",
    "1.37": "the later samplers",
    "1.40": "server-sent events",
    "1.44": "grammar",
    "1.49": "memory, trim_stop, bypass_eos",
    "1.70": "DRY",
    "1.74": "XTC",
    "1.88": "placeholders",
    "1.104": "adaptive-p and chats",
}
"""What the page switches on by the version, of that which the server has."""


@pytest.fixture
def page(server: LiveServer) -> Lite:
    return Lite(server)


# Connecting


def test_connect(page: Lite) -> None:
    known = page.connect()
    assert known.model == "koboldcpp/tiny"
    assert known.stops, "without, chats run on"
    assert (known.context, known.story) == (2048, {})
    assert all(compares_as(known.version, wanted) for wanted in FEATURES)
    assert known.flags["jinja"], "instruct mode goes through the chat endpoint"
    assert not known.flags["protected"]
    # What would make the page call endpoints that are not there.
    absent = ("txt2img", "vision", "audio", "transcribe", "multiplayer", "websearch", "tts", "mcp", "music")
    assert not any(known.flags[name] for name in (*absent, "router", "guidance", "admin", "savedata"))
    assert not compares_as(known.version, "1.105"), "the MCP bridge"


def test_versions_are_compared_number_by_number() -> None:
    assert compares_as("1.104", "1.88")
    assert compares_as("1.104", "1.104.0")
    assert not compares_as("nkat-1.104", "1.30")
    assert not compares_as("0.1.0", "1.30")


def test_connect_with_a_password(locked_server: LiveServer, key: str) -> None:
    stranger = Lite(locked_server).connect()
    assert stranger.model == "koboldcpp/protected-model", "the page connects, and then asks for the key"
    assert stranger.flags["protected"] is True
    assert Lite(locked_server, key).connect().model == "koboldcpp/tiny"


@pytest.mark.parametrize("given", [None, "wrong"])
def test_what_is_shown_without_the_password(locked_server: LiveServer, given: str | None) -> None:
    page = Lite(locked_server, given)
    with pytest.raises(ShownError, match="Authentication key is missing or invalid") as streamed:
        page.stream(SHORT)
    assert len(str(streamed.value)) < 400, "the box shows the whole body"
    with pytest.raises(ShownError, match="Authentication key is missing or invalid") as plain:
        page.generate(SHORT)
    assert not plain.value.offers_abort
    with pytest.raises(ShownError, match="Authentication key is missing or invalid"):
        page.chat(INSTRUCT)


def test_with_the_password(locked_server: LiveServer, key: str) -> None:
    page = Lite(locked_server, key)
    assert page.stream(SHORT)[0]
    assert page.chat(INSTRUCT | {"max_length": 4}).finish


def test_the_status_text(page: Lite) -> None:
    said = page.get("/api/extra/perf")
    assert all(isinstance(value, (int, float)) for value in said.values())
    assert said.keys() >= {
        "last_process", "last_eval", "last_token_count", "last_seed", "total_gens", "stop_reason",
        "total_img_gens", "queue", "idle", "hordeexitcounter", "uptime", "idletime", "quiet",
    }  # fmt: skip


# Generations


def test_a_fresh_page(page: Lite) -> None:
    """6144 tokens of context and 768 of reply, to a server of 2048: the user's settings, cut silently."""
    text, finish = page.stream(STORY | {"genkey": "KCPP9004"})
    assert text
    assert finish in ("stop", "length")


def test_the_page_of_the_server_itself(page: Lite) -> None:
    """Its settings ask for 12288 tokens of context; a reply may not fill the whole of it."""
    embedded = STORY | {"max_context_length": 12288, "max_length": 1536, "use_default_badwordsids": True}
    assert page.stream(embedded | {"prompt": "hello world\n" * 3000, "max_length": 8})[1] == "length"
    assert page.stream(embedded | {"max_length": 99999, "grammar": 'root ::= "ok"'}) == ("ok", "stop")


def test_memory_stays_when_the_prompt_is_too_long(page: Lite, server: LiveServer) -> None:
    """The oldest part of the prompt goes: what is generated is what the cut prompt gives."""
    memory = "[ Memory: The world is a to and of. ]\n"
    size = len(server.worker.encode(memory))
    story = "hello world the to of and is a ing er " * 600
    body = SHORT | {"sampler_seed": "5", "logprobs": True, "top_k": 0, "memory": memory}
    kept = server.worker.encode(story, add_bos=False)[-(2048 - 12 - size) :]
    cut = server.worker.decode(kept)
    assert server.worker.encode(cut, add_bos=False) == kept

    def result(**changes: str) -> Any:
        return page.post(GENERATE, body | changes)["results"][0]

    assert result(prompt=story) == result(prompt=cut)
    assert result(prompt=story)["logprobs"] != result(prompt=story, memory="")["logprobs"]


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler_seed": "1"},
        {"sampler_order": [6, 0, 1, 2, 3, 4, 5], "mirostat": 2, "mirostat_tau": 5, "mirostat_eta": 0.1},
        {
            "dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": 320,
            "dry_sequence_breakers": ["\n", ":", '"', "*"], "xtc_threshold": 0.2, "xtc_probability": 0.5,
        },
        {"logit_bias": {"5": -100, "7": 2.5}, "banned_tokens": ["hello", " world"], "presence_penalty": 0.1},
        {"dynatemp_range": 0.5, "smoothing_factor": 0.3, "smoothing_curve": 1.2, "nsigma": 1, "min_p": 0.05},
        {"adaptive_target": 0.5, "adaptive_decay": 0.9, "top_a": 0.1, "typical": 0.9, "tfs": 0.9},
        {"grammar": 'root ::= [a-z ]+ "."', "grammar_retain_state": False},
        {"images": [], "audio": [], "reasoning_effort": "low", "guidance_scale": 1.5, "negative_prompt": "x"},
        {"my_custom_field": {"deep": [1]}, "render_special": True, "bypass_eos": True},
    ],
)  # fmt: skip
def test_settings_of_the_page(page: Lite, changes: dict[str, Any]) -> None:
    text, finish = page.stream(SHORT | changes)
    assert finish in ("stop", "length")
    if "sampler_seed" in changes:
        assert page.stream(SHORT | changes)[0] == text
    assert not any(phrase in text.lower() for phrase in changes.get("banned_tokens", ()))


@pytest.mark.parametrize(
    ("stops", "said", "shown"),
    [
        (["User:", "\nUser ", "\nKoboldAI: "], "I am.\\nUser more", "I am."),
        (
            ["### Instruction:", "### Response:"],
            "Yes ### ###Instruction ### Response: more",
            "Yes ### ###Instruction ",
        ),
        (["\n> "], "You go.\\n> look", "You go."),
        (["{{[INPUT]}}", "{{[OUTPUT]}}"], "Fine.<|im_start|>user\\nmore", "Fine."),
    ],
)
def test_stop_sequences_of_the_modes(page: Lite, stops: list[str], said: str, shown: str) -> None:
    body = SHORT | {"stop_sequence": stops, "grammar": f'root ::= "{said}"', "max_length": 200}
    assert page.stream(body) == (shown, "stop")


@pytest.mark.parametrize(
    "text", ["a\u2028b\u2029c", "ü🙂 é 日本", " leading", "\r\n\r\nevent: x\ndata: y\n\n"]
)
def test_letters_that_break_streams(scripted: tuple[LiveServer, ScriptedWorker], text: str) -> None:
    server, worker = scripted
    worker.say(text)
    assert Lite(server).stream(SHORT) == (text, "stop")
    assert Lite(server).chat(INSTRUCT).text == text


def test_log_probabilities_after_a_stream(page: Lite) -> None:
    page.stream(SHORT | {"logprobs": True, "genkey": "KCPP1234"})
    told = page.post("/api/extra/last_logprobs", {"genkey": "KCPP1234"})["logprobs"]["content"]
    assert len(told) == 12
    for entry in told:
        assert isinstance(entry["token"], str)
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) >= 5
        assert all(
            isinstance(other["token"], str) and other["logprob"] <= 0 for other in entry["top_logprobs"]
        )
    plain = page.post(GENERATE, SHORT | {"logprobs": True})["results"][0]["logprobs"]
    assert plain["content"][0].keys() == told[0].keys()


# Without server-sent events


def test_polling(page: Lite, server: LiveServer) -> None:
    body = LONG | {"genkey": "KCPP2345"}
    texts: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(page.generate, body)
        while len(set(texts)) < 4:
            texts.append(page.post(CHECK, {"genkey": "KCPP2345"})["results"][0]["text"])
            assert not whole.done()
        assert page.post(CHECK, {"genkey": "KCPP0000"})["results"][0]["text"] == ""
        assert page.post(ABORT, {"genkey": "KCPP2345"}) == DONE
        text = whole.result()
    assert all(later.startswith(earlier) for earlier, later in zip(texts, [*texts[1:], text], strict=True))
    recovered = page.post(CHECK, {"genkey": "KCPP2345"})["results"][0]["text"]
    assert recovered == text, "recover last response"


def test_a_page_that_loses_its_connection_recovers_the_text(page: Lite, server: LiveServer) -> None:
    with running(server, STREAM, LONG | {"genkey": "KCPP7777"}):
        wait_for(lambda: page.post(CHECK, {"genkey": "KCPP7777"})["results"][0]["text"])
    server.wait_until_idle()
    assert page.post(CHECK, {"genkey": "KCPP7777"})["results"][0]["text"]


def test_a_busy_server_offers_to_abort(page: Lite, server: LiveServer, tiny_settings: Settings) -> None:
    settings = tiny_settings.model_copy(update={"parallelrequests": 1, "multiuser": 0})
    with serving(server.worker, settings) as narrow, running(narrow, STREAM, LONG | {"genkey": "KCPP1"}):
        crowded = Lite(narrow)
        with pytest.raises(ShownError, match=r"Server is busy; please try again later\.") as box:
            crowded.generate(SHORT)
        assert box.value.offers_abort
        with pytest.raises(ShownError, match=r"Server is busy; please try again later\.") as box:
            crowded.stream(SHORT)
        assert len(str(box.value)) < 400
        assert crowded.post(ABORT, {"genkey": "KCPP1"}) == DONE
        wait_for(lambda: narrow.service.status().open == 0)
        assert crowded.generate(SHORT)


def test_error_boxes(page: Lite) -> None:
    with pytest.raises(ShownError, match=r"grammar.*bad_input") as box:
        page.stream(SHORT | {"grammar": "root ::= (("})
    assert len(str(box.value)) < 500
    with pytest.raises(ShownError, match="prompt: Input should be a valid string") as box:
        page.generate(SHORT | {"prompt": ["x"]})
    assert not box.value.offers_abort


# Aborting


@contextmanager
def reading_its_prompt(server: LiveServer, body: dict[str, Any]) -> Iterator[Any]:
    """A generation whose prompt takes the engine many steps, none of which has made a token."""
    before = server.worker.snapshot()
    long = body | {"prompt": "hello world the to " * 2000, "max_context_length": 8192}
    with server.send("POST", STREAM, json.dumps(long).encode()) as connection:
        wait_for(lambda: server.worker.snapshot().prompt_tokens_computed > before.prompt_tokens_computed)
        yield connection
    assert server.worker.snapshot().generated_tokens == before.generated_tokens


@pytest.mark.parametrize("keys", [{"genkey": "KCPP1234"}, {}])
def test_abort_while_the_prompt_is_read(slow_server: LiveServer, keys: dict[str, str]) -> None:
    with reading_its_prompt(slow_server, LONG | keys) as connection:
        assert Lite(slow_server).post(ABORT, keys) == DONE
        answer = read_answer(connection)
    assert answer.status == 200
    assert answer.body == b'event: message\ndata: {"token": "", "finish_reason": "length"}\n\n'


def test_hanging_up_while_the_prompt_is_read(slow_server: LiveServer) -> None:
    aborted = slow_server.worker.snapshot().requests_aborted
    with reading_its_prompt(slow_server, LONG):
        pass
    slow_server.wait_until_idle()
    assert slow_server.worker.snapshot().requests_aborted == aborted + 1


@pytest.mark.parametrize("keys", [{"genkey": "KCPP2"}, {}])
def test_abort_while_queued(slow_server: LiveServer, keys: dict[str, str]) -> None:
    page = Lite(slow_server)
    with (
        running(slow_server, STREAM, LONG | {"genkey": "KCPP1"}) as first,
        queued(slow_server, STREAM, LONG | keys) as second,
    ):
        assert page.post(CHECK, keys)["results"][0]["text"] == ""
        assert page.post(ABORT, keys) == DONE
        assert read_answer(second).body.endswith(b'{"token": "", "finish_reason": "length"}\n\n')
        assert slow_server.worker.snapshot().running == 1, "the other one goes on"
        assert page.post(ABORT, {"genkey": "KCPP1"}) == DONE
        assert len(read_answer(first).body) > 200


def test_abort_with_anothers_key(page: Lite, server: LiveServer) -> None:
    with running(server, STREAM, LONG | {"genkey": "KCPP1"}):
        assert page.post(ABORT, {"genkey": "KCPP2"}) == {"success": "false", "done": "false"}
        assert server.worker.snapshot().running == 1
        assert page.post(ABORT, {"genkey": "KCPP1"}) == DONE


def test_counting_tokens_while_text_is_made(slow_server: LiveServer) -> None:
    with running(slow_server, STREAM, LONG):
        said = Lite(slow_server).post("/api/extra/tokencount", {"prompt": "hello world", "special": False})
        assert said["ids"] == slow_server.worker.encode("hello world", add_bos=False)
        assert said["value"] == len(said["ids"])
        assert slow_server.worker.snapshot().running == 1


# Chats and tools

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "What the weather is like.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "forecast")
]


def test_instruct_mode(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    """The page's words for the settings count on the chat endpoint, too."""
    server, worker = scripted
    worker.say("Hello there.", FinishReason.LENGTH)
    told = Lite(server).chat(
        INSTRUCT | {"sampler_seed": "7", "stop_sequence": ["\nMe:"], "temperature": 0.25}
    )
    assert (told.text, told.finish, told.dropped) == ("Hello there.", "length", ["[DONE]"])
    request = worker.asked[-1]
    assert worker.prompt.endswith("<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n")
    assert (request.max_tokens, request.context_length, request.trim_stop) == (768, 6144, True)
    assert "\nMe:" in request.stop
    sampling = request.sampling
    assert (sampling.seed, sampling.temperature, sampling.rep_pen, sampling.rep_pen_slope) == (
        7,
        0.25,
        1.05,
        0.7,
    )


def test_log_probabilities_after_a_chat(page: Lite) -> None:
    page.chat(
        INSTRUCT | {"logprobs": True, "genkey": "KCPP99", "max_length": 8, "use_default_badwordsids": True}
    )
    told = page.post("/api/extra/last_logprobs", {"genkey": "KCPP99"})["logprobs"]["content"]
    assert [len(entry["top_logprobs"]) for entry in told] == [10] * 8
    plain = {"messages": INSTRUCT["messages"], "logprobs": True, "max_tokens": 2}
    entries = page.post("/v1/chat/completions", plain)["choices"][0]["logprobs"]["content"]
    assert not any(entry["top_logprobs"] for entry in entries), "OpenAI's clients say how many"


def test_a_turn_that_goes_on(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say(" and more.")
    begun = {"role": "assistant", "content": "Some"}
    assert Lite(server).chat(INSTRUCT | {"messages": [*INSTRUCT["messages"], begun]}).text == " and more."
    assert worker.prompt.endswith("<|im_start|>assistant\nSome")


def test_thoughts_are_shown_apart(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    worker.say("<think>Hm, a greeting.</think>Good morning.")
    told = Lite(server).chat(INSTRUCT)
    assert (told.thoughts.strip(), told.text.strip()) == ("Hm, a greeting.", "Good morning.")


def test_tools(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    server, worker = scripted
    page = Lite(server)
    calls = [("weather", '{"city": "Zürich"}'), ("forecast", '{"city": "Bern"}')]
    worker.say(
        "I look. "
        + "".join(
            f'<tool_call>\n{{"name": "{name}", "arguments": {text}}}\n</tool_call>' for name, text in calls
        )
    )
    told = page.chat(INSTRUCT | {"tools": TOOLS})
    assert told.text.strip() == "I look."
    assert told.finish == "tool_calls", "without it the page drops the calls"
    assert [(call["name"], json.loads(call["arguments"])) for call in told.calls] == [
        (name, json.loads(text)) for name, text in calls
    ]
    assert len({call["id"] for call in told.calls}) == 2
    asked = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in told.calls
        ],
    }
    results = [
        {"role": "tool", "tool_call_id": call["id"], "name": call["name"], "content": f"{call['name']}: rain"}
        for call in told.calls
    ]
    worker.say("It rains.")
    told = page.chat(INSTRUCT | {"tools": TOOLS, "messages": [*INSTRUCT["messages"], asked, *results]})
    assert (told.text, told.finish, told.calls) == ("It rains.", "stop", [])
    assert "weather: rain" in worker.prompt
    assert "forecast: rain" in worker.prompt


def test_aborting_a_chat(page: Lite, server: LiveServer) -> None:
    body = INSTRUCT | {"max_length": 2000, "use_default_badwordsids": True, "genkey": "KCPP5"}
    with running(server, "/v1/chat/completions", body) as connection:
        assert page.post(ABORT, {"genkey": "KCPP5"}) == DONE
        assert read_openai(read_answer(connection).body.decode()).finish == "length"


# The mode for OpenAI's servers

OPENAI = {
    "max_tokens": 12, "model": "koboldcpp/tiny", "temperature": 0.75, "top_p": 0.92,
    "stop": ["\nUser:", "\nAI:"], "presence_penalty": 0.05, "stream": True,
}  # fmt: skip


def test_openai_mode(page: Lite, server: LiveServer) -> None:
    assert server.get("/v1/models").json["data"][0]["id"] == "koboldcpp/tiny", (
        "the last probe, without headers"
    )
    assert page.get("/v1/models")["data"][0]["id"] == "koboldcpp/tiny"
    messages = [{"role": "user", "content": "hello"}]
    told = page.chat(OPENAI | {"messages": messages, "logprobs": True, "top_logprobs": 5})
    assert told.finish in ("stop", "length")
    told = page.chat(OPENAI | {"prompt": "hello", "logprobs": 5, "ban_eos_token": True}, "/v1/completions")
    assert told.text
    assert told.finish == "length"
    assert page.chat(STORY | OPENAI | {"messages": messages, "reasoning_effort": "low"}).finish
    everything = page.post("/v1/completions", STORY | OPENAI | {"stream": False})
    assert everything["choices"][0]["logprobs"] is None
    plain = page.post("/v1/chat/completions", OPENAI | {"messages": messages, "stream": False})
    assert isinstance(plain["choices"][0]["message"]["content"], str)
    with pytest.raises(ShownError, match="max_tokens: must be a number"):
        page.chat(OPENAI | {"messages": messages, "max_tokens": "many"})


def test_two_pages_do_not_disturb_each_other(server: LiveServer) -> None:
    ready = threading.Barrier(2)

    def write(seed: str) -> str:
        ready.wait()
        return Lite(server).stream(SHORT | {"sampler_seed": seed, "genkey": f"KCPP{seed}", "max_length": 60})[
            0
        ]

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(write, ("11", "12")))
    with ThreadPoolExecutor(1) as pool:
        ready = threading.Barrier(1)
        alone = list(pool.map(write, ("11", "12")))
    assert together == alone
