"""Banned phrases in the engine: the sequence goes back, and takes another way."""

import random
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.types import FinishReason, GenerationRequest, SamplingParams
from tests.engine.driving import request, run

FRANCE = "The capital of France is"


def test_the_phrase_never_comes_and_the_rest_is_what_the_model_would_say(smollm2_engine: Engine) -> None:
    free = run(smollm2_engine, [request("free", FRANCE, 8)])["free"]
    assert free.text.startswith(" Paris")
    bound = run(smollm2_engine, [request("bound", FRANCE, 24, banned_phrases=("paris",))])["bound"]
    assert "paris" not in bound.text.lower()
    assert bound.usage is not None
    # a token that holds the phrase by itself is never drawn, and so nothing is taken back
    assert bound.usage.completion_tokens == len(bound.tokens) == 24
    (paris,) = smollm2_engine.tokenizer.encode(" Paris")
    outright = SamplingParams(temperature=0.0, logit_bias=((paris, -1e9),))
    other = run(smollm2_engine, [request("other", FRANCE, 24, outright)])["other"]
    assert other.text == bound.text


def test_a_phrase_over_several_tokens(smollm2_engine: Engine) -> None:
    story = request("a", "Once upon a time", 40)
    free = run(smollm2_engine, [story])["a"]
    words = free.text.split()
    phrase = " ".join(words[2:5])
    bound = run(smollm2_engine, [request("b", "Once upon a time", 40, banned_phrases=(phrase.upper(),))])["b"]
    assert phrase.lower() not in bound.text.lower()
    # up to the phrase nothing changes
    assert bound.text.startswith(free.text[: free.text.index(phrase)])
    # what was taken back stays counted
    assert len(bound.tokens) < 40


def test_a_ban_is_for_its_place_alone(smollm2_engine: Engine) -> None:
    """Tokens of the phrase may come elsewhere: "time" alone is not banned."""
    prompt = "Repeat: one time two time three time four"
    phrase = " time five time"
    bound = run(smollm2_engine, [request("a", prompt, 24, banned_phrases=(phrase,))])["a"]
    assert phrase not in bound.text
    assert "time" in bound.text


@pytest.mark.parametrize("seed", range(3))
def test_together_as_alone(tiny_model: Path, seed: int) -> None:
    engine = Engine.load(EngineConfig(tiny_model, context_length=256, device="cpu", threads=1))
    rng = random.Random(seed)
    alphabet = "abcdefghijklmnopqrstuvwxyz "
    requests: list[GenerationRequest] = []
    for number in range(6):
        phrases = tuple(rng.choice(alphabet) + rng.choice(alphabet) for _ in range(80))
        sampling = SamplingParams(temperature=1.5, seed=1 + rng.randrange(10**6))
        ids = [rng.randrange(3, 250) for _ in range(rng.choice([1, 16, 40]))]
        requests.append(request(str(number), ids, 48, sampling, ignore_eos=True, banned_phrases=phrases))
    together = run(engine, requests)
    alone = {one.request_id: run(engine, [one])[one.request_id] for one in requests}
    assert {name: reply.text for name, reply in together.items()} == {
        name: reply.text for name, reply in alone.items()
    }
    taken_back = 0
    for one in requests:
        reply = together[one.request_id]
        assert reply.finish is FinishReason.LENGTH
        assert not any(phrase in reply.text.lower() for phrase in one.banned_phrases)
        taken_back += 48 - len(reply.tokens)
    assert taken_back > 0


def test_a_reply_that_can_only_be_banned_ends_at_its_limit(tiny_model: Path) -> None:
    engine = Engine.load(EngineConfig(tiny_model, context_length=256, device="cpu", threads=1))
    tokenizer = engine.tokenizer
    pieces = {tokenizer.piece(token) for token in range(tokenizer.vocab_size)}
    every = tuple({piece.decode("latin-1").lower() for piece in pieces if len(piece) == 1})
    reply = run(engine, [request("a", [5, 6, 7], 20, banned_phrases=every)])["a"]
    assert reply.finish in (FinishReason.LENGTH, FinishReason.EOS)
    assert len(reply.tokens) <= 20
