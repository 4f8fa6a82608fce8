"""The package `koboldapi` against a live server: all its methods for text."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from koboldapi import (  # type: ignore[import-untyped]
    ChunkingProcessor,
    InstructTemplate,
    KoboldAPI,
    KoboldAPICore,
    KoboldAPIError,
)

from tests.server.clients.running import LONG
from tests.server.live import LiveServer, wait_for

GREEDY = {"temperature": 0, "ban_eos_token": True}


@pytest.fixture
def client(server: LiveServer) -> KoboldAPI:
    return KoboldAPI(server.url + "/")


def test_a_generation(client: KoboldAPI, server: LiveServer) -> None:
    text = client.generate("hello world", max_length=12, **GREEDY)
    body = {"prompt": "hello world", "max_length": 12, "top_k": 0, "top_p": 1, "min_p": 0.05}
    assert text == server.post("/api/v1/generate", body | GREEDY).json["results"][0]["text"] != ""
    assert client.check_generation() == text, "the last text of its genkey"


def test_streams(client: KoboldAPI) -> None:
    whole = client.generate("hello world", max_length=12, **GREEDY)

    async def collect() -> list[str]:
        return [token async for token in client.stream_generate("hello world", max_length=12, **GREEDY)]

    assert "".join(asyncio.run(collect())) == whole
    assert client.generate_sync("hello world", max_length=12, **GREEDY) == whole


def test_abort_and_check(client: KoboldAPI) -> None:
    assert client.abort_generation() == "false", "nothing runs"
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(client.generate, **LONG)
        wait_for(client.check_generation)
        begun = client.check_generation()
        assert client.abort_generation() == "true"
        assert begun
        assert whole.result().startswith(begun)


def test_tokens(client: KoboldAPI, server: LiveServer) -> None:
    text = "hello world ü🙂"
    counted = client.count_tokens(text)
    assert counted == {"count": len(counted["tokens"]), "tokens": server.worker.encode(text)}
    assert client.tokenize(text) == counted["tokens"]
    plain = server.worker.encode(text, add_bos=False)
    assert client.detokenize(plain) == text
    with pytest.raises(KoboldAPIError, match="400"):
        client.detokenize([10**9])


def test_log_probabilities(client: KoboldAPI) -> None:
    text = client.generate(
        "hello", max_length=6, logprobs=True, **(GREEDY | {"grammar": 'root ::= "abcdef"'})
    )
    told = client.get_last_logprobs()
    assert "".join(told["tokens"]) == text
    assert all(len(entry["top_logprobs"]) >= 1 for entry in told["content"])


def test_what_the_server_tells(client: KoboldAPI) -> None:
    assert client.get_model() == "koboldcpp/tiny"
    assert client.get_max_context_length() == 2048
    assert client.get_version()["result"] == "KoboldCpp"
    client.generate("hello", max_length=3, **GREEDY)
    assert client.get_performance_stats()["last_token_count"] == 3


def test_parameters_of_the_client(server: LiveServer) -> None:
    client = KoboldAPI(server.url, generation_params={"max_length": 4, "ban_eos_token": True}, logprobs=True)
    client.update_generation_params({"temperature": 0})
    client.generate("hello", max_length=5)
    assert client.get_performance_stats()["last_token_count"] == 4
    assert len(client.get_last_logprobs()["tokens"]) == 4


def test_chunks_of_a_text(client: KoboldAPI) -> None:
    text = "The hello of the world. And the world is to er. " * 20
    chunks = ChunkingProcessor(client, max_chunk_length=100).chunk_text(text)
    assert len(chunks) > 2
    assert "".join("".join(chunk for chunk, _ in chunks).split()) == "".join(text.split())
    assert [count for _, count in chunks] == [len(client.tokenize(chunk)) for chunk, _ in chunks]


def test_templates(server: LiveServer) -> None:
    prompt = InstructTemplate(server.url).wrap_prompt("hello", "", "You are brief.")
    assert isinstance(prompt, str)
    assert "hello" in prompt
    core = KoboldAPICore(server.url, generation_params=GREEDY)
    assert core.wrap_and_generate("hello", max_length=4)
    known = core.get_model_info()
    assert (known["name"], known["context_length"]) == ("koboldcpp/tiny", 2048)


@pytest.fixture
def locked(locked_server: LiveServer, key: str) -> KoboldAPI:
    return KoboldAPI(locked_server.url, api_password=key)


def test_a_password(locked: KoboldAPI, locked_server: LiveServer) -> None:
    assert locked.generate("hello", max_length=4, **GREEDY)
    assert locked.get_model() == "koboldcpp/tiny"
    for stranger in (KoboldAPI(locked_server.url), KoboldAPI(locked_server.url, api_password="wrong")):
        with pytest.raises(KoboldAPIError, match="401"):
            stranger.generate("hello", max_length=4)
        with pytest.raises(KoboldAPIError, match="401"):
            stranger.tokenize("hello")
        assert stranger.get_model() == "koboldcpp/protected-model"


def test_a_mistake_is_an_error(client: KoboldAPI) -> None:
    with pytest.raises(KoboldAPIError, match="400"):
        client.generate("hello", grammar="root ::= ((")
