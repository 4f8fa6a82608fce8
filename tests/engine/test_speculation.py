"""Drafts change how fast a reply comes and nothing else: every draw is the one it would have been without."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engine import Engine
from engine.types import FinishReason, GenerationRequest, SamplingParams
from tests.engine import test_company
from tests.engine.driving import GREEDY, request
from tests.engine.speculating import (
    Oracle,
    RecordingSampler,
    Told,
    listen,
    load,
    recorded,
    serve,
    widths_of,
    with_drafter,
)
from tests.support.kernels import ALL


def all_kinds() -> list[GenerationRequest]:
    """Sixteen settings, and phrases over several tokens that make sequences go back."""
    rng = random.Random(0)
    phrases = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=2)) for _ in range(200)]
    going_back = [
        request(
            f"phrases {seed}",
            [5, 6, 7 + seed],
            48,
            SamplingParams(temperature=1.5, seed=seed),
            ignore_eos=True,
            banned_phrases=tuple(phrases),
            logprobs=1,
        )
        for seed in range(4)
    ]
    return test_company.settings() + going_back


def expected_of(
    engine: Engine, requests: list[GenerationRequest]
) -> tuple[dict[str, Told], RecordingSampler]:
    """What each request comes to alone, and what it draws on the way."""
    sampler = recorded(engine)
    told: dict[str, Told] = {}
    for one in requests:
        told |= serve(engine, [one])
    return told, sampler


@pytest.mark.parametrize("kernels", ALL)
@pytest.mark.parametrize("error", [0.0, 0.3])
def test_every_draw_is_the_same_from_the_same_logits(tiny_model: Path, kernels: str, error: float) -> None:
    requests = all_kinds()
    expected, usual = expected_of(load(tiny_model, kernels=kernels), requests)
    engine = with_drafter(load(tiny_model, kernels=kernels), Oracle(usual.drawn, error))
    sampler = recorded(engine)
    told: dict[str, Told] = {}
    for start in range(0, len(requests), 4):
        told |= serve(engine, requests[start : start + 4])
    tolerance = 1e-4 if kernels == "reference" else 0
    for name, logits in usual.logits.items():
        assert sampler.drawn[name] == usual.drawn[name]
        differences = torch.stack(logits) - torch.stack(sampler.logits[name])
        assert float(differences.nan_to_num().abs().max()) <= tolerance
    if kernels != "reference":
        assert told == expected
    taken_back = sum(len(usual.drawn[name]) - one.completion_tokens for name, one in expected.items())
    assert taken_back > 0, "no phrase was met"
    snapshot = engine.snapshot()
    assert snapshot.generated_tokens == sum(map(len, usual.drawn.values()))
    assert 0 < snapshot.accepted_tokens <= snapshot.drafted_tokens
    if error:
        assert snapshot.accepted_tokens < snapshot.drafted_tokens
    assert snapshot.steps + snapshot.accepted_tokens >= max(map(len, usual.drawn.values()))


def test_right_drafts_save_steps(tiny_model: Path) -> None:
    one = request("x", [5, 6, 7], 45, SamplingParams(seed=3), ignore_eos=True)
    _, usual = expected_of(load(tiny_model), [one])
    engine = with_drafter(load(tiny_model), Oracle(usual.drawn, 0.0))
    widths = widths_of(engine)
    serve(engine, [one])
    snapshot = engine.snapshot()
    # the prompt, then one token and 4 or 8 drafted ones, up to the 45th token: none is computed twice
    assert widths == [3, 1 + 4, 1 + 8, 1 + 8, 1 + 8, 1 + 8, 1 + 2]
    assert snapshot.steps == 7
    assert (snapshot.drafted_tokens, snapshot.accepted_tokens) == (38, 38)
    assert (snapshot.last_drafted_tokens, snapshot.last_accepted_tokens) == (38, 38)


def test_the_counters_are_those_of_the_last_request(tiny_model: Path) -> None:
    one = request("x", [5, 6, 7], 20, ignore_eos=True)
    _, usual = expected_of(load(tiny_model), [one])
    engine = with_drafter(load(tiny_model), Oracle(usual.drawn, 0.0))
    serve(engine, [one])
    serve(engine, [replace(one, max_tokens=1)])
    snapshot = engine.snapshot()
    assert (snapshot.last_drafted_tokens, snapshot.last_accepted_tokens) == (0, 0)
    assert snapshot.accepted_tokens > 0


def test_no_drafts_unless_asked_for(tiny_model: Path) -> None:
    engine = load(tiny_model)
    assert engine._speculator is None
    serve(engine, [request("x", [5, 6] * 20, 20)])
    assert engine.snapshot().drafted_tokens == 0
    assert load(tiny_model, draft_tokens=0)._speculator is None


def test_a_repetitive_reply_is_guessed_from_itself(tiny_model: Path) -> None:
    one = request("x", [5, 6, 7], 120, replace(GREEDY, logit_bias=((40, 1e3),)), ignore_eos=True)
    expected = serve(load(tiny_model), [one])
    engine = load(tiny_model, draft_tokens=8)
    assert serve(engine, [one]) == expected
    snapshot = engine.snapshot()
    assert snapshot.steps < 30
    assert snapshot.accepted_tokens > 90


@pytest.mark.parametrize("count", [4, 5])
def test_more_than_four_at_a_time_get_none(tiny_model: Path, count: int) -> None:
    requests = [
        request(str(n), [5 + n, 6], 16, SamplingParams(seed=n), ignore_eos=True) for n in range(count)
    ]
    expected, usual = expected_of(load(tiny_model), requests)
    engine = with_drafter(load(tiny_model), Oracle(usual.drawn, 0.0))
    assert serve(engine, requests) == expected
    assert (engine.snapshot().drafted_tokens > 0) == (count == 4)


def test_rejected_tokens_are_in_no_prefix(tiny_model: Path) -> None:
    """A later prompt that goes on from a reply finds keys and values as if nothing had been guessed."""
    first = request("first", list(range(10, 40)), 60, SamplingParams(seed=5), ignore_eos=True)
    told, usual = expected_of(load(tiny_model), [first])
    engine = with_drafter(load(tiny_model), Oracle(usual.drawn, 0.4))
    serve(engine, [first])
    assert engine.snapshot().accepted_tokens < engine.snapshot().drafted_tokens
    later = request("later", [*range(10, 40), *told["first"].tokens, 7, 8], 10, ignore_eos=True)
    expected, fresh = expected_of(load(tiny_model), [later])
    sampler = recorded(engine)
    assert serve(engine, [later]) == expected
    assert engine.snapshot().prompt_tokens_cached >= 80
    assert all(map(torch.equal, sampler.logits["later"], fresh.logits["later"]))


def test_drafts_take_only_the_budget_that_is_left(tiny_model: Path) -> None:
    requests = [request(str(n), [5 + n, 6], 30, SamplingParams(seed=n), ignore_eos=True) for n in range(2)]
    long = request("long", [9] * 100, 4, ignore_eos=True)
    expected, usual = expected_of(load(tiny_model), [*requests, long])
    engine = with_drafter(load(tiny_model, token_budget=16), Oracle(usual.drawn, 0.0), most=64)
    widths = widths_of(engine)
    assert serve(engine, [*requests, long]) == expected
    assert max(widths) == 16
    assert engine.snapshot().accepted_tokens > 20


def test_the_context_is_never_left(tiny_model: Path) -> None:
    one = request("x", [5] * 20, 500, SamplingParams(seed=2), ignore_eos=True)
    expected, usual = expected_of(load(tiny_model, context_length=64), [one])
    engine = with_drafter(load(tiny_model, context_length=64), Oracle(usual.drawn, 0.1), most=64)
    assert serve(engine, [one]) == expected
    assert expected["x"].finish is FinishReason.LENGTH
    assert expected["x"].prompt_tokens + expected["x"].completion_tokens == 64


@pytest.mark.parametrize("blocks", [17, 20])
def test_preemption_changes_no_reply(tiny_model: Path, blocks: int) -> None:
    rng = random.Random(3)
    requests = [
        request(
            str(n), [rng.randrange(3, 250) for _ in range(30)], 90, SamplingParams(seed=n), ignore_eos=True
        )
        for n in range(4)
    ]
    expected, usual = expected_of(load(tiny_model), requests)
    engine = with_drafter(load(tiny_model, kv_tokens=16 * blocks), Oracle(usual.drawn, 0.3))
    assert serve(engine, requests) == expected
    assert engine.snapshot().preemptions > 0
    assert engine.snapshot().accepted_tokens > 0


def test_a_shifted_context_goes_on_with_drafts(tiny_model: Path) -> None:
    """The same turns with drafts and without: what is shifted is the same, and so is what follows."""
    rng = random.Random(4)
    system, turns = ([rng.randrange(3, 250) for _ in range(size)] for size in (40, 700))
    first = request("first", system + turns, 40, SamplingParams(seed=1), ignore_eos=True)
    usual_engine = load(tiny_model, context_length=1024)
    usual = recorded(usual_engine)
    expected = serve(usual_engine, [first])
    second = request(
        "second",
        system + turns[300:] + expected["first"].tokens + [9],
        40,
        SamplingParams(seed=2),
        ignore_eos=True,
    )
    expected |= serve(usual_engine, [second])
    engine = with_drafter(load(tiny_model, context_length=1024), Oracle(usual.drawn, 0.3))
    told = serve(engine, [first]) | serve(engine, [second])
    assert told == expected
    snapshot = engine.snapshot()
    assert snapshot.prompt_tokens_shifted == usual_engine.snapshot().prompt_tokens_shifted > 0
    assert snapshot.accepted_tokens > 0


def test_theta_may_change_between_steps(tiny_model: Path) -> None:
    """The scheduler starts over: drafts are dropped with the keys and values of all tokens."""
    one = request("x", [5, 6, 7], 60, SamplingParams(seed=1), ignore_eos=True)
    expected, usual = expected_of(load(tiny_model), [one])
    engine = with_drafter(load(tiny_model), Oracle(usual.drawn, 0.2))
    told = {"x": Told()}
    engine.add(engine.prepare(one))
    while engine.has_work:
        listen(engine, told)
        engine._scheduler.restart()
        engine.check_integrity()
    assert told == expected


@pytest.fixture(scope="module")
def soaked(tiny_model: Path) -> Engine:
    """One cache for all examples, hardly larger than one context."""
    return load(tiny_model, context_length=96, kv_tokens=112, max_sequences=4, block_size=8)


@pytest.fixture(scope="module")
def roomy(tiny_model: Path) -> Engine:
    return load(tiny_model, context_length=96)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),  # whose prefix
            st.integers(1, 50),  # prompt beyond it
            st.integers(1, 30),  # max_tokens
            st.integers(0, 4),  # steps before the next arrives
            st.none() | st.integers(0, 5),  # whom to abort then
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(4, 40),
    st.sampled_from([0.0, 0.2, 1.0]),
)
def test_soak(
    soaked: Engine,
    roomy: Engine,
    work: list[tuple[int, int, int, int, int | None]],
    budget: int,
    error: float,
) -> None:
    requests = [
        request(
            str(number),
            [family + 3] * 20 * (family % 2) + list(range(10, 10 + length)),
            max_tokens,
            SamplingParams(temperature=1.2, top_k=50, seed=number),
            stop=("e", "th"),
        )
        for number, (family, length, max_tokens, _, _) in enumerate(work)
    ]
    expected, usual = expected_of(roomy, requests)
    with_drafter(soaked, Oracle(usual.drawn, error))
    soaked._scheduler.token_budget = budget
    told = {one.request_id: Told() for one in requests}
    aborted = set()
    for one, (_, _, _, steps, victim) in zip(requests, work, strict=True):
        soaked.add(soaked.prepare(one))
        for _ in range(steps):
            listen(soaked, told)
        if victim is not None:
            soaked.abort(str(victim))
            soaked.check_integrity()
            aborted.add(str(victim))
    while soaked.has_work:
        listen(soaked, told)
    assert soaked.snapshot().blocks_free == soaked.snapshot().blocks_total
    for name, heard in told.items():
        if heard.finish is FinishReason.ABORT:
            assert name in aborted
            assert expected[name].tokens[: len(heard.tokens)] == heard.tokens
        else:
            assert heard == expected[name]


def test_look_up_follows_a_sequence_that_goes_back(tiny_model: Path) -> None:
    """The step after each phrase checks that what is looked through has gone back, too."""
    requests = all_kinds()[-4:]
    expected = serve(load(tiny_model), requests)
    engine = load(tiny_model, draft_tokens=4)
    assert serve(engine, requests) == expected
    assert engine.snapshot().generated_tokens > sum(one.completion_tokens for one in expected.values())
