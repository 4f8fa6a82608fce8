"""KoboldAI Lite against a live server: what the page sends, word for word, and what its user would see."""

from typing import Any

import pytest

from tests.server.clients.lite import GENERATE, INSTRUCT, SHORT, STORY, Lite, ShownError, compares_as
from tests.server.dialects.scripted import ScriptedWorker
from tests.server.live import LiveServer

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
