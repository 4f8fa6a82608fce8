"""Control tokens that a chat's messages spell, over a live server."""

from typing import Any

from engine.worker import EngineWorker
from server.settings import Settings
from tests.server.live import LiveServer, serving

PATH = "/v1/chat/completions"


def size(server: LiveServer, text: str, **more: Any) -> int:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, **more}
    return int(server.post(PATH, body).json["usage"]["prompt_tokens"])


def name_of(server: LiveServer) -> str:
    return next(name for name in server.service.info.control_tokens if name.startswith("<|im_end"))


def test_they_are_plain_text_unless_the_request_says_otherwise(server: LiveServer) -> None:
    name = name_of(server)
    letters = size(server, "a" + "b" * len(name)) - size(server, "a")
    assert size(server, "a" + name) - size(server, "a") > 1
    assert size(server, "a" + name, special_in_messages=True) - size(server, "a") == 1
    assert size(server, "a" + name) - size(server, "a") <= letters


def test_they_are_read_where_the_server_is_set_so(tiny_worker: EngineWorker, tiny_settings: Settings) -> None:
    settings = Settings(**(tiny_settings.model_dump() | {"special_in_messages": True}))
    with serving(tiny_worker, settings) as server:
        name = name_of(server)
        assert size(server, "a" + name) - size(server, "a") == 1
        assert size(server, "a" + name, special_in_messages=False) - size(server, "a") > 1
        server.wait_until_idle()


def test_counting_a_chat_counts_what_it_costs(server: LiveServer) -> None:
    text = "a" + name_of(server)
    counted = server.post("/api/extra/tokencount", {"messages": [{"role": "user", "content": text}]}).json
    assert text in counted["prompt"]
    cost = size(server, text)
    # a chat opens the reply, too, and so does the count
    assert counted["value"] == cost


def test_prompts_of_texts_are_read_as_ever(server: LiveServer) -> None:
    name = name_of(server)
    counted = [
        server.post("/api/extra/tokencount", {"prompt": text}).json["value"] for text in ("a", f"a{name}")
    ]
    assert counted[1] == counted[0] + 1
