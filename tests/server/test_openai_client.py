"""The official client against a model that can speak."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.server.live import LiveServer

QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


@pytest.fixture(scope="module")
def client(demo_server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["koboldcpp/SmolLM2-135M-Instruct.Q4_1"]


def test_completion(client: openai.OpenAI) -> None:
    reply = client.completions.create(
        model="any", prompt="The capital of France is", max_tokens=4, temperature=0, echo=True
    )
    assert reply.choices[0].text.startswith("The capital of France is Paris")
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 4
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 4


def test_completion_of_several_prompts(client: openai.OpenAI, demo_server: LiveServer) -> None:
    prompts = ["The capital of France is", "One, two, three,"]
    texts = client.completions.create(model="", prompt=prompts, max_tokens=3, temperature=0, n=2)
    assert [choice.index for choice in texts.choices] == [0, 1, 2, 3]
    assert "Paris" in texts.choices[1].text
    assert "four" in texts.choices[3].text
    ids = [demo_server.worker.encode(prompt) for prompt in prompts]
    tokens = client.completions.create(model="", prompt=ids, max_tokens=3, temperature=0, echo=True)
    assert tokens.choices[0].text.startswith(prompts[0])


def test_streamed_completion(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model="", prompt="The capital of France is", max_tokens=4, temperature=0, stream=True
    )
    chunks = list(stream)
    assert "Paris" in "".join(chunk.choices[0].text for chunk in chunks)
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "length"]


def test_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="", messages=QUESTION, max_completion_tokens=60, temperature=0
    )
    assert "Paris" in (reply.choices[0].message.content or "")
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"


def test_streamed_chat(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="",
        messages=QUESTION,
        max_tokens=10,
        temperature=0,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.choices[0].index for chunk in chunks if chunk.choices} == {0, 1}
    for index in (0, 1):
        deltas = [c.choices[0].delta for c in chunks if c.choices and c.choices[0].index == index]
        assert "".join(delta.content or "" for delta in deltas)
        assert [delta.role for delta in deltas[1:]] == [None] * (len(deltas) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert 2 <= chunks[-1].usage.completion_tokens <= 20
    assert (
        chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens
    )


def test_stop_strings(client: openai.OpenAI) -> None:
    reply = client.completions.create(
        model="", prompt="Count: 1, 2, 3, 4,", max_tokens=30, temperature=0, stop=[" 7"]
    )
    assert reply.choices[0].text == " 5, 6,"
    assert reply.choices[0].finish_reason == "stop"


def test_continued_assistant_turn(client: openai.OpenAI) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": "The capital of France is"}]
    reply = client.chat.completions.create(model="", messages=messages, max_tokens=2, temperature=0)
    assert (reply.choices[0].message.content or "").startswith(" Paris")


def test_errors_are_the_clients_own(client: openai.OpenAI, locked_server: LiveServer) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="messages"):
        client.chat.completions.create(model="", messages=[])
    with pytest.raises(openai.BadRequestError, match="token ids"):
        client.completions.create(model="", prompt=[10**8])
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="", input="x")
    locked = openai.OpenAI(base_url=f"{locked_server.url}/v1", api_key="wrong", max_retries=0)
    with locked, pytest.raises(openai.AuthenticationError, match="key"):
        locked.completions.create(model="", prompt="x")
