"""From the tokens of one request to its text, and to the verdict that it has ended or must go back."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from engine.tokenizer import Detokenizer, Tokenizer
from engine.tokenizer.detokenizer import DecoderState
from engine.tokenizer.piece_index import lowered
from engine.types import FinishReason, GenerationRequest, TokenLogprob


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a token came to: text and tokens that are decided, and why the request ends, if it does.

    `rewind`: the text holds a banned phrase, and the last so many tokens must be taken back; they have
    left this object's books already.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: FinishReason | None = None
    rewind: int = 0

    def __add__(self, later: "Verdict") -> "Verdict":
        """What both together came to; the later one says how it ends."""
        return Verdict(
            self.text + later.text,
            self.tokens + later.tokens,
            self.logprobs + later.logprobs,
            later.finish,
        )


@dataclass(frozen=True, slots=True)
class _Held:
    """A token that has not been given out: where its text lies in `_recent`, and the state in front of it."""

    token: int
    logprob: TokenLogprob | None
    start: int
    end: int
    before: DecoderState


class Output:
    """The text of one request.

    Tests follow KoboldCpp's order: the token's text is added, then banned phrases, then end tokens, then
    stop strings that are one special token, then stop strings anywhere in the text so far. Text that may
    turn out to begin a banned phrase, or with `trim_stop` a stop string, is held back until it is decided,
    and so are the tokens that it comes from: what has been given out is never taken back.

    `_recent` holds the end of the reply, long enough to find a stop string that lies across tokens;
    the first `_sent` characters of it have been given out.
    """

    def __init__(self, request: GenerationRequest, tokenizer: Tokenizer) -> None:
        self._request = request
        self._end_ids = tokenizer.end_ids
        self._stops = tuple(stop for stop in request.stop if stop)
        self._phrases = tuple(lowered(phrase) for phrase in request.banned_phrases if phrase)
        self._stop_ids = frozenset(
            ids[0]
            for ids in (tokenizer.encode(stop, add_bos=False) for stop in self._stops)
            if len(ids) == 1 and tokenizer.is_control(ids[0])
        )
        self._longest = max(map(len, self._stops + self._phrases), default=1)
        self._stop_beginnings = _Beginnings(self._stops)
        self._phrase_beginnings = _Beginnings(self._phrases)
        self._detokenizer = Detokenizer(tokenizer, render_special=request.render_special)
        self._recent = ""
        self._sent = 0
        self._held: deque[_Held] = deque()

    def push(self, token: int, logprob: TokenLogprob | None = None) -> Verdict:
        """Take the next token in, with its probability if the request wants them reported."""
        start, before = len(self._recent), self._detokenizer.state
        self._recent += self._detokenizer.push(token)
        self._held.append(_Held(token, logprob, start, len(self._recent), before))
        rewind = self._banned()
        if rewind:
            return Verdict("", rewind=rewind)
        found = self._find_stop()
        end = found if found is not None and self._request.trim_stop else len(self._recent)
        if token in self._end_ids and not self._request.ignore_eos:
            return self._last(end, FinishReason.EOS)
        if found is not None or token in self._stop_ids:
            return self._last(end, FinishReason.STOP)
        verdict = self._decided(self._whole_tokens(len(self._recent) - self._undecided()))
        self._forget_sent()
        return verdict

    def flush(self, finish: FinishReason) -> Verdict:
        """All that was held back, once the request ends for another reason than its text."""
        self._recent += self._detokenizer.flush()
        return self._last(len(self._recent), finish)

    def _decided(self, end: int) -> Verdict:
        """The text up to `end`, and the tokens whose text is all in it."""
        text = self._recent[self._sent : end]
        self._sent = end
        tokens, logprobs = [], []
        while self._held and self._held[0].end <= end:
            held = self._held.popleft()
            tokens.append(held.token)
            if held.logprob is not None:
                logprobs.append(held.logprob)
        return Verdict(text, tuple(tokens), tuple(logprobs))

    def _last(self, end: int, finish: FinishReason) -> Verdict:
        """The text up to `end` and all tokens; probabilities of those only that the text is made of."""
        text = self._recent[self._sent : end]
        self._sent = end
        tokens = tuple(held.token for held in self._held)
        cut = finish in (FinishReason.EOS, FinishReason.STOP)
        logprobs = tuple(
            held.logprob for held in self._held if held.logprob is not None and (held.start < end or not cut)
        )
        self._held.clear()
        return Verdict(text, tokens, logprobs, finish)

    def _forget_sent(self) -> None:
        # What is not sent may go back, so that the next stop string or phrase begins in front of it.
        drop = self._sent - (self._longest - 1)
        if drop <= 0:
            return
        self._recent, self._sent = self._recent[drop:], self._sent - drop
        for index, held in enumerate(self._held):
            self._held[index] = _Held(
                held.token, held.logprob, held.start - drop, held.end - drop, held.before
            )

    def _banned(self) -> int:
        """How many of the last tokens hold the first banned phrase; they are taken back here. 0: none."""
        if not self._phrases:
            return 0
        text = lowered(self._recent)
        # After a rewind another token may complete a phrase whose beginning was out of danger and is sent.
        places = (text.find(phrase, max(0, self._sent - len(phrase) + 1)) for phrase in self._phrases)
        place = min((place for place in places if place >= 0), default=None)
        if place is None:
            return 0
        first = next(index for index, held in enumerate(self._held) if held.end > max(place, self._sent))
        removed = [self._held.pop() for _ in range(len(self._held) - first)]
        self._recent = self._recent[: removed[-1].start]
        self._detokenizer.restore(removed[-1].before)
        return len(removed)

    def _whole_tokens(self, end: int) -> int:
        """`end`, or the start of the token that lies across it, where tokens may have to go back."""
        if not self._phrases:
            return end
        return min((held.start for held in self._held if held.end > end), default=end)

    def _find_stop(self) -> int | None:
        """Where the first stop string begins, if there is one."""
        places = (self._recent.find(stop) for stop in self._stops)
        return min((place for place in places if place >= 0), default=None)

    def _undecided(self) -> int:
        """Characters at the end that may begin a banned phrase, or a stop string which would be cut off."""
        held = self._phrase_beginnings.overlap(lowered(self._recent)) if self._phrases else 0
        return max(held, self._stop_beginnings.overlap(self._recent)) if self._request.trim_stop else held


class _Beginnings:
    """All beginnings of some patterns, the whole patterns not among them. Takes no more memory than these."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = sorted(patterns)
        self._longest = max(map(len, self._patterns), default=1) - 1

    def overlap(self, text: str) -> int:
        """Length of the longest end of the text that is one of them."""
        for length in range(min(self._longest, len(text)), 0, -1):
            end = text[-length:]
            # Whatever begins with it stands right where it would be sorted in.
            place = bisect_right(self._patterns, end)
            if place < len(self._patterns) and self._patterns[place].startswith(end):
                return length
        return 0
