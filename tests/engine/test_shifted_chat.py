"""Context shift in the whole engine: what a chat that outgrows its context costs, and what it loses."""

from pathlib import Path
from pydoc_data.topics import topics
from random import Random
from typing import Any

import pytest
import torch

from engine.batch import Batch
from engine.config import EngineConfig
from engine.engine import Engine
from engine.types import Usage
from tests.engine.driving import request, run

CONTEXT, MOST = 512, 470
SYSTEM, QUESTION, REPLY = 60, 20, 12
FOLLOWING = 12


def load(path: Path, **others: Any) -> Engine:
    return Engine.load(EngineConfig(path, context_length=CONTEXT, device="cpu", threads=1, **others))


class Chat:
    """Turns behind a system prompt; when they get too long, the oldest quarter of them is dropped."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.rng = Random(1)
        self.system = self.draw(SYSTEM)
        self.turns: list[int] = self.draw(300)
        self.cuts = 0

    def draw(self, length: int) -> list[int]:
        return [self.rng.randrange(3, 250) for _ in range(length)]

    def turn(self) -> tuple[int, Usage]:
        """Ask something: the prompt tokens that were computed for it, and the reply's usage."""
        if len(self.turns) > MOST - SYSTEM - QUESTION:
            self.turns, self.cuts = self.turns[len(self.turns) // 4 :], self.cuts + 1
        self.turns += self.draw(QUESTION)
        before = self.engine.snapshot().prompt_tokens_computed
        reply = run(self.engine, [request("x", self.system + self.turns, REPLY, ignore_eos=True)])["x"]
        self.turns += reply.tokens
        assert reply.usage is not None
        return self.engine.snapshot().prompt_tokens_computed - before, reply.usage


def test_only_new_tokens_are_computed_however_long_the_chat(tiny_model: Path) -> None:
    chat = Chat(load(tiny_model))
    chat.turn()
    for _ in range(12):
        computed, usage = chat.turn()
        # the last token of the reply was never computed; an exact prefix may end within a block
        assert computed <= 1 + QUESTION + 15
        assert usage.cached_tokens == usage.prompt_tokens - computed
    assert chat.cuts >= 2
    counted = chat.engine.snapshot()
    assert counted.prompt_tokens_shifted > 200 * chat.cuts
    assert counted.preemptions == 0


def test_a_cache_of_one_context_is_enough(tiny_model: Path) -> None:
    chat = Chat(load(tiny_model, kv_tokens=CONTEXT))
    chat.turn()
    assert max(chat.turn()[0] for _ in range(12)) <= 1 + QUESTION + 15
    assert chat.cuts >= 2


def test_without_context_shift_all_behind_a_cut_is_computed(tiny_model: Path) -> None:
    chat = Chat(load(tiny_model, context_shift=False))
    computed = [chat.turn()[0] for _ in range(12)]
    assert chat.cuts >= 2
    assert sum(count > 200 for count in computed) == 1 + chat.cuts
    assert chat.engine.snapshot().prompt_tokens_shifted == 0


def test_other_chats_keep_exact_prefixes(tiny_model: Path) -> None:
    """Who starts with the tokens of a shifted chat gets the reply of an engine that never saw one."""
    chat = Chat(load(tiny_model))
    while chat.cuts == 0:
        chat.turn()
    # too little of it for a shift, but some blocks behind the cut
    prompt = (chat.system + chat.turns)[: SYSTEM + 150]
    found = run(chat.engine, [request("x", prompt, 30, ignore_eos=True)])["x"]
    expected = run(load(tiny_model), [request("x", prompt, 30, ignore_eos=True)])["x"]
    assert found.tokens == expected.tokens
    assert found.usage is not None
    assert found.usage.cached_tokens == SYSTEM // 16 * 16


def test_a_change_of_theta_forgets(tiny_model: Path) -> None:
    chat = Chat(load(tiny_model))
    chat.turn()
    chat.engine._scheduler.restart()
    computed, usage = chat.turn()
    assert (computed, usage.cached_tokens) == (usage.prompt_tokens, 0)


@pytest.mark.parametrize("front", [60, 0])
def test_predictions_stay_near_those_of_a_full_computation(
    smollm2_engine: Engine, monkeypatch: pytest.MonkeyPatch, front: int
) -> None:
    """On prose that comes with Python: the log likelihood of what follows, token by token.

    Without a front the model would lose the tokens that it puts most of its attention on.
    """
    engine = smollm2_engine
    tokens = engine.tokenizer.encode(topics["assignment"])[:540]
    assert len(tokens) == 540
    now = tokens[:front] + tokens[260:]
    known = len(now) - FOLLOWING
    exact = engine.log_likelihoods(now, known)

    rows: list[torch.Tensor] = []
    compute = engine._runner.run

    def spy(batch: Batch, *, recorded: bool = True) -> torch.Tensor:
        logits = compute(batch, recorded=recorded)
        rows.append(logits)
        return logits

    monkeypatch.setattr(engine._runner, "run", spy)
    run(engine, [request("before", tokens[:-FOLLOWING], 1)])
    rows.clear()
    for length in range(known, len(now)):
        reply = run(engine, [request("x", now[:length], 1)])["x"]
        assert reply.usage is not None
        cut_at_the_front = front == 0 and length == known
        assert reply.usage.cached_tokens == length - 1 - 4 * cut_at_the_front
    logits = torch.cat(rows)
    shifted = torch.log_softmax(logits, -1)[torch.arange(FOLLOWING), torch.tensor(now[known:])]
    differences = shifted - exact
    assert float(differences.abs().mean()) < 0.2
    assert abs(float(differences.mean())) < 0.15
    # and it is no full computation in disguise
    assert float(differences.abs().max()) > 1e-3
