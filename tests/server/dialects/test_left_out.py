"""Nothing that a client sends is left out in silence: it is refused, or the log says so."""

from collections.abc import Iterator
from typing import Any

import pytest

from server.settings import Settings
from tests.server.dialects.scripted import ScriptedWorker, scripted_server
from tests.server.live import LiveServer

HI = {"type": "text", "text": "Hi"}
FUNCTION = {"name": "f", "parameters": {"type": "object"}, "input_schema": {"type": "object"}}


@pytest.fixture
def fresh(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[LiveServer, ScriptedWorker]]:
    """A server that has told nothing yet, with its log at the level of `--quiet`."""
    caplog.set_level("WARNING")
    with scripted_server(Settings(threads=1)) as pair:
        yield pair


def chat(*content: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": list(content)}]}


def responses(*content: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"input": [{"role": "user", "content": list(content)}]}


def messages(*content: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": list(content)}]}


ASKING = {"chat": chat, "responses": responses, "messages": messages}


@pytest.mark.parametrize(
    "kind", ["image_url", "input_image", "image", "input_audio", "input_file", "file", "smell"]
)
@pytest.mark.parametrize("dialect", ASKING)
def test_what_the_model_cannot_take_is_refused(
    scripted: tuple[LiveServer, ScriptedWorker], dialect: str, kind: str
) -> None:
    path, body = ASKING[dialect](HI, {"type": kind, "text": "x"})
    answer = scripted[0].post(path, body)
    assert answer.status == 400
    assert "content.1: " in answer.json["error"]["message"]
    assert kind in answer.json["error"]["message"]


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
@pytest.mark.parametrize("dialect", ASKING)
def test_text_under_any_name(scripted: tuple[LiveServer, ScriptedWorker], dialect: str, kind: str) -> None:
    path, body = ASKING[dialect]({"type": kind, "text": "Greetings"})
    assert scripted[0].post(path, body).status == 200
    assert "user\nGreetings<|im_end|>" in scripted[1].prompt


def test_images_of_ollama_are_refused(scripted: tuple[LiveServer, ScriptedWorker]) -> None:
    asked = {"stream": False, "messages": [{"role": "user", "content": "?", "images": ["aGk="]}]}
    assert scripted[0].post("/api/chat", asked).status == 400
    assert scripted[0].post("/api/generate", {"prompt": "?", "images": ["aGk="]}).status == 400


def test_a_part_of_the_history_that_nobody_knows_ends_no_session(
    fresh: tuple[LiveServer, ScriptedWorker], caplog: pytest.LogCaptureFixture
) -> None:
    server, worker = fresh
    said = {"type": "smell", "text": "of rain"}
    silent = {"type": "touch", "data": 1}
    call = {"call_id": "c", "name": "f", "arguments": "{}", "type": "function_call"}
    result = {"type": "function_call_output", "call_id": "c", "output": [HI, said]}
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    answered = {"type": "tool_result", "tool_use_id": "c", "content": [HI, said]}
    bodies = [
        ("/v1/responses", {"input": [{"role": "user", "content": [said, silent]}, call, result]}),
        (
            "/v1/messages",
            {
                "max_tokens": 9,
                "system": [said],
                "messages": [
                    {"role": "user", "content": [said, silent]},
                    {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s"}, use]},
                    {"role": "user", "content": [answered, said, silent]},
                ],
            },
        ),
    ]
    for path, body in bodies:
        for _ in range(2):
            assert server.post(path, body).status == 200
        assert worker.prompt.count("of rain") >= 2
    assert caplog.text.count("type 'smell'") == 2, "once for each dialect"
    assert caplog.text.count("'touch'") == 2
    assert "'server_tool_use'" in caplog.text


def test_items_that_nobody_knows_are_left_out(
    fresh: tuple[LiveServer, ScriptedWorker], caplog: pytest.LogCaptureFixture
) -> None:
    server, worker = fresh
    items = [
        {"type": "ghost_snapshot", "id": "x"},
        {"role": "user", "content": "Hi"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "c", "output": "a.txt"},
        {"type": "tool_search_output", "call_id": "d", "tools": [{"name": "found"}]},
        {"type": 7},
    ]
    assert server.post("/v1/responses", {"input": items}).status == 200
    assert '"name": "local_shell", "arguments": {"type": "exec", "command": ["ls"]}' in worker.prompt
    assert "a.txt" in worker.prompt
    assert '"name": "found"' in worker.prompt
    told = [record.getMessage() for record in caplog.records]
    assert [message.partition(",")[0].rpartition(" ")[2] for message in told] == [
        "'ghost_snapshot'", "'web_search_call'", "'7'",
    ]  # fmt: skip


DROPPED: list[tuple[str, dict[str, Any], str]] = [
    ("/api/v1/generate", {"prompt": "a", "images": ["aGk="]}, "images"),
    ("/api/extra/generate/stream", {"prompt": "a", "audio": ["aGk="]}, "audio"),
    ("/api/v1/generate", {"prompt": "a", "negative_prompt": "b"}, "negative_prompt"),
    ("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix"),
    ("/v1/completions", {"prompt": "a", "negative_prompt": "b"}, "negative_prompt"),
    ("/v1/chat/completions", chat(HI)[1] | {"images": ["aGk="]}, "images"),
    ("/v1/messages", messages(HI)[1] | {"negative_prompt": "b"}, "negative_prompt"),
    ("/v1/responses", responses(HI)[1] | {"negative_prompt": "b"}, "negative_prompt"),
    ("/api/generate", {"prompt": "a", "options": {"negative_prompt": "b"}}, "negative_prompt"),
]


@pytest.mark.parametrize(("path", "body", "name"), DROPPED)
def test_each_request_whose_content_is_dropped_has_a_line(
    fresh: tuple[LiveServer, ScriptedWorker],
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, Any],
    name: str,
) -> None:
    for _ in range(2):
        assert fresh[0].post(path, body).status == 200
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        f"a client asks for {name}"
    ] * 2


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/api/generate", {"prompt": "a", "template": "{{ .Prompt }}"}, "template"),
        (
            "/v1/chat/completions",
            chat(HI)[1] | {"web_search_options": {"user_location": None}},
            "web_search_options",
        ),
        ("/v1/messages", messages(HI)[1] | {"mcp_servers": [{}]}, "mcp_servers"),
    ],
)
def test_a_wish_that_is_not_met_has_one_line(
    fresh: tuple[LiveServer, ScriptedWorker],
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, Any],
    name: str,
) -> None:
    for _ in range(2):
        assert fresh[0].post(path, body).status == 200
    assert caplog.text.count(f"asks for {name},") == 1


@pytest.mark.parametrize("fields", [{"functions": [FUNCTION]}, {"modalities": ["text", "audio"]}])
def test_what_would_change_the_answers_form_is_refused(
    scripted: tuple[LiveServer, ScriptedWorker], fields: dict[str, Any]
) -> None:
    path, body = chat(HI)
    assert scripted[0].post(path, body | fields).status == 400
    assert scripted[0].post(path, body | {"functions": [], "modalities": ["text"]}).status == 200


@pytest.mark.parametrize("kind", ["web_search", "bash_20250124"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"])
def test_tools_that_do_not_run_here_are_skipped_in_every_dialect(
    fresh: tuple[LiveServer, ScriptedWorker], caplog: pytest.LogCaptureFixture, path: str, kind: str
) -> None:
    server, worker = fresh
    function = FUNCTION if path == "/v1/messages" else {"type": "function", "function": FUNCTION}
    tools = [function, {"type": kind, "name": "hosted"}]
    body = {"messages": [{"role": "user", "content": "Hi"}], "input": "Hi", "max_tokens": 9, "tools": tools}
    for _ in range(2):
        assert server.post(path, body).status == 200
    assert caplog.text.count(f"type {kind!r}") == 1
    assert '"name": "f"' in worker.prompt
    assert "hosted" not in worker.prompt


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"])
def test_as_many_tools_as_agents_have(scripted: tuple[LiveServer, ScriptedWorker], path: str) -> None:
    server, worker = scripted
    functions = [FUNCTION | {"name": f"tool_{number}"} for number in range(257)]
    if path != "/v1/messages":
        functions = [{"type": "function", "function": function} for function in functions]
    body = {"messages": [{"role": "user", "content": "Hi"}], "input": "Hi", "max_tokens": 9}
    assert server.post(path, body | {"tools": functions[:256]}).status == 200
    assert "tool_255" in worker.prompt
    answer = server.post(path, body | {"tools": functions})
    assert (answer.status, "at most 256" in answer.body.decode()) == (400, True)
