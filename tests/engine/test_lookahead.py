"""Steps launched before the tokens of the last one are known, on kernels that draw: nothing changes."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.architectures import open_model
from engine.config import EngineConfig
from engine.embedding import EmbeddingRequest
from engine.engine import Engine
from engine.kernels import Draws
from engine.kernels.reference import ReferenceKernels
from engine.models import Loader, load_model
from engine.native.shortlist import Tail
from engine.sampling.candidates import BOUND
from engine.sampling.host_logits import HostLogits
from engine.theta import open_theta
from engine.tokenizer import Tokenizer
from engine.types import GbnfGrammar, GenerationRequest, ModelInfo, SamplingParams
from tests.engine.driving import GREEDY, Reply, drain, request, run, step
from tests.support.stars import write_star_model

CPU = torch.device("cpu")
CONTEXT = 96


class DrawingKernels(ReferenceKernels):
    """The reference kernels, but tokens are drawn as on a card: -1 where the host has to decide."""

    draws = True
    refuse: Sequence[int] = ()
    """Draws, counted from the first, that give no token."""

    def __init__(self) -> None:
        super().__init__(CPU, dense_bytes=2**30)
        self._count = itertools.count()

    def draw(self, logits: torch.Tensor, draws: Draws) -> torch.Tensor:
        columns = draws.table.T.tolist()
        return torch.tensor([self._one(row, *it) for row, it in zip(logits.numpy(), columns, strict=True)])

    def _one(self, row: np.ndarray[Any, np.dtype[np.float32]], cut: float, *tail: float) -> int:
        *told, u = tail
        if next(self._count) in self.refuse:
            return -1
        logits = HostLogits(row.copy(), np.empty_like(row))
        drawn = logits.draw(int(cut), Tail(*told), u)
        assert np.abs(row).max() <= BOUND
        assert drawn is not None, "needs the compiled library"
        return int(drawn[0].ids[drawn[1]])


def engine_on(path: Path, kernels: ReferenceKernels, **others: Any) -> Engine:
    file = open_model(path)
    model = load_model(file, Loader(file, kernels, open_theta(file.file, None)), CONTEXT)
    tokenizer = Tokenizer.from_metadata(file.file.metadata)
    info = ModelInfo("tiny", "llama", "F32", 1, CONTEXT, CONTEXT, tokenizer.vocab_size, None, "", "")
    return Engine(EngineConfig(path, context_length=CONTEXT, **others), model, tokenizer, info)


def both(path: Path, **others: Any) -> tuple[Engine, Engine]:
    plain = ReferenceKernels(CPU, dense_bytes=2**30)
    return engine_on(path, DrawingKernels(), **others), engine_on(path, plain, **others)


def run_late(engine: Engine, arrivals: Sequence[tuple[int, GenerationRequest]]) -> dict[str, Reply]:
    """Requests that come after so many steps, served together."""
    replies: dict[str, Reply] = {}
    waiting = sorted(arrivals, key=lambda pair: pair[0])
    for number in itertools.count():
        while waiting and waiting[0][0] <= number:
            one = waiting.pop(0)[1]
            replies[one.request_id] = Reply()
            engine.add(engine.prepare(one))
        if not waiting and not engine.has_work:
            return replies
        step(engine, replies)
    raise AssertionError


SAMPLINGS = [
    GREEDY,
    SamplingParams(seed=11),
    SamplingParams(temperature=1.4, top_k=7, top_p=0.9, seed=12),
    SamplingParams(top_k=0, top_p=1.0, min_p=0.05, seed=13),
    SamplingParams(rep_pen=1.2, seed=14),
    SamplingParams(mirostat=2, seed=15),
]
requests = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.integers(1, 40),
        st.integers(0, 14),
        st.sampled_from(SAMPLINGS),
        st.sampled_from(
            [
                {},
                {"stop": ("a", "e")},
                {"ignore_eos": True},
                {"banned_phrases": ("a",)},
                {"grammar": GbnfGrammar('root ::= "ab" [a-z]*')},
                {"logprobs": 2},
            ]
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests, st.sets(st.integers(0, 40), max_size=4), st.sampled_from([48, 96, 400]))
def test_replies_are_those_of_an_engine_that_waits(
    tiny_model: Path, asked: list[Any], refused: set[int], room: int
) -> None:
    ahead, plain = both(tiny_model, kv_tokens=max(room, CONTEXT), token_budget=24, max_sequences=4)
    kernels = ahead.kernels
    assert isinstance(kernels, DrawingKernels)
    kernels.refuse = tuple(refused)
    arrivals = [
        (at, request(str(number), range(3, 3 + length), most, sampling, **others))
        for number, (at, length, most, sampling, others) in enumerate(asked)
    ]
    found, should = run_late(ahead, arrivals), run_late(plain, arrivals)
    for name in should:
        assert (found[name].text, found[name].tokens) == (should[name].text, should[name].tokens)
        assert found[name].finish == should[name].finish


def test_a_step_is_under_way_when_tokens_are_told(tiny_model: Path) -> None:
    engine, _ = both(tiny_model)
    replies = {"x": Reply()}
    engine.add(engine.prepare(request("x", range(3, 9), 5, ignore_eos=True)))
    steps = []
    while engine.has_work:
        step(engine, replies)
        steps.append((len(replies["x"].tokens), engine.snapshot().steps))
    # The fifth token is the last: there is nothing to be launched behind it.
    assert steps == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 5)]


def test_an_abort_leaves_the_others_alone(tiny_model: Path) -> None:
    found = []
    # other settings than these are drawn on the host
    sampling = SamplingParams(top_k=40, seed=3)
    for engine in both(tiny_model):
        replies = {"gone": Reply(), "stays": Reply()}
        for name in replies:
            engine.add(engine.prepare(request(name, range(3, 12), 12, sampling, ignore_eos=True)))
        for _ in range(4):
            step(engine, replies)
        assert (engine._flight is not None) == engine.kernels.draws
        engine.abort("gone")
        drain(engine, replies)
        assert len(replies["gone"].tokens) == 4
        found.append(replies["stays"].tokens)
    assert found[0] == found[1]
    assert len(found[0]) == 12


def test_an_embedding_comes_between(tiny_model: Path) -> None:
    engine, _ = both(tiny_model)
    replies = {"x": Reply()}
    engine.add(engine.prepare(request("x", range(3, 9), 20, ignore_eos=True)))
    step(engine, replies)
    engine.add_embedding(engine.prepare_embedding(EmbeddingRequest("e", (3, 4, 5), "mean")))
    for _ in range(3):
        step(engine, replies)
    assert len(engine.take_embeddings()) == 1
    drain(engine, replies)
    assert len(replies["x"].tokens) == 20


def test_steps_ahead_are_those_of_the_theta_that_all_ask_for(tiny_model: Path, tmp_path: Path) -> None:
    """A switch recalls the step in flight, which a request with another theta than the server's never has."""
    star_model, _ = write_star_model(tmp_path / "star.nkat", tiny_model)
    sampling = SamplingParams(top_k=40, seed=5)
    asked = request("x", range(3, 9), 16, sampling, ignore_eos=True)
    for engine in both(star_model):
        expected = run(engine, [asked])["x"].tokens
        replies = {"x": Reply()}
        engine.add(engine.prepare(asked))
        for enabled in (True, False, True):
            engine.set_theta(enabled=enabled)
            for _ in range(4):
                step(engine, replies)
            assert (engine._flight is not None) == (engine.kernels.draws and enabled)
        drain(engine, replies)
        assert replies["x"].tokens == expected
