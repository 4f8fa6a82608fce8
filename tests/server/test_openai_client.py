"""The official client against a model that can speak."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.server.live import LiveServer

QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


class City(BaseModel):
    """What a reply has to be; no members beyond those, as OpenAI's strict mode wants it."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=20)]
    country: Literal["France", "Spain"]
    is_capital: bool


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
    locked = openai.OpenAI(base_url=f"{locked_server.url}/v1", api_key="wrong", max_retries=0)
    with locked, pytest.raises(openai.AuthenticationError, match="key"):
        locked.completions.create(model="", prompt="x")


def test_structured_output(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(
        model="", messages=QUESTION, response_format=City, max_tokens=100, temperature=0
    )
    city = reply.choices[0].message.parsed
    assert isinstance(city, City)
    assert city.country == "France"
    assert reply.choices[0].finish_reason == "stop"


def test_streamed_structured_output(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="", messages=QUESTION, response_format=City, max_tokens=100, temperature=0
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, City)


def test_json_objects(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="",
        messages=[{"role": "user", "content": "Give me a JSON object with a key a."}],
        response_format={"type": "json_object"},
        max_tokens=40,
        temperature=0,
    ).choices[0]
    assert reply.message.content
    assert reply.message.content.startswith("{")
    if reply.finish_reason == "stop":
        assert isinstance(json.loads(reply.message.content), dict)


def test_log_probabilities_of_a_chat(client: openai.OpenAI) -> None:
    settings: Any = {"model": "", "messages": QUESTION, "max_tokens": 8, "logprobs": True, "top_logprobs": 5}
    reply = client.chat.completions.create(**settings, temperature=0).choices[0]
    assert reply.logprobs is not None
    told = reply.logprobs.content or []
    assert "".join(entry.token for entry in told) == reply.message.content
    for entry in told:
        assert len(entry.top_logprobs) == 5
        assert entry.token == entry.top_logprobs[0].token, "greedy takes the likeliest"
        assert math.isclose(entry.logprob, entry.top_logprobs[0].logprob, abs_tol=1e-5)
        assert sum(math.exp(other.logprob) for other in entry.top_logprobs) <= 1 + 1e-6
        assert entry.logprob < 0, "the model's own probabilities, though the sampler left one token"
    chunks = client.chat.completions.create(**settings, temperature=0, stream=True)
    streamed = [
        entry
        for chunk in chunks
        for choice in chunk.choices
        for entry in (choice.logprobs.content if choice.logprobs is not None else None) or []
    ]
    assert [entry.token for entry in streamed] == [entry.token for entry in told]


def test_log_probabilities_of_a_completion(client: openai.OpenAI) -> None:
    reply = client.completions.create(
        model="", prompt="The capital of France is", max_tokens=5, logprobs=3, temperature=0, echo=True
    ).choices[0]
    told = reply.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.top_logprobs is not None
    assert told.token_logprobs is not None
    assert "".join(told.tokens) == reply.text
    count = len(told.tokens)
    first: list[object] = [told.token_logprobs[0], told.top_logprobs[0]]
    assert first == [None, None]
    assert [len(row) for row in told.top_logprobs[1:]] == [3] * (count - 1)
    assert told.text_offset == [sum(map(len, told.tokens[:place])) for place in range(count)]


def test_a_prompt_is_scored_without_a_reply(client: openai.OpenAI) -> None:
    prompt = "The capital of France is Paris"
    settings: Any = {"model": "", "logprobs": 1, "temperature": 0, "echo": True}
    scored = client.completions.create(prompt=prompt, max_tokens=0, **settings)
    assert scored.usage is not None
    assert (scored.choices[0].text, scored.choices[0].finish_reason) == (prompt, "length")
    told = scored.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert len(told.token_logprobs) == scored.usage.prompt_tokens
    longer = client.completions.create(prompt=[prompt, prompt + "."], max_tokens=1, **settings)
    for choice, more in zip(longer.choices, (1, 2), strict=True):
        found = choice.logprobs
        assert found is not None
        assert found.token_logprobs is not None
        assert found.token_logprobs[1 : len(told.token_logprobs)] == told.token_logprobs[1:]
        assert len(found.token_logprobs) == len(told.token_logprobs) + more


def test_a_seed_repeats_a_reply(client: openai.OpenAI) -> None:
    def ask(seed: int, n: int = 1) -> list[str | None]:
        reply = client.chat.completions.create(
            model="", messages=QUESTION, max_tokens=8, temperature=1.5, top_p=1, seed=seed, n=n
        )
        return [choice.message.content for choice in reply.choices]

    assert ask(11) == ask(11)
    assert ask(11) != ask(12)
    several = ask(11, n=3)
    assert several[0] == ask(11)[0]
    assert len(set(several)) == 3, "each choice has a seed of its own"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response_format": {"type": "yaml"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 5}}}},
            "type must be a string",
        ),
        ({"n": 17}, "n: "),
        ({"temperature": "hot"}, "temperature: must be a number"),
    ],
)
def test_what_is_refused(client: openai.OpenAI, changes: Any, message: str) -> None:
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError), match=message):
        client.chat.completions.create(model="", messages=QUESTION, **changes)
