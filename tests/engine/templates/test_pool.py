"""Several who render at once, and what they hear of each other."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.errors import BusyError, EngineDeadError, NkatError, TemplateCostError
from engine.templates.limits import Limits
from engine.templates.pool import TemplatePool
from engine.tokenizer import ChatTemplate
from tests.engine.templates.rendering import ENDLESS, MESSAGES, gone, using, wait_for

HASTY = Limits(cpu_seconds=0.1, memory=256 << 20)
SHORT = "{{ messages[0].content }}"
HUNGRY = (
    "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}"
    "{% set ns.l = [ns.l, range(9999) | list] %}{% endfor %}"
)


@contextmanager
def rendering(pool: TemplatePool, source: str) -> Iterator[list[NkatError]]:
    """A thread that renders, until its process is seen to compute; then what it raised."""
    raised: list[NkatError] = []

    def render() -> None:
        try:
            ChatTemplate(source).render(MESSAGES, pool=pool)
        except NkatError as error:
            raised.append(error)

    before = set(pool.pids)
    thread = threading.Thread(target=render)
    thread.start()
    wait_for(lambda: any(using(pid) > 0.5 for pid in set(pool.pids) - before))
    yield raised
    thread.join()


def test_others_render_beside_one_that_does_not_end() -> None:
    pool = TemplatePool(Limits(cpu_seconds=60))
    with rendering(pool, ENDLESS) as raised:
        for _ in range(3):
            assert ChatTemplate(SHORT).render(MESSAGES, pool=pool) == "hi"
        assert len(pool.pids) == 2
        assert raised == []
        pool.close()
    assert [type(error) for error in raised] == [EngineDeadError]


def test_who_waits_too_long_hears_that_there_is_no_room() -> None:
    pool = TemplatePool(Limits(cpu_seconds=60, wait_seconds=0.05))
    with rendering(pool, ENDLESS), rendering(pool, ENDLESS):
        pids = pool.pids
        assert len(pids) == 2
        with pytest.raises(BusyError, match="try again later"):
            ChatTemplate(SHORT).render(MESSAGES, pool=pool)
        pool.close()
    assert all(gone(pid) for pid in pids)


def test_who_waits_hears_of_the_end() -> None:
    pool = TemplatePool(Limits(cpu_seconds=60, processes=1, wait_seconds=60))
    heard: list[NkatError] = []

    def wait() -> None:
        try:
            ChatTemplate(SHORT).render(MESSAGES, pool=pool)
        except NkatError as error:
            heard.append(error)

    with rendering(pool, ENDLESS):
        waiting = threading.Thread(target=wait)
        waiting.start()
        pool.close()
        waiting.join()
    assert [type(error) for error in heard] == [EngineDeadError]


def test_who_waits_is_served_when_another_is_stopped() -> None:
    pool = TemplatePool(Limits(cpu_seconds=1, processes=1, wait_seconds=60))
    with rendering(pool, ENDLESS) as raised:
        assert ChatTemplate(SHORT).render(MESSAGES, pool=pool) == "hi"
    assert [type(error) for error in raised] == [TemplateCostError]
    pool.close()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (ENDLESS, r"takes longer than 0\.1 seconds of CPU time"),
        (HUNGRY, "takes more than 256 MiB of memory"),
    ],
    ids=["time", "memory"],
)
def test_a_stopped_process_is_replaced_and_logged_once(
    source: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    pool = TemplatePool(Limits(cpu_seconds=5, memory=256 << 20) if source == HUNGRY else HASTY)
    for _ in range(2):
        ChatTemplate(SHORT).render(MESSAGES, pool=pool)
        [pid] = pool.pids
        with caplog.at_level(logging.WARNING), pytest.raises(TemplateCostError, match=said):
            ChatTemplate(source).render(MESSAGES, pool=pool)
        assert gone(pid)
        assert len(pool.pids) == 1, "the next one starts at once"
    assert caplog.text.count("was stopped: it takes") == 1
    pool.close()


def test_many_at_once() -> None:
    pool = TemplatePool(Limits(wait_seconds=60))
    texts: list[str] = []

    def render(number: int) -> None:
        texts.append(ChatTemplate(SHORT).render([{"role": "user", "content": f"{number}"}], pool=pool))

    threads = [threading.Thread(target=render, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == sorted(f"{number}" for number in range(20))
    assert len(pool.pids) <= 2
    pool.close()


def test_short_renderings_share_a_process() -> None:
    """A second one takes longer to start than they take."""
    pool = TemplatePool(Limits(share_seconds=60, wait_seconds=60))
    ChatTemplate(SHORT).render(MESSAGES, pool=pool)
    pids = pool.pids
    threads = [
        threading.Thread(target=ChatTemplate(SHORT).render, args=(MESSAGES,), kwargs={"pool": pool})
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.pids == pids
    pool.close()


def test_a_process_has_no_memory_of_other_renderings() -> None:
    pool = TemplatePool(Limits(processes=1))
    source = "{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{% macro f() %}{% endmacro %}"
    for _ in range(2):
        assert ChatTemplate(source).render(MESSAGES, arguments={"x": 1}, pool=pool) == "1"
        assert ChatTemplate("{{ x is defined }}{{ f is defined }}").render(MESSAGES, pool=pool) == (
            "FalseFalse"
        )
    pool.close()


def test_a_huge_template_is_refused_before_anything(caplog: pytest.LogCaptureFixture) -> None:
    pool = TemplatePool()
    with pytest.raises(NkatError, match="is 8388608 characters long; at most 262144 are accepted"):
        ChatTemplate("{" * (8 << 20)).render(MESSAGES, pool=pool)
    assert pool.pids == []
