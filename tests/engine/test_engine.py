"""The whole engine on tiny random models: batching, prefixes, preemption, ends, settings."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch_builder import BatchBuilder
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError, ModelFileError
from engine.sampling import Draw, Row, Sampler
from engine.tokenizer import Tokenizer
from engine.types import FinishReason, GenerationRequest, SamplingParams, Usage
from tests.engine.driving import GREEDY, Reply, drain, request, run, step
from tests.support.kernels import ALL


def load(path: Path, **others: Any) -> Engine:
    fields: dict[str, Any] = {"context_length": 256, "device": "cpu", "threads": 1}
    return Engine.load(EngineConfig(path, **fields | others))


@pytest.fixture(scope="module")
def shared(tiny_model: Path) -> Engine:
    """For tests that leave nothing behind but cached prefixes."""
    return load(tiny_model, context_length=2048)


@pytest.fixture
def engine(shared: Engine) -> Iterator[Engine]:
    yield shared
    drain(shared, {})


def mixed_requests(count: int, seed: int, **others: Any) -> list[GenerationRequest]:
    """Seeded requests of different lengths that end at their limit."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        ids = [rng.randrange(3, 250) for _ in range(rng.choice([1, 5, 20, 70]))]
        sampling = SamplingParams(temperature=1.0, top_p=0.95, rep_pen=1.1, seed=rng.randrange(1, 10**6))
        name = f"{number}"
        found.append(request(name, ids, rng.randrange(3, 25), sampling, ignore_eos=True, **others))
    return found


def same(found: dict[str, Reply], expected: dict[str, Reply]) -> None:
    assert {name: reply.tokens for name, reply in found.items()} == {
        name: reply.tokens for name, reply in expected.items()
    }
    assert {name: reply.text for name, reply in found.items()} == {
        name: reply.text for name, reply in expected.items()
    }


class SpyingSampler(Sampler):
    """Keeps the logits it was given: (request, tokens in front) -> row."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.seen: dict[tuple[str, int], torch.Tensor] = {}

    def sample(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[Draw]:
        for seen, row in zip(logits, rows, strict=True):
            self.seen[row.request_id, len(row.tokens)] = seen.clone()
        return super().sample(logits, rows)


def spied(path: Path, requests: list[GenerationRequest], *, together: bool, **others: Any) -> SpyingSampler:
    engine = load(path, **others)
    spy = engine._sampler = SpyingSampler(engine.tokenizer)
    for group in [requests] if together else [[one] for one in requests]:
        run(engine, group)
    return spy


def test_company_does_not_change_a_reply(tiny_model: Path) -> None:
    requests = mixed_requests(8, seed=1)
    alone: dict[str, Reply] = {}
    one_at_a_time = load(tiny_model)
    for one in requests:
        alone |= run(one_at_a_time, [one])
    together = load(tiny_model, token_budget=64)
    same(run(together, requests), alone)
    assert together.snapshot().steps < one_at_a_time.snapshot().steps


@pytest.mark.parametrize("budget", [16, 37, 512])
@pytest.mark.parametrize("kernels", ALL)
def test_logits_alone_in_company_in_chunks_and_whole(tiny_model: Path, budget: int, kernels: str) -> None:
    """The native kernels promise the same bits; those of torch round as the shape of a batch has it."""
    requests = mixed_requests(8, seed=2)
    whole = spied(tiny_model, requests, together=False, kernels=kernels).seen
    batched = spied(tiny_model, requests, together=True, token_budget=budget, kernels=kernels).seen
    assert whole.keys() == batched.keys()
    tolerance = 1e-4 if kernels == "reference" else 0
    assert max(float((whole[at] - batched[at]).abs().max()) for at in whole) <= tolerance


@pytest.mark.parametrize("blocks", [17, 20])
def test_preemption_does_not_change_a_reply(tiny_model: Path, blocks: int) -> None:
    requests = [replace(one, max_tokens=60) for one in mixed_requests(8, seed=3)]
    roomy = load(tiny_model)
    expected = run(roomy, requests)
    crowded = load(tiny_model, kv_tokens=16 * blocks)
    same(run(crowded, requests), expected)
    assert roomy.snapshot().preemptions == 0
    assert crowded.snapshot().preemptions > 0


def test_a_shared_prefix_is_computed_once(engine: Engine) -> None:
    rng = random.Random(5)
    prefix = [rng.randrange(3, 250) for _ in range(1000)]
    tail = [7, 8, 9]
    fresh = run(engine, [request("fresh", prefix + tail, 12, ignore_eos=True)])["fresh"]
    before = engine.snapshot()
    again = run(engine, [request("again", prefix + tail, 12, ignore_eos=True)])["again"]
    after = engine.snapshot()
    assert (again.tokens, again.text) == (fresh.tokens, fresh.text)
    assert after.prompt_tokens_cached - before.prompt_tokens_cached == 992
    assert after.prompt_tokens_computed - before.prompt_tokens_computed == 1003 - 992
    assert fresh.usage is not None
    assert again.usage is not None
    assert (fresh.usage.cached_tokens, again.usage.cached_tokens) == (0, 992)
    assert (again.usage.prompt_tokens, again.usage.completion_tokens) == (1003, 12)


def test_another_ending_shares_what_is_the_same(engine: Engine, tiny_model: Path) -> None:
    rng = random.Random(6)
    prefix = [rng.randrange(3, 250) for _ in range(100)]
    run(engine, [request("first", [*prefix, 5, 6], 20, ignore_eos=True)])
    other = request("second", [*prefix[:60], 9, 9, 9], 20, ignore_eos=True)
    found = run(engine, [other])["second"]
    expected = run(load(tiny_model), [other])["second"]
    assert found.tokens == expected.tokens
    assert found.usage is not None
    assert found.usage.cached_tokens == 48


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_no_tokens_asked_for(engine: Engine, max_tokens: int) -> None:
    before = engine.snapshot()
    reply = run(engine, [request("x", "hello", max_tokens)])["x"]
    assert (reply.text, reply.tokens, reply.finish) == ("", [], FinishReason.LENGTH)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 0
    assert engine.snapshot().steps == before.steps


def test_length(engine: Engine) -> None:
    reply = run(engine, [request("x", "hello", 9, ignore_eos=True)])["x"]
    assert reply.finish is FinishReason.LENGTH
    assert len(reply.tokens) == 9
    assert reply.usage is not None
    assert (reply.usage.completion_tokens, reply.usage.seed) == (9, 1)


def forcing(text: str, engine: Engine) -> SamplingParams:
    """Greedy, with a bias that allows nothing but the bytes of one character, or one special token."""
    (token,) = engine.tokenizer.encode(text)
    return replace(GREEDY, logit_bias=((token, 1000.0),))


def test_the_end_token_ends(engine: Engine) -> None:
    given = request("x", "hello", 9, forcing("<|im_end|>", engine))
    reply = run(engine, [given])["x"]
    assert (reply.finish, reply.text, reply.tokens) == (FinishReason.EOS, "", [2])
    ignored = run(engine, [replace(given, ignore_eos=True)])["x"]
    assert (ignored.finish, ignored.text, ignored.tokens) == (FinishReason.LENGTH, "", [2] * 9)
    banned = run(engine, [replace(given, ban_eos=True)])["x"]
    assert banned.finish is FinishReason.LENGTH
    assert 2 not in banned.tokens


def test_a_stop_string_ends(engine: Engine) -> None:
    given = request("x", "hello", 9, forcing("a", engine), stop=("aaa",))
    reply = run(engine, [given])["x"]
    assert (reply.finish, reply.text, len(reply.tokens)) == (FinishReason.STOP, "", 3)
    kept = run(engine, [replace(given, trim_stop=False)])["x"]
    assert (kept.finish, kept.text) == (FinishReason.STOP, "aaa")
    short = run(engine, [replace(given, max_tokens=2)])["x"]
    assert (short.finish, short.text) == (FinishReason.LENGTH, "aa")


@pytest.mark.parametrize("steps", range(8))
def test_abort_at_any_step(tiny_model: Path, steps: int) -> None:
    engine = load(tiny_model, token_budget=16, max_sequences=2)
    replies = {name: Reply() for name in "abc"}
    # b reads its prompt for five steps, c waits for all of them
    engine.add(engine.prepare(request("a", [5] * 20, 40, ignore_eos=True)))
    engine.add(engine.prepare(request("b", [6] * 60, 40, ignore_eos=True, stop=("zz",))))
    engine.add(engine.prepare(request("c", [7] * 3, 2, ignore_eos=True)))
    for _ in range(steps):
        step(engine, replies)
    for name in "cb":
        engine.abort(name)
        engine.check_integrity()
    drain(engine, replies)
    assert [replies[name].finish for name in "bc"] == [FinishReason.ABORT] * 2
    assert (replies["a"].finish, len(replies["a"].tokens)) == (FinishReason.LENGTH, 40)
    assert engine.snapshot().requests_aborted == 2
    assert engine.snapshot().requests_finished == 1


@pytest.mark.parametrize("steps", range(5))
def test_requests_of_one_call_are_aborted_each_for_itself(tiny_model: Path, steps: int) -> None:
    """They begin with the same blocks, and more of them come than may run at once."""
    engine = load(tiny_model, token_budget=32, max_sequences=2)
    sampling = SamplingParams(temperature=1.5, seed=3)
    given = [request(str(n), [5] * 50, 30, replace(sampling, seed=n), ignore_eos=True) for n in range(1, 5)]
    expected = run(load(tiny_model), given)["3"]
    replies = {one.request_id: Reply() for one in given}
    for one in given:
        engine.add(engine.prepare(one))
    for _ in range(steps):
        step(engine, replies)
    for name in "124":
        engine.abort(name)
        engine.check_integrity()
    drain(engine, replies)
    assert [replies[name].finish for name in "124"] == [FinishReason.ABORT] * 3
    assert replies["3"].tokens == expected.tokens
    assert engine.snapshot().requests_aborted == 3
    for name in replies:
        with pytest.raises(KeyError):
            engine._sampler.seed(name)


def test_a_preempted_request_that_is_aborted_has_what_it_made(tiny_model: Path) -> None:
    requests = [request(name, [ord(name)] * 60, 120, ignore_eos=True) for name in "abc"]
    expected = run(load(tiny_model), requests)
    engine = load(tiny_model, kv_tokens=16 * 17)
    replies = {one.request_id: Reply() for one in requests}
    for one in requests:
        engine.add(engine.prepare(one))
    while not engine.snapshot().preemptions:
        step(engine, replies)
    (waiting,) = engine._scheduler.waiting
    made = waiting.generated
    assert made > 0
    engine.abort(waiting.id)
    engine.check_integrity()
    assert engine.snapshot().waiting == 0
    drain(engine, replies)
    for name, reply in replies.items():
        aborted = name == waiting.id
        assert reply.finish is (FinishReason.ABORT if aborted else FinishReason.LENGTH)
        assert reply.tokens == expected[name].tokens[: made if aborted else 120]
        assert reply.usage is not None
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (60, len(reply.tokens))


def test_usage_of_what_never_ran(engine: Engine) -> None:
    engine.add(engine.prepare(request("x", [5] * 100, 40)))
    engine.abort("x")
    (event,) = engine.step()
    assert event.usage == Usage(100, 0, seed=1)


def test_blocks_are_free_as_soon_as_abort_returns(engine: Engine) -> None:
    engine.add(engine.prepare(request("x", [5] * 100, 40)))
    engine.step()
    assert engine.snapshot().blocks_free < engine.snapshot().blocks_total
    engine.abort("x")
    assert engine.snapshot().blocks_free == engine.snapshot().blocks_total
    (event,) = engine.step()
    assert (event.request_id, event.finish) == ("x", FinishReason.ABORT)
    assert not engine.has_work


def test_aborting_what_is_unknown_or_over_is_nothing(engine: Engine) -> None:
    run(engine, [request("x", "hello", 2)])
    engine.abort("x")
    engine.abort("never")
    assert not engine.has_work
    assert engine.step() == []


def test_held_back_text_comes_with_the_abort(engine: Engine) -> None:
    replies = {"x": Reply()}
    engine.add(engine.prepare(request("x", "hello", 9, forcing("a", engine), stop=("aab",))))
    for _ in range(4):
        step(engine, replies)
    # what is held back is its text and its tokens alike
    assert (replies["x"].text, len(replies["x"].tokens)) == ("aa", 2)
    engine.abort("x")
    drain(engine, replies)
    assert replies["x"].text == "aaaa"


def test_the_same_id_may_come_again(engine: Engine) -> None:
    first = run(engine, [request("x", "hello", 5)])["x"]
    assert run(engine, [request("x", "hello", 5)])["x"].tokens == first.tokens


def test_an_id_may_not_come_twice_at_once(engine: Engine) -> None:
    engine.add(engine.prepare(request("x", "hello", 5)))
    with pytest.raises(AssertionError, match="unique"):
        engine.add(engine.prepare(request("x", "hello", 5)))
    engine.abort("x")
    engine.step()


def test_a_drawn_seed_is_told_and_repeats_the_reply(engine: Engine) -> None:
    free = SamplingParams(temperature=1.5, seed=None)
    reply = run(engine, [request("x", "hello", 12, free, ignore_eos=True)])["x"]
    assert reply.usage is not None
    fixed = replace(free, seed=reply.usage.seed)
    again = run(engine, [request("y", "hello", 12, fixed, ignore_eos=True)])["y"]
    assert again.tokens == reply.tokens


def test_the_smallest_context(tiny_model: Path) -> None:
    engine = load(tiny_model, context_length=2, max_sequences=1, token_budget=1, block_size=1, kv_tokens=2)
    reply = run(engine, [request("x", "hello world", 50, ignore_eos=True)])["x"]
    assert (len(reply.tokens), reply.finish) == (1, FinishReason.LENGTH)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),  # whose prefix
            st.integers(0, 50),  # prompt beyond it
            st.integers(-1, 20),  # max_tokens
            st.integers(0, 6),  # steps before the next arrives
            st.none() | st.integers(0, 8),  # whom to abort then
        ),
        min_size=1,
        max_size=9,
    ),
    st.integers(4, 40),
)
def test_soak(soaked: Engine, work: list[tuple[int, int, int, int, int | None]], budget: int) -> None:
    soaked._scheduler.token_budget = budget
    replies: dict[str, Reply] = {}
    limits: dict[str, int] = {}
    for number, (family, length, max_tokens, steps, victim) in enumerate(work):
        name = str(number)
        ids = [family + 3] * 20 * (family % 2) + list(range(10, 10 + length))
        sampling = SamplingParams(temperature=1.2, top_k=50, seed=number)
        prepared = soaked.prepare(request(name, ids, max_tokens, sampling, stop=("e", "th")))
        replies[name], limits[name] = Reply(), prepared.max_tokens
        soaked.add(prepared)
        for _ in range(steps):
            step(soaked, replies)
        if victim is not None:
            soaked.abort(str(victim))
            soaked.check_integrity()
    drain(soaked, replies)
    for name, reply in replies.items():
        assert reply.finish is not None
        assert len(reply.tokens) <= max(0, limits[name])
        if reply.finish is FinishReason.LENGTH:
            assert len(reply.tokens) == max(0, limits[name])


@pytest.fixture(scope="module")
def soaked(tiny_model: Path) -> Engine:
    """One cache for all examples, hardly larger than one context."""
    return load(tiny_model, context_length=96, kv_tokens=112, max_sequences=4, block_size=8)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"context_length": 256, "kv_tokens": 128}, "cannot hold a context of 256"),
        ({"context_length": 2**40}, "KV cache .* needs .* GiB"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"device": "meta"}, "unsupported device 'meta'"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"kernels": "magic"}, "no kernels 'magic' on cpu; there are: .*reference"),
        ({"context_length": 0}, "context_length must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"token_budget": 8, "max_sequences": 9}, "token_budget"),
    ],
)
def test_settings_that_cannot_be(tiny_model: Path, others: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tiny_model, **others)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match=r"x\.gguf"):
        load(tmp_path / "x.gguf")


def test_info(tiny_model: Path) -> None:
    info = load(tiny_model).info
    assert (info.name, info.architecture, info.quantization) == ("tiny", "llama", "Q4_1")
    assert (info.context_length, info.trained_context_length) == (256, 2048)
    assert (info.bos_token, info.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert load(tiny_model, context_length=None).info.context_length == 2048


def test_a_batch_lays_the_chunks_of_a_plan_end_to_end(tiny_model: Path) -> None:
    engine = load(tiny_model)
    for name, ids in (("a", [6, 7]), ("b", [5] * 20)):
        engine.add(engine.prepare(request(name, ids, 4)))
    plan = engine._scheduler.plan()
    batch = BatchBuilder(16, torch.device("cpu")).build(plan)
    assert batch.token_ids.tolist() == [6, 7] + [5] * 20
    assert batch.positions.tolist() == [0, 1, *range(20)]
    assert batch.logit_rows.tolist() == [1, 21]
    assert [(span.start, span.stop) for span in batch.spans] == [(0, 2), (2, 22)]
    first, second = (chunk.sequence.block_table for chunk in plan)
    expected = [second[0] * 16 + i for i in range(16)] + [second[1] * 16 + i for i in range(4)]
    assert batch.slots.tolist() == [first[0] * 16, first[0] * 16 + 1, *expected]
    assert torch.equal(batch.spans[1].context_slots, batch.slots[2:])
