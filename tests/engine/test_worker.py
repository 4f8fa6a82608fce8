import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import pytest

from engine.config import EngineConfig
from engine.embedding import Embedding, EmbeddingRequest
from engine.engine import Engine
from engine.errors import EngineDeadError, ModelFileError, RequestError
from engine.types import Event, FinishReason, GenerationRequest, TokenPrompt
from engine.worker import EngineWorker
from tests.engine.driving import request, run

SECONDS = 30.0


class Listener:
    """Collects the events of one request, as a server would."""

    def __init__(self) -> None:
        self._queue: Queue[Event] = Queue()
        self.threads: set[str] = set()

    def __call__(self, event: Event) -> None:
        self.threads.add(threading.current_thread().name)
        self._queue.put(event)

    def next(self) -> Event:
        return self._queue.get(timeout=SECONDS)

    def all(self) -> list[Event]:
        events = [self.next()]
        while events[-1].finish is None:
            events.append(self.next())
        return events

    @property
    def silent(self) -> bool:
        return self._queue.empty()


def config(path: Path) -> EngineConfig:
    return EngineConfig(path, context_length=1024, device="cpu", threads=1)


@pytest.fixture
def worker(tiny_model: Path) -> Iterator[EngineWorker]:
    worker = EngineWorker.start(config(tiny_model))
    yield worker
    worker.close()


def submit(worker: EngineWorker, given: GenerationRequest) -> Listener:
    listener = Listener()
    worker.submit(worker.prepare(given), listener)
    return listener


def endless(name: str) -> GenerationRequest:
    """A request that is still running when a test comes back to it."""
    return request(name, [5, 6, 7], 1000, ignore_eos=True)


def test_events_come_in_order_from_the_engines_thread(worker: EngineWorker, tiny_model: Path) -> None:
    given = request("x", "hello world", 20, ignore_eos=True)
    expected = run(Engine.load(config(tiny_model)), [given])["x"]
    listener = submit(worker, given)
    events = listener.all()
    assert [token for event in events for token in event.token_ids] == expected.tokens
    assert "".join(event.text for event in events) == expected.text
    assert events[-1].finish is FinishReason.LENGTH
    assert listener.silent
    assert listener.threads == {"engine"}


def test_many_listeners_from_many_threads(worker: EngineWorker, tiny_model: Path) -> None:
    requests = [request(str(n), [n + 3] * (n + 1), 8, ignore_eos=True) for n in range(12)]
    expected = run(Engine.load(config(tiny_model)), requests)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda one: submit(worker, one).all(), requests))
    for one, events in zip(requests, found, strict=True):
        assert {event.request_id for event in events} == {one.request_id}
        tokens = [token for event in events for token in event.token_ids]
        assert tokens == expected[one.request_id].tokens


def test_who_hears_the_end_finds_the_blocks_free(worker: EngineWorker) -> None:
    for number in range(5):
        submit(worker, request(str(number), [5] * 40, 3)).all()
        snapshot = worker.snapshot()
        assert snapshot.blocks_free == snapshot.blocks_total
        assert snapshot.requests_finished == number + 1
        assert snapshot.running == snapshot.waiting == 0


def test_abort(worker: EngineWorker) -> None:
    listener, other = submit(worker, endless("x")), submit(worker, request("y", [9], 30, ignore_eos=True))
    assert listener.next().finish is None
    worker.abort("x")
    assert listener.all()[-1].finish is FinishReason.ABORT
    assert other.all()[-1].finish is FinishReason.LENGTH
    worker.abort("x")
    worker.abort("never heard of")
    assert submit(worker, request("z", [9], 2)).all()[-1].finish is not None


class HeldEngine(Engine):
    """Begins a step only when it may."""

    stepping: threading.Event
    may_step: threading.Event

    def step(self) -> list[Event]:
        self.stepping.set()
        assert self.may_step.wait(SECONDS)
        return super().step()


@pytest.fixture
def held(tiny_model: Path) -> Iterator[tuple[EngineWorker, HeldEngine]]:
    """A worker whose engine holds on in its first step, with a request under way."""
    engine = HeldEngine.load(config(tiny_model))
    engine.stepping, engine.may_step = threading.Event(), threading.Event()
    worker = EngineWorker(engine)
    yield worker, engine
    engine.may_step.set()
    worker.close()


def test_what_is_aborted_before_it_is_taken_in_is_answered_and_never_runs(
    held: tuple[EngineWorker, HeldEngine],
) -> None:
    worker, engine = held
    other = submit(worker, request("other", [9], 3, ignore_eos=True))
    assert engine.stepping.wait(SECONDS)
    call = [submit(worker, request(str(number), [5] * 50, 3)) for number in range(3)]
    for number in range(3):
        worker.abort(str(number))
    after = submit(worker, request("after", [7], 2, ignore_eos=True))
    engine.may_step.set()
    for number, listener in enumerate(call):
        (event,) = listener.all()
        assert (event.request_id, event.finish, event.token_ids) == (str(number), FinishReason.ABORT, ())
        assert event.usage is not None
        assert event.usage.completion_tokens == 0
    assert other.all()[-1].finish is after.all()[-1].finish is FinishReason.LENGTH
    assert all(listener.silent for listener in call)
    assert worker.snapshot().prompt_tokens_computed == 2
    assert worker.snapshot().requests_aborted == 3


def test_an_abort_that_comes_before_its_request_is_none(worker: EngineWorker) -> None:
    prepared = worker.prepare(request("x", [5], 3, ignore_eos=True))
    worker.abort("x")
    listener = Listener()
    worker.submit(prepared, listener)
    assert listener.all()[-1].finish is FinishReason.LENGTH


def test_an_input_that_is_aborted_before_it_is_taken_in_is_answered_and_never_runs(
    held: tuple[EngineWorker, HeldEngine],
) -> None:
    worker, engine = held
    other = submit(worker, request("other", [9], 3, ignore_eos=True))
    assert engine.stepping.wait(SECONDS)
    answers: Queue[Embedding] = Queue()
    worker.submit_embedding(worker.prepare_embedding(EmbeddingRequest("e", (5,) * 50)), answers.put)
    worker.abort("e")
    engine.may_step.set()
    assert answers.get(timeout=SECONDS) == Embedding("e", 50, None)
    other.all()
    assert answers.empty()
    assert worker.snapshot().embedding_tokens_computed == 0


def test_close_tells_nothing_to_those_that_have_ended(worker: EngineWorker) -> None:
    ended = submit(worker, request("x", [5], 2))
    ended.all()
    worker.close()
    assert ended.silent


def test_close_tells_those_under_way_and_those_after(worker: EngineWorker) -> None:
    listeners = [submit(worker, endless(str(number))) for number in range(3)]
    listeners[0].next()
    worker.close()
    for listener in listeners:
        last = listener.all()[-1]
        assert last.finish is FinishReason.ERROR
        assert last.error is not None
        assert "shutting down" in last.error
        assert last.usage is not None
        assert listener.silent
    with pytest.raises(EngineDeadError, match="shutting down"):
        submit(worker, request("late", "hello"))
    worker.abort("late")
    worker.close()


def test_submissions_that_race_with_close_are_answered_one_way_or_the_other(worker: EngineWorker) -> None:
    listeners: list[Listener] = []
    refused = threading.Event()

    def keep_submitting() -> None:
        for number in itertools.count():
            try:
                listeners.append(submit(worker, request(str(number), [5], 2)))
            except EngineDeadError:
                refused.set()
                return

    thread = threading.Thread(target=keep_submitting)
    thread.start()
    time.sleep(0.1)
    worker.close()
    thread.join(SECONDS)
    assert refused.is_set()
    assert listeners
    for listener in listeners:
        assert listener.all()[-1].finish is not None


class FailingEngine(Engine):
    """Breaks in its third step."""

    steps = 0

    def step(self) -> list[Event]:
        self.steps += 1
        if self.steps == 3:
            raise MemoryError("out of device memory")
        return super().step()


def test_a_dying_engine_tells_everybody(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    worker = EngineWorker(FailingEngine.load(config(tiny_model)))
    listeners = [submit(worker, endless(str(number))) for number in range(2)]
    for listener in listeners:
        last = listener.all()[-1]
        assert (last.finish, last.error) == (
            FinishReason.ERROR,
            "the engine has failed: out of device memory",
        )
    with pytest.raises(EngineDeadError, match="out of device memory"):
        submit(worker, request("late", "hello"))
    worker.close()
    assert "the engine has failed" in caplog.text


def test_a_dying_engine_tells_those_that_it_has_not_taken_yet(tiny_model: Path) -> None:
    stepping, may_fail = threading.Event(), threading.Event()

    class HeldEngine(Engine):
        def step(self) -> list[Event]:
            stepping.set()
            may_fail.wait(SECONDS)
            raise MemoryError("out of device memory")

    worker = EngineWorker(HeldEngine.load(config(tiny_model)))
    taken = submit(worker, endless("taken"))
    assert stepping.wait(SECONDS)
    waiting = submit(worker, endless("waiting"))
    may_fail.set()
    for listener in (taken, waiting):
        assert listener.all()[-1].error == "the engine has failed: out of device memory"
    worker.close()


def test_a_request_id_that_is_taken_does_not_go_unnoticed(worker: EngineWorker) -> None:
    """Breaking the rule that ids are unique is a defect of the caller; still nobody waits for ever."""
    first, second = submit(worker, endless("x")), submit(worker, endless("x"))
    assert second.all()[-1].finish is FinishReason.ERROR
    assert not first.threads or first.next() is not None


def test_a_listener_that_fails_does_not_harm_the_others(
    worker: EngineWorker, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("Event loop is closed")

    worker.submit(worker.prepare(request("broken", [5], 10, ignore_eos=True)), broken)
    assert submit(worker, request("x", [6], 20, ignore_eos=True)).all()[-1].finish is FinishReason.LENGTH
    assert "request broken: its listener failed" in caplog.text
    assert submit(worker, request("broken", [6], 2, ignore_eos=True)).all()[-1].finish is FinishReason.LENGTH


def test_the_callers_thread_prepares_and_gets_its_errors(worker: EngineWorker) -> None:
    with pytest.raises(RequestError):
        worker.prepare(request("x", [10**6]))
    assert worker.prepare(request("x", "hello")).prompt == TokenPrompt(tuple(worker.encode("hello")))
    assert worker.decode(worker.encode("hello world")) == "hello world"
    assert worker.info.name == "tiny"


def test_a_bad_file_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        EngineWorker.start(config(tmp_path / "missing.gguf"))
