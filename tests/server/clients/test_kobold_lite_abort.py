"""KoboldAI Lite without server-sent events, at a busy server, and when its user aborts."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from server.settings import Settings
from tests.server.clients.lite import ABORT, CHECK, DONE, SHORT, STREAM, Lite, ShownError
from tests.server.clients.running import LONG, queued, running
from tests.server.live import LiveServer, read_answer, serving, wait_for


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


@contextmanager
def reading_its_prompt(server: LiveServer, body: dict[str, Any]) -> Iterator[Any]:
    """A generation whose prompt takes the engine many steps, none of which has made a token."""
    before = server.worker.snapshot()
    long = body | {"prompt": "hello world the to " * 2000, "max_context_length": 8192, "max_length": 64}
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
