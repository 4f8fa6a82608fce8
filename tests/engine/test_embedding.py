"""Vectors of texts: against the definition, in chunks, beside generations."""

import itertools
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.embedding import Embedding, EmbeddingRequest, Pooling
from engine.embedding_queue import EmbeddingQueue, fit_embedding
from engine.engine import Engine
from engine.errors import EngineDeadError, RequestError
from engine.types import Event, FinishReason
from engine.worker import EngineWorker
from tests.engine.driving import Reply, drain, request, run, step
from tests.engine.models.numpy_llama import NumpyLlama
from tests.support.gguf_files import write_llama
from tests.support.kernels import ALL, FASTEST_AND_REFERENCE
from tests.support.stars import write_star_model

SECONDS = 30.0
POOLINGS: tuple[Pooling, ...] = ("mean", "last")
ROUNDING = 1e-5
"""Without native kernels a row's bits depend on the shape of its batch."""


def load(path: Path, **others: Any) -> Engine:
    fields: dict[str, Any] = {"context_length": 256, "device": "cpu", "threads": 1}
    return Engine.load(EngineConfig(path, **fields | others))


def ids(length: int, seed: int = 1) -> tuple[int, ...]:
    rng = Random(seed)
    return tuple(rng.randrange(3, 250) for _ in range(length))


def vector(embedding: Embedding) -> npt.NDArray[np.float32]:
    assert embedding.vector is not None
    return np.frombuffer(embedding.vector, "<f4")


def same(found: Embedding, expected: Embedding, kernels: str = ALL[0]) -> None:
    """To the bit, where the kernels promise it."""
    tolerance = ROUNDING if kernels == "reference" else 0
    np.testing.assert_allclose(vector(found), vector(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kernels", ALL)
def test_a_vector_is_that_of_the_definition(kernels: str, pooling: Pooling, tmp_path: Path) -> None:
    path = write_llama(tmp_path / "model.gguf", type="F32")
    tokens = list(ids(30))
    found = vector(load(path, kernels=kernels).embed(tokens, pooling))
    reference = NumpyLlama(path)
    # with this output matrix its logits are the hidden states
    reference.weights["output.weight"] = np.eye(64)
    states = reference.logits(tokens)
    expected = states.mean(0) if pooling == "mean" else states[-1]
    expected /= np.linalg.norm(expected)
    assert found.dtype == np.float32
    assert float(np.linalg.norm(found)) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found, expected, atol=ROUNDING if kernels == "reference" else 5e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kernels", FASTEST_AND_REFERENCE)
@pytest.mark.parametrize("budget", [16, 37, 199])
def test_chunks_give_what_the_whole_gives(
    tiny_model: Path, budget: int, kernels: str, pooling: Pooling
) -> None:
    whole = load(tiny_model, kernels=kernels).embed(list(ids(200)), pooling)
    cut = load(tiny_model, kernels=kernels, token_budget=budget).embed(list(ids(200)), pooling)
    same(cut, whole, kernels)


@pytest.fixture(scope="module")
def shared(tiny_model: Path) -> Engine:
    return load(tiny_model, token_budget=32)


@pytest.fixture
def engine(shared: Engine) -> Iterator[Engine]:
    yield shared
    drain(shared, {})
    assert shared.take_embeddings() == []


def add(engine: Engine, name: str, tokens: tuple[int, ...], pooling: Pooling = "mean") -> None:
    engine.add_embedding(engine.prepare_embedding(EmbeddingRequest(name, tokens, pooling)))


def serve(engine: Engine, replies: dict[str, Reply]) -> dict[str, Embedding]:
    """Step until nothing is left to do, checking the books."""
    found: dict[str, Embedding] = {}
    while engine.has_work:
        step(engine, replies)
        found |= {embedding.request_id: embedding for embedding in engine.take_embeddings()}
    snapshot = engine.snapshot()
    assert snapshot.blocks_free == snapshot.blocks_total
    return found


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_the_cache_holds_changes_nothing(engine: Engine, pooling: Pooling) -> None:
    tokens = ids(100, seed=2)
    first = engine.embed(list(tokens), pooling)
    before = engine.snapshot()
    run(engine, [request("x", tokens, 3)])
    assert engine.embed(list(tokens), pooling).vector == first.vector
    after = engine.snapshot()
    assert after.embedding_tokens_computed - before.embedding_tokens_computed == 100
    # but a generation may begin with what an embedding has computed
    assert after.prompt_tokens_cached - before.prompt_tokens_cached == 96


def test_beside_generations_nothing_changes(engine: Engine, tiny_model: Path) -> None:
    inputs = {f"e{number}": ids(5 + 40 * number, seed=number) for number in range(4)}
    generations = [request(f"g{n}", ids(10 + n, seed=50 + n), 40, ignore_eos=True) for n in range(3)]
    expected = run(load(tiny_model), generations)
    alone = {name: engine.embed(list(tokens)) for name, tokens in inputs.items()}
    replies = {one.request_id: Reply() for one in generations}
    for one in generations:
        engine.add(engine.prepare(one))
    step(engine, replies)
    for name, tokens in inputs.items():
        add(engine, name, tokens)
    found = serve(engine, replies)
    assert list(found) == list(inputs)
    for name, embedding in found.items():
        same(embedding, alone[name])
        assert embedding.prompt_tokens == len(inputs[name])
    for name, reply in replies.items():
        assert reply.tokens == expected[name].tokens


def test_running_generations_go_on_in_every_step(engine: Engine) -> None:
    replies = {"g": Reply()}
    engine.add(engine.prepare(request("g", ids(5), 12, ignore_eos=True)))
    step(engine, replies)
    add(engine, "e", ids(250))
    for made in range(2, 8):
        step(engine, replies)
        assert len(replies["g"].tokens) == made
    assert list(serve(engine, replies)) == ["e"]


def test_a_long_queue_of_inputs_holds_no_generation_up(engine: Engine) -> None:
    for number in range(40):
        add(engine, str(number), ids(32, seed=number))
    replies = {"g": Reply()}
    engine.step()
    engine.add(engine.prepare(request("g", ids(5), 2, ignore_eos=True)))
    for _ in range(5):
        step(engine, replies)
    assert replies["g"].finish is FinishReason.LENGTH
    assert list(serve(engine, replies)) == [str(number) for number in range(40)]


def test_an_input_that_must_give_way_begins_again(tiny_model: Path) -> None:
    engine = load(tiny_model, kv_tokens=256, token_budget=17)
    roomy = load(tiny_model)
    for pooling in POOLINGS:
        before = engine.snapshot()
        replies = {"g": Reply()}
        engine.add(engine.prepare(request("g", ids(20, seed=3), 70, ignore_eos=True)))
        for _ in range(20):
            step(engine, replies)
        # there is room for it until the running generation grows, long before it is through
        add(engine, "e", ids(200), pooling)
        same(serve(engine, replies)["e"], roomy.embed(list(ids(200)), pooling))
        after = engine.snapshot()
        assert after.preemptions > before.preemptions
        assert after.embedding_tokens_computed - before.embedding_tokens_computed > 200


def test_an_input_keeps_the_theta_that_it_began_with(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base.gguf", context_length=256)
    path, _ = write_star_model(tmp_path / "star.gguf", base)
    engine = load(path, token_budget=32)
    with_theta = engine.embed(list(ids(100)))
    without = load(base).embed(list(ids(100)))
    assert np.abs(vector(without) - vector(with_theta)).max() > 100 * ROUNDING
    add(engine, "e", ids(100))
    add(engine, "f", ids(100))
    engine.step()
    engine.set_theta(enabled=False)
    found = serve(engine, {})
    same(found["e"], with_theta)
    same(found["f"], without)


@pytest.mark.parametrize("steps", range(5))
def test_abort(engine: Engine, steps: int) -> None:
    add(engine, "a", ids(60))
    add(engine, "b", ids(60, seed=2))
    add(engine, "c", ids(3))
    for _ in range(steps):
        step(engine, {})
    for name in ("b", "a", "a", "never"):
        engine.abort(name)
        engine.check_integrity()
    assert engine.snapshot().blocks_free == engine.snapshot().blocks_total
    found = serve(engine, {})
    # two steps each
    assert {name for name, one in found.items() if one.vector is None} == {"a", "b"} - set("ab"[: steps // 2])
    assert found["c"].vector == engine.embed(list(ids(3))).vector


def test_an_input_that_gave_way_is_aborted(tiny_model: Path) -> None:
    engine = load(tiny_model, kv_tokens=256, token_budget=48)
    replies = {"g": Reply()}
    engine.add(engine.prepare(request("g", ids(20, seed=3), 70, ignore_eos=True)))
    # The input fits beside the 62 tokens of the reply, which needs another block three steps later.
    while len(replies["g"].tokens) < 42:
        step(engine, replies)
    add(engine, "e", ids(190))
    add(engine, "next", ids(9))
    while not engine.snapshot().preemptions:
        assert engine.has_work, "both cannot have ended in these blocks"
        step(engine, replies)
    assert engine.snapshot().waiting == 1
    engine.abort("e")
    assert engine.snapshot().waiting == 0
    found = serve(engine, replies)
    assert found["e"] == Embedding("e", 190, None)
    assert found["next"].vector is not None
    assert len(replies["g"].tokens) == 70


def test_an_abort_of_a_generation_leaves_the_input_alone(engine: Engine) -> None:
    replies = {"g": Reply()}
    add(engine, "e", ids(60))
    engine.add(engine.prepare(request("g", ids(5), 12, ignore_eos=True)))
    step(engine, replies)
    engine.abort("g")
    found = serve(engine, replies)
    assert replies["g"].finish is FinishReason.ABORT
    assert found["e"].vector == engine.embed(list(ids(60))).vector


def test_an_id_may_not_come_twice_at_once(engine: Engine) -> None:
    for name in ("first", "second"):
        add(engine, name, ids(3))
        with pytest.raises(AssertionError, match="unique"):
            add(engine, name, ids(3))
        with pytest.raises(AssertionError, match="unique"):
            engine.add(engine.prepare(request(name, ids(3))))
    assert list(serve(engine, {})) == ["first", "second"]


def test_inputs_are_cut_or_refused_as_they_say(engine: Engine) -> None:
    given = EmbeddingRequest("x", ids(300))
    assert engine.prepare_embedding(given) == replace(given, ids=given.ids[:256])
    assert engine.prepare_embedding(replace(given, ids=ids(256), truncate=False)).ids == ids(256)
    with pytest.raises(RequestError, match="300 tokens, the context 256"):
        engine.prepare_embedding(replace(given, truncate=False))
    add(engine, "x", given.ids)
    assert serve(engine, {})["x"].prompt_tokens == 256


@pytest.mark.parametrize(
    ("tokens", "message"),
    [((), "no tokens"), ((5, 100), "between 0 and 99"), ((-1,), "between 0 and 99")],
)
def test_inputs_that_cannot_be(tokens: tuple[int, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fit_embedding(EmbeddingRequest("x", tokens), context_length=10, vocab_size=100)


def pooled(states: npt.NDArray[np.float32], cuts: list[int], pooling: Pooling) -> Embedding:
    """What the queue makes of the hidden states of one input, given to it in chunks."""
    queue = EmbeddingQueue()
    queue.add(EmbeddingRequest("x", tuple(range(len(states))), pooling))
    assert queue.start() is not None
    bounds = sorted({0, len(states), *(cut % len(states) for cut in cuts)})
    for start, stop in itertools.pairwise(bounds):
        wanted = queue.rows(start, stop - start)
        queue.pool(start, states[start:stop][wanted.start : wanted.stop])
    queue.finish()
    (embedding,) = queue.take_ended()
    assert not queue.has_work
    return embedding


@given(
    st.integers(1, 50),
    st.lists(st.integers(0, 1000), max_size=6),
    st.sampled_from(POOLINGS),
    st.integers(0, 100),
)
def test_cuts_do_not_matter(length: int, cuts: list[int], pooling: Pooling, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-6, 7, (length, 1))
    states = (rng.normal(size=(length, 8)) * scales).astype(np.float32)
    whole = pooled(states, [], pooling)
    assert pooled(states, cuts, pooling) == whole
    expected = states.astype(np.float64).mean(0) if pooling == "mean" else states[-1].astype(np.float64)
    np.testing.assert_allclose(vector(whole), expected / np.linalg.norm(expected), atol=1e-7)


@pytest.mark.parametrize("left", [1, 2])
def test_a_chunk_in_front_of_the_last_token_has_nothing_to_pool(left: int) -> None:
    queue = EmbeddingQueue()
    queue.add(EmbeddingRequest("x", ids(50), "last"))
    queue.start()
    assert list(queue.rows(20, 30 - left)) == []
    assert list(queue.rows(50 - left, left)) == [left - 1]


def test_states_without_a_direction_or_without_end() -> None:
    assert vector(pooled(np.zeros((3, 4), np.float32), [1], "mean")).tolist() == [0] * 4
    failed = pooled(np.full((3, 4), np.inf, np.float32), [1], "mean")
    assert failed.vector is None
    assert failed.error is not None
    assert "not finite" in failed.error


def test_messages_may_be_pickled() -> None:
    for message in (EmbeddingRequest("x", (1, 2)), Embedding("x", 2, b"\0\0\0\0")):
        assert pickle.loads(pickle.dumps(message)) == message


@pytest.fixture
def worker(tiny_model: Path) -> Iterator[EngineWorker]:
    worker = EngineWorker(load(tiny_model, context_length=1024))
    yield worker
    worker.close()


def submit(worker: EngineWorker, name: str, tokens: tuple[int, ...]) -> "Queue[Embedding]":
    answers: Queue[Embedding] = Queue()
    worker.submit_embedding(worker.prepare_embedding(EmbeddingRequest(name, tokens)), answers.put)
    return answers


def test_the_worker_answers_each_once(worker: EngineWorker, tiny_model: Path) -> None:
    answers = [submit(worker, str(number), ids(20 + number, number)) for number in range(8)]
    engine = load(tiny_model)
    for number, queue in enumerate(answers):
        same(queue.get(timeout=SECONDS), engine.embed(list(ids(20 + number, number))))
    assert all(queue.empty() for queue in answers)
    assert worker.snapshot().blocks_free == worker.snapshot().blocks_total


def test_the_worker_aborts(worker: EngineWorker) -> None:
    events: Queue[Event] = Queue()
    worker.submit(worker.prepare(request("g", ids(5), 1000, ignore_eos=True)), events.put)
    first, second = submit(worker, "first", ids(1000)), submit(worker, "second", ids(1000))
    worker.abort("second")
    assert second.get(timeout=SECONDS) == Embedding("second", 1000, None)
    worker.abort("g")
    assert first.get(timeout=SECONDS).vector is not None


def test_a_listener_that_fails_does_not_harm_the_others(
    worker: EngineWorker, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(embedding: Embedding) -> None:
        raise RuntimeError("Event loop is closed")

    worker.submit_embedding(worker.prepare_embedding(EmbeddingRequest("broken", ids(5))), broken)
    assert submit(worker, "x", ids(5)).get(timeout=SECONDS).vector is not None
    assert "request broken: its listener failed" in caplog.text


class BlockedEngine(Engine):
    """Fails in its second step, which it delays until it is told to go on."""

    steps = 0
    goes_on: threading.Event

    def step(self) -> list[Event]:
        self.steps += 1
        if self.steps == 2:
            self.goes_on.wait(SECONDS)
            raise MemoryError("out of device memory")
        return super().step()


def test_a_dying_engine_tells_everybody(tiny_model: Path) -> None:
    config = EngineConfig(tiny_model, context_length=1024, device="cpu", threads=1)
    engine = BlockedEngine.load(config)
    engine.goes_on = threading.Event()
    worker = EngineWorker(engine)
    answers = [submit(worker, str(number), ids(1000)) for number in range(3)]
    engine.goes_on.set()
    for number, queue in enumerate(answers):
        expected = Embedding(str(number), 0, None, "the engine has failed: out of device memory")
        assert queue.get(timeout=SECONDS) == expected
    with pytest.raises(EngineDeadError, match="out of device memory"):
        submit(worker, "late", ids(5))
    worker.close()


def test_a_sequence_knows_who_asks() -> None:
    queue = EmbeddingQueue()
    queue.add(EmbeddingRequest("e", (1, 2), client="somebody"))
    started = queue.start()
    assert started is not None
    assert started.client == "somebody"
