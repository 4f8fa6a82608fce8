"""The frames of OpenAI's answers: what they tell of several prompts and choices. No server, no engine."""

from engine.types import Event, FinishReason, TokenLogprob, Usage
from server.chat.message import Ended, Ending, Message
from server.dialects.openai.answer import CompletionAnswer, Head
from server.dialects.openai.chat_answer import ChatAnswer
from server.service import Reply


def test_several_prompts_with_several_choices_cost_each_prompt_once() -> None:
    """Whole and streamed: prompts as the first choice of each found the cache, and all replies."""
    usages = [Usage(10, 1, 4), Usage(10, 2, 9), Usage(100, 4, 32), Usage(100, 8, 96)]
    costs = {
        "prompt_tokens": 110,
        "completion_tokens": 15,
        "total_tokens": 125,
        "prompt_tokens_details": {"cached_tokens": 36},
    }
    head = Head("x", "m", 1, choices=2, include_usage=True)
    answer = CompletionAnswer(head, {name: index for index, name in enumerate("abcd")})
    whole = answer.whole([Reply("t", FinishReason.EOS, usage) for usage in usages])
    assert whole["usage"] == costs
    for index in (2, 0, 3, 1):  # they end in any order
        answer.chunks(Event("abcd"[index], finish=FinishReason.EOS, usage=usages[index]))
    (closing,) = answer.closing()
    assert (closing["usage"], closing["choices"]) == (costs, [])


def test_several_choices_of_a_chat_cost_its_prompt_once() -> None:
    usages = [Usage(10, 1, 4), Usage(10, 2, 9), Usage(10, 4, 9)]
    costs = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    answer = ChatAnswer(Head("x", "m", 1, choices=3, include_usage=True))
    whole = answer.whole([Message("a", "", (), Ending.STOP, usage) for usage in usages])
    assert whole["usage"] == costs
    for index in (2, 0, 1):
        answer.chunks(index, Ended(Ending.STOP, usages[index]))
    (closing,) = answer.closing()
    assert (closing["usage"], closing["choices"]) == (costs, [])


def test_offsets_go_on_from_chunk_to_chunk_of_each_choice() -> None:
    """They are places of tokens: text is sent in front of its token where the rest of it is held back."""
    answer = CompletionAnswer(Head("x", "m", 1), {"a": 0, "b": 1}, ("P", "QQ"), logprobs=True)

    def offsets(name: str, text: str, *tokens: str) -> list[int]:
        told = tuple(TokenLogprob(1, token.encode(), -0.5) for token in tokens)
        (chunk,) = answer.chunks(Event(name, text, logprobs=told))
        offsets: list[int] = chunk["choices"][0]["logprobs"]["text_offset"]
        return offsets

    assert offsets("a", "hi you", "hi", " you") == [1, 3]
    assert offsets("b", "so", "so") == [2]
    assert offsets("a", " the") == []  # of " there", whose end is held back
    assert offsets("b", "", "") == [4]
    assert offsets("a", "re now", " there", " now") == [7, 13]
    assert offsets("b", "!", "!") == [4]
    assert offsets("a", ".", ".") == [17]
