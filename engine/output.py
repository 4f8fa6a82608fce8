"""From the tokens of one request to its text, and to the verdict that it has ended."""

from dataclasses import dataclass

from engine.tokenizer import Detokenizer, Tokenizer
from engine.types import FinishReason, GenerationRequest


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a token came to: text that is decided, and why the request ends, if it does."""

    text: str
    finish: FinishReason | None = None


class Output:
    """The text of one request.

    Tests follow KoboldCpp's order: the token's text is added, then end tokens, then stop strings that
    are one special token, then stop strings anywhere in the text so far. With `trim_stop`, text that may
    turn out to begin a stop string is held back until it is decided.

    `_recent` holds the end of the reply, long enough to find a stop string that lies across tokens;
    the first `_sent` characters of it have been given out.
    """

    def __init__(self, request: GenerationRequest, tokenizer: Tokenizer) -> None:
        self._request = request
        self._end_ids = tokenizer.end_ids
        self._stops = tuple(stop for stop in request.stop if stop)
        self._stop_ids = frozenset(
            ids[0]
            for ids in (tokenizer.encode(stop, add_bos=False) for stop in self._stops)
            if len(ids) == 1 and tokenizer.is_control(ids[0])
        )
        self._longest_stop = max(map(len, self._stops), default=0)
        self._detokenizer = Detokenizer(tokenizer, render_special=request.render_special)
        self._recent = ""
        self._sent = 0

    def push(self, token_id: int) -> Verdict:
        """Take the next token in."""
        self._recent += self._detokenizer.push(token_id)
        found = self._find_stop()
        end = found if found is not None and self._request.trim_stop else len(self._recent)
        if token_id in self._end_ids and not self._request.ignore_eos:
            return Verdict(self._take(end), FinishReason.EOS)
        if found is not None or token_id in self._stop_ids:
            return Verdict(self._take(end), FinishReason.STOP)
        text = self._take(len(self._recent) - self._undecided())
        keep = max(len(self._recent) - self._sent, self._longest_stop - 1)
        drop = max(0, len(self._recent) - keep)
        self._recent, self._sent = self._recent[drop:], self._sent - drop
        return Verdict(text)

    def flush(self) -> str:
        """The text held back, once the request ends for another reason than a stop string."""
        self._recent += self._detokenizer.flush()
        return self._take(len(self._recent))

    def _take(self, end: int) -> str:
        text = self._recent[self._sent : end]
        self._sent = end
        return text

    def _find_stop(self) -> int | None:
        """Where the first stop string begins, if there is one."""
        places = (self._recent.find(stop) for stop in self._stops)
        return min((place for place in places if place >= 0), default=None)

    def _undecided(self) -> int:
        """Characters at the end that may begin a stop string which would be cut off."""
        if not self._request.trim_stop:
            return 0
        return max((_overlap(self._recent, stop) for stop in self._stops), default=0)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that is a beginning, not the whole, of the stop string."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
