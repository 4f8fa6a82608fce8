import pytest
from hypothesis import given

from engine.types import Event, FinishReason, TokenLogprob, Usage
from server.chat.call import Tool
from server.chat.message import ContentDelta, Delta, Ended, Ending, Message, ReasoningDelta, ToolCallDelta
from server.chat.reasoning import HARMONY, THINK, Family
from server.chat.tools import formats
from server.chat.tools.format import ToolFormat
from server.chat.tools.parser import ToolCallParser
from server.chat.turn import TurnReader, collect
from tests.server.chat.cuttings import cuttings, of_words

USAGE = Usage(3, 5)
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def reader(
    family: Family = THINK,
    format: ToolFormat | None = None,
    *,
    split: bool = True,
    ends: tuple[str, ...] = (),
) -> TurnReader:
    splitter = family.splitter("", "", keep_tags=not split, tools=format is formats.HARMONY)
    parser = None if format is None else ToolCallParser(format, [Tool("f")])
    return TurnReader(splitter, parser, split_reasoning=split, hidden_ends=ends)


def read(
    turn: TurnReader, *texts: str, finish: FinishReason = FinishReason.EOS, usage: Usage | None = USAGE
) -> Message:
    deltas: list[Delta] = []
    for text in texts:
        deltas += turn.push(Event("1", text))
    deltas += turn.push(Event("1", finish=finish, usage=usage))
    return collect(deltas)


def logprob(token: int) -> TokenLogprob:
    return TokenLogprob(token, b"x", -0.5)


def test_thoughts_then_text_then_a_call() -> None:
    message = read(reader(format=formats.HERMES), f"<think>\nHm.\n</think>\n\nLet me look.\n{CALL}")
    [call] = message.tool_calls
    assert (message.reasoning, message.content) == ("Hm.", "Let me look.")
    assert (call.name, call.arguments) == ("f", '{"a": 1}')
    assert message.ending is Ending.TOOL_CALLS
    assert message.usage == USAGE


def test_a_call_in_a_thought_is_a_thought() -> None:
    message = read(reader(format=formats.HERMES), f"<think>{CALL}</think>No.")
    assert (message.reasoning, message.content, message.tool_calls) == (CALL, "No.", ())


def test_harmonys_thoughts_and_calls() -> None:
    reply = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
        '<|constrain|>json<|message|>{"a": 1}'
    )
    message = read(reader(HARMONY, formats.HARMONY, ends=("<|call|>",)), *f"{reply}<|call|>")
    assert (message.reasoning, message.content) == ("Hm.", "")
    assert [(call.name, call.arguments) for call in message.tool_calls] == [("f", '{"a": 1}')]


def test_thoughts_may_stay_in_the_content() -> None:
    message = read(reader(format=formats.HERMES, split=False), f"<think>\n{CALL}</think>\n\nNo. {CALL}")
    assert message.content == f"<think>\n{CALL}</think>\n\nNo."
    assert message.reasoning == ""
    assert len(message.tool_calls) == 1


@pytest.mark.parametrize(
    ("finish", "text", "ending"),
    [
        (FinishReason.EOS, "Yes.", Ending.STOP),
        (FinishReason.STOP, "Yes.", Ending.STOP),
        (FinishReason.STOP, CALL, Ending.TOOL_CALLS),
        (FinishReason.LENGTH, "Yes.", Ending.LENGTH),
        (FinishReason.LENGTH, CALL[:40], Ending.LENGTH),
        (FinishReason.ABORT, "Yes.", Ending.LENGTH),
        (FinishReason.ERROR, "Yes.", Ending.ERROR),
    ],
)
def test_endings(finish: FinishReason, text: str, ending: Ending) -> None:
    assert read(reader(format=formats.HERMES), text, finish=finish).ending is ending


def test_the_engines_error_is_told() -> None:
    [ended] = reader().push(Event("1", finish=FinishReason.ERROR, error="out of memory"))
    assert ended == Ended(Ending.ERROR, Usage(0, 0), "out of memory")


@pytest.mark.parametrize(
    ("text", "finish", "content"),
    [
        ("Yes.<|im_end|>", FinishReason.EOS, "Yes."),
        ("Yes.<|im_end|><|im_end|>", FinishReason.EOS, "Yes.<|im_end|>"),
        ("<|im_end|>", FinishReason.EOS, ""),
        ("Yes.</s><|im_end|>", FinishReason.EOS, "Yes.</s>"),
        ("Yes.<|im_end|>", FinishReason.LENGTH, "Yes.<|im_end|>"),
        ("Yes._<EOT>", FinishReason.EOS, "Yes."),
        ("Yes.<EOT>", FinishReason.EOS, "Yes."),
    ],
)
def test_the_text_of_the_end_token_is_hidden(text: str, finish: FinishReason, content: str) -> None:
    turn = reader(ends=("</s>", "<|im_end|>", "<EOT>", "_<EOT>"))
    assert collect(turn.push(Event("1", text, finish=finish, usage=USAGE))).content == content


def test_news_come_as_they_are_decided_and_no_oftener() -> None:
    turn = reader(format=formats.HERMES)
    assert turn.push(Event("1")) == []
    assert turn.push(Event("1", "<think>a ")) == [ReasoningDelta("a")]
    assert turn.push(Event("1", "b</think>\n\nYes, ")) == [ReasoningDelta(" b"), ContentDelta("Yes,")]
    named, more = turn.push(Event("1", '<tool_call>{"name": "f", "arguments": {"a"'))
    assert isinstance(named, ToolCallDelta)
    assert (named.name, more) == ("f", ToolCallDelta(0, '{"a"'))
    assert turn.push(Event("1", ": 1}}", finish=FinishReason.EOS, usage=USAGE)) == [
        ToolCallDelta(0, ": 1}"),
        Ended(Ending.TOOL_CALLS, USAGE),
    ]


def test_logprobs_travel_with_the_content_of_their_tokens() -> None:
    turn = reader(format=formats.HERMES)
    assert turn.push(Event("1", "<think>Hm.", (1,), (logprob(1),))) == [ReasoningDelta("Hm.")]
    assert turn.push(Event("1", "</think>", (2,), (logprob(2),))) == []
    assert turn.push(Event("1", "Yes <to", (3,), (logprob(3),))) == [ContentDelta("Yes", (logprob(3),))]
    assert turn.push(Event("1", "n", (4,), (logprob(4),))) == [ContentDelta(" <ton", (logprob(4),))]
    assert turn.push(Event("1", " ", (5,), (logprob(5),))) == []
    assert turn.push(Event("1", "of", (6,), (logprob(6),))) == [ContentDelta(" of", (logprob(5), logprob(6)))]
    turn.push(Event("1", CALL, (7,), (logprob(7),)))
    [content, ended] = turn.push(Event("1", "ok", (8,), (logprob(8),), FinishReason.EOS, USAGE))
    assert isinstance(content, ContentDelta)
    assert content.logprobs[-1] == logprob(8)
    assert isinstance(ended, Ended)


def test_the_logprobs_of_what_leads_to_a_thought_are_dropped() -> None:
    turn = reader()
    assert turn.push(Event("1", "<thi", (1,), (logprob(1),))) == []
    assert turn.push(Event("1", "nk>", (2,), (logprob(2),))) == []
    assert turn.push(Event("1", "Hm.</think>Yes", (3,), (logprob(3),))) == [
        ReasoningDelta("Hm."),
        ContentDelta("Yes", (logprob(3),)),
    ]


def test_of_two_hidden_ends_the_longer_is_removed() -> None:
    for text in ("Hi_<EOT>", "Hi<EOT>"):
        event = Event("1", text, finish=FinishReason.EOS, usage=USAGE)
        assert collect(reader(ends=("<EOT>", "_<EOT>", "T>")).push(event)).content == "Hi"


def test_a_whole_message_is_collected() -> None:
    deltas: list[Delta] = [
        ReasoningDelta("a"),
        ReasoningDelta("b"),
        ContentDelta("c", (logprob(1),)),
        ToolCallDelta(0, id="call_1", name="f"),
        ToolCallDelta(0, "{"),
        ToolCallDelta(1, "[]", id="call_2", name="g"),
        ToolCallDelta(0, "}"),
        ContentDelta("d", (logprob(2),)),
    ]
    message = collect([*deltas, Ended(Ending.STOP, USAGE)])
    assert (message.reasoning, message.content) == ("ab", "cd")
    assert message.logprobs == (logprob(1), logprob(2))
    assert [(call.id, call.name, call.arguments) for call in message.tool_calls] == [
        ("call_1", "f", "{}"),
        ("call_2", "g", "[]"),
    ]
    with pytest.raises(ValueError, match="no end"):
        collect(deltas)


WORDS = ("<think>", "</think>", CALL, "<tool_call>", "Yes", " ", "\n", '{"name": "f"', "<|im_end|>")


@given(pieces=cuttings(of_words(*WORDS)))
def test_any_cutting_gives_the_same_message(pieces: list[str]) -> None:
    cut = read(reader(format=formats.HERMES), *pieces)
    whole = read(reader(format=formats.HERMES), "".join(pieces))
    assert (cut.content, cut.reasoning, cut.ending) == (whole.content, whole.reasoning, whole.ending)
    assert [(call.name, call.arguments) for call in cut.tool_calls] == [
        (call.name, call.arguments) for call in whole.tool_calls
    ]
