"""KoboldCpp's endpoints, one by one: their shapes, and what they have to do with each other."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from engine.worker import EngineWorker
from server.savedata import SLOTS
from server.settings import Settings
from server.wire.own_pages import PUBLIC_LITE
from tests.server.live import Answer, LiveServer, serving

GENERATE = "/api/v1/generate"
STREAM = "/api/extra/generate/stream"
LAST_LOGPROBS = "/api/extra/last_logprobs"
GREEDY = {"prompt": "hello world", "max_length": 12, "temperature": 0, "ban_eos_token": True}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "And now?"},
]


def result_of(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200
    (result,) = answer.json["results"]
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize(("wanted", "made"), [(12, 5), (5, 5), (3, 3)])
def test_no_reply_is_longer_than_the_server_allows(
    tiny_worker: EngineWorker, tiny_settings: Settings, wanted: int, made: int
) -> None:
    with serving(tiny_worker, tiny_settings.model_copy(update={"genlimit": 5})) as server:
        assert result_of(server.post(GENERATE, GREEDY | {"max_length": wanted}))["completion_tokens"] == made


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/v1/model", {"result": "koboldcpp/tiny"}),
        ("/api/v1/info/version", {"result": "1.2.5"}),
        ("/api/v1/config/max_length", {"value": 400}),
        ("/api/v1/config/max_context_length", {"value": 2048}),
        ("/api/v1/config/soft_prompt", {"value": ""}),
        ("/api/v1/config/soft_prompts_list", {"values": []}),
        ("/api/extra/true_max_context_length", {"value": 2048}),
        ("/api/extra/preloadstory", {}),
        ("/ping", {"status": "healthy"}),
        ("/sdapi/v1/sd-models", []),
        ("/sdapi/v1/samplers", []),
        ("/sdapi/v1/latent-upscale-modes", []),
        ("/sdapi/v1/upscalers", []),
        ("/sdapi/v1/loras", []),
        ("/sdapi/v1/schedulers", []),
        ("/sdapi/v1/options", {"samples_format": "png", "sd_model_checkpoint": "inactive"}),
        ("/speakers_list", []),
    ],
)
def test_what_is_told(server: LiveServer, path: str, said: Any) -> None:
    assert server.get(path).json == said
    assert server.get(f"/some/where{path}/").json == said
    assert server.get(path.replace("/api/v1/", "/api/latest/") + "?x=1").json == said


def test_the_version_says_what_there_is(server: LiveServer) -> None:
    said = server.get("/api/extra/version").json
    assert said["result"] == "KoboldCpp", "SillyTavern compares this word"
    assert isinstance(said["version"], str)
    assert all(part.isdecimal() for part in said["version"].split("."))
    assert said["admin"] == 0
    flags = {name: flag for name, flag in said.items() if name not in ("result", "version", "admin")}
    assert all(isinstance(flag, bool) for flag in flags.values())
    assert {name for name, flag in flags.items() if flag} == {"llm", "embeddings", "jinja"}
    assert flags.keys() == {
        "protected", "llm", "txt2img", "vision", "audio", "transcribe", "multiplayer", "websearch", "tts",
        "embeddings", "music", "savedata", "router", "guidance", "jinja", "mcp",
    }  # fmt: skip


def test_props_are_what_sillytavern_reads(server: LiveServer) -> None:
    said = server.get("/props").json
    assert said["chat_template"] == server.worker.info.chat_template
    assert said["default_generation_settings"]["n_ctx"] == said["n_ctx"] == 2048
    assert said["modalities"] == {"vision": False, "audio": False}
    assert (said["total_slots"], said["model_path"]) == (8, "tiny")


def test_service_info(server: LiveServer) -> None:
    said = server.get("/.well-known/serviceinfo").json
    assert said["version"] == "0.2"
    assert said["software"].keys() == {"name", "version", "repository", "homepage", "logo"}
    assert {name: api["rel_url"] for name, api in said["api"].items()} == {
        "koboldai": "/api",
        "openai": "/v1",
    }


def test_the_manifest(server: LiveServer) -> None:
    assert server.get("/manifest.json").json["start_url"] == "./"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/sdapi/v1/txt2img", {"prompt": "a cat"}, 200, {"images": [""], "parameters": {}, "info": ""}),
        ("/sdapi/v1/img2img", {"prompt": "a cat"}, 200, {"images": [""], "parameters": {}, "info": ""}),
        ("/api/extra/transcribe", {"audio_data": ""}, 200, {"text": ""}),
        ("/v1/audio/transcriptions", {}, 200, {"text": ""}),
        ("/sdapi/v1/interrogate", b"{x", 503, "No LLaVA model loaded"),
        ("/api/extra/tts", {"input": "hi"}, 503, "No TTS model loaded"),
        ("/v1/audio/speech", {"input": "hi"}, 503, "No TTS model loaded"),
    ],
)
def test_models_that_are_not_there(server: LiveServer, path: str, body: Any, status: int, said: Any) -> None:
    answer = server.post(path, body)
    assert answer.status == status
    if status == 200:
        assert answer.json == said
    else:
        assert answer.json["detail"] == {"msg": said, "type": "service_unavailable"}


def test_a_recording_comes_as_a_form(server: LiveServer) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n\xff\x00\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert server.ask("POST", "/v1/audio/transcriptions", form, headers).json == {"text": ""}


def test_a_generation(server: LiveServer) -> None:
    result = result_of(server.post(GENERATE, GREEDY))
    assert result.keys() == {"text", "finish_reason", "logprobs", "prompt_tokens", "completion_tokens"}
    assert (result["finish_reason"], result["completion_tokens"], result["logprobs"]) == ("length", 12, None)
    assert (
        result["prompt_tokens"]
        == server.post("/api/extra/tokencount", {"prompt": "hello world"}).json["value"]
    )


def test_the_oldest_endpoint_says_the_same(server: LiveServer) -> None:
    body = {"text": GREEDY["prompt"], "max": 12, "temperature": 0, "ban_eos_token": True}
    assert server.post("/request", body).json == {
        "data": {"seqs": [result_of(server.post(GENERATE, GREEDY))["text"]]}
    }


def test_every_path_works_behind_a_prefix(server: LiveServer) -> None:
    paths = server.get("/openapi.json").json["paths"]
    found = sorted((method.upper(), path) for path, methods in paths.items() for method in methods)
    assert len(found) > 50
    for method, path in found:
        if "{" not in path:
            body = b"{x" if method == "POST" else None
            plain, prefixed = (server.ask(method, prefix + path, body) for prefix in ("", "/some/where"))
            assert plain.status == prefixed.status != 404, path


@pytest.mark.parametrize("path", ["/api/extra/tokencount", "/api/extra/tokenize"])
def test_tokens_of_a_text(server: LiveServer, path: str) -> None:
    text = "hello world\n<|im_end|> ü 🙂"
    said = server.post(path, {"prompt": text}).json
    assert said == {"value": len(said["ids"]), "ids": server.worker.encode(text), "prompt": text}
    assert server.post(path, {}).json["prompt"] == ""
    assert server.post(path, b"{x").status == server.post(path, {"prompt": [1]}).status == 400
    assert server.post(path, b"{x").json == {"value": -1}


def test_tokens_of_a_chat(server: LiveServer) -> None:
    said = server.post("/api/extra/tokencount", {"messages": CHAT}).json
    assert said["prompt"].startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert said["prompt"].endswith("<|im_start|>assistant\n")
    assert said["ids"] == server.worker.encode(said["prompt"])
    chat = server.post("/v1/chat/completions", {"messages": CHAT, "max_tokens": 1}).json
    assert chat["usage"]["prompt_tokens"] == said["value"]


@pytest.mark.parametrize("text", ["hello world", " the\n\n the", "ü🙂é", "<|im_start|>user\n"])
def test_text_to_tokens_and_back(server: LiveServer, text: str) -> None:
    ids = server.post("/api/extra/tokencount", {"prompt": text, "special": False}).json["ids"]
    assert server.post("/api/extra/detokenize", {"ids": ids}).json == {"result": text, "success": True}
    hidden = server.post("/api/extra/detokenize", {"ids": ids, "special": False}).json["result"]
    assert hidden == text.replace("<|im_start|>", "")


@pytest.mark.parametrize(
    "ids", [[10**9], [-1], ["1"], [1.5], "1", None, [1] * 65_536], ids=lambda ids: repr(ids)[:12]
)
def test_ids_that_are_none(server: LiveServer, ids: Any) -> None:
    answer = server.post("/api/extra/detokenize", {"ids": ids})
    if ids is None:
        assert answer.json == {"result": "", "success": True}
    else:
        assert (answer.status, answer.json) == (400, {"result": "", "success": False})


def test_save_slots(tiny_worker: EngineWorker, tiny_settings: Settings, tmp_path: Path) -> None:
    settings = tiny_settings.model_copy(update={"savedatafile": tmp_path / "saves.jsondb"})
    save = {"slot": 2, "title": "Täg", "format": "kcpp_lzma_b64", "data": "QUJD\u2028"}
    with serving(tiny_worker, settings) as server:
        assert server.get("/api/extra/version").json["savedata"] is True
        assert server.post("/api/extra/data/list", {}).json == [""] * SLOTS
        assert server.post("/api/extra/data/save", save).json == {"success": True, "error": ""}
    with serving(tiny_worker, settings) as server:
        assert server.post("/api/extra/data/list").json == ["", "", "Täg", *[""] * (SLOTS - 3)]
        stored = {name: value for name, value in save.items() if name != "slot"}
        assert server.post("/api/extra/data/load", {"slot": 2}).json == {"success": True, "data": stored}
        assert server.post("/api/extra/data/load", {"slot": "2"}).json["data"] == stored
        assert server.post("/api/extra/data/load", {"slot": 3}).json == {"success": False, "data": None}
        refused = server.post("/api/extra/data/save", save | {"slot": SLOTS}).json
        assert refused["success"] is False
        assert refused["error"]
        server.post("/api/extra/data/save", {"slot": 2})
        assert server.post("/api/extra/data/list").json == [""] * SLOTS


def test_saves_are_not_written_by_strangers_pages(
    tiny_worker: EngineWorker, tiny_settings: Settings, tmp_path: Path
) -> None:
    path, save = "/api/extra/data/save", {"slot": 0, "title": "mine", "data": "x"}
    settings = tiny_settings.model_copy(update={"savedatafile": tmp_path / "saves.jsondb"})
    with serving(tiny_worker, settings) as server:
        for origin in (server.url, PUBLIC_LITE):
            assert server.post(path, save, Origin=origin).json["success"] is True
        assert server.post(path, {"slot": 0}, Origin="http://stranger.example").status == 403
        assert server.post("/api/extra/data/list").json[0] == "mine"
    key = {"Authorization": "Bearer key"}
    with serving(tiny_worker, settings.model_copy(update={"password": SecretStr("key")})) as server:
        assert server.post(path, save, Origin="http://stranger.example", **key).json["success"] is True


def test_without_save_slots(server: LiveServer) -> None:
    assert server.post("/api/extra/data/list", {}).json == []
    assert server.post("/api/extra/data/load", {"slot": 0}).json == {"success": False, "data": None}
    assert server.post("/api/extra/data/save", {"slot": 0, "data": "x"}).json["success"] is False


def test_a_story_to_begin_with(tiny_worker: EngineWorker, tiny_settings: Settings, tmp_path: Path) -> None:
    story = {"gamestarted": True, "prompt": "Once \U0001f642", "actions": [], "savedsettings": None}
    (tmp_path / "story.json").write_text(json.dumps(story))
    settings = tiny_settings.model_copy(update={"preloadstory": tmp_path / "story.json"})
    with serving(tiny_worker, settings) as server:
        assert server.get("/api/extra/preloadstory").json == story
