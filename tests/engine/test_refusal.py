"""A request whose grammar takes too much ends with an error of its own, and nobody else notices."""

from pathlib import Path

from engine.config import EngineConfig
from engine.engine import Engine
from engine.types import Event, FinishReason, GbnfGrammar
from tests.engine.driving import Reply, request, run
from tests.engine.grammar.ambiguous import AMBIGUOUS


def test_an_expensive_grammar_ends_its_request_alone(tiny_model: Path) -> None:
    engine = Engine.load(EngineConfig(tiny_model, context_length=256, device="cpu", threads=1))
    others = [
        request("plain", "hello", 40, ignore_eos=True),
        request("bound", "hello", 40, grammar=GbnfGrammar("root ::= [a-z ]+")),
    ]
    expected = run(engine, others)
    replies = {name: Reply() for name in ("plain", "bound")}
    costly = request("costly", "hello", 40, grammar=GbnfGrammar(AMBIGUOUS), ban_eos=True)
    for one in [costly, *others]:
        engine.add(engine.prepare(one))
    last: Event | None = None
    while engine.has_work:
        for event in engine.step():
            if event.request_id == "costly":
                last = event
            else:
                replies[event.request_id].text += event.text
                assert not event.refused
        engine.check_integrity()
    assert last is not None
    assert (last.finish, last.refused) == (FinishReason.ERROR, True)
    assert "too ambiguous" in str(last.error)
    assert "\n" not in str(last.error)
    for name, reply in replies.items():
        assert reply.text == expected[name].text
    assert engine.snapshot().requests_finished == 5
