"""One request on its way through the engine. Belongs to the engine thread alone."""

from dataclasses import dataclass, field
from enum import Enum

from engine.theta_setting import WITHOUT, ThetaSetting
from engine.types import GenerationRequest, TokenPrompt, Usage


class SequenceState(Enum):
    """Where the scheduler keeps a sequence."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens known so far, and how many of them the model has seen.

    There is no prefill and no decode: a sequence has `len(tokens)` tokens, of which the keys and
    values of the first `computed` are in the KV cache, and every step lets it catch up. When it has
    caught up, the model's last logits give the next token.

    Invariant: `computed <= len(tokens)` and, while running, `block_table` covers `computed` tokens.
    """

    request: GenerationRequest
    tokens: list[int]
    prompt_length: int
    state: SequenceState = SequenceState.WAITING
    arrival: int = 0
    """Its number among all sequences; written by the queue only."""
    passed: int = 0
    """How often later sequences were let in while there were too few blocks for it."""
    sent_back: int = 0
    """How often it gave its place to another client."""
    admitted: bool = False
    """Whether it has had a place."""
    computed: int = 0
    block_table: list[int] = field(default_factory=list)
    """Physical block of each logical block; written by the block manager only."""
    prefix_keys: list[int] = field(default_factory=list)
    """Prefix-cache key of each full, registered block; written by the block manager only."""
    drawn: int = 0
    """Tokens drawn so far, those that were taken back again included."""
    drafted_tokens: int = 0
    """Guessed tokens that the model has computed behind it; see `engine.speculation`."""
    accepted_tokens: int = 0
    """Those among them that were drawn."""
    banned_at: dict[int, set[int]] = field(default_factory=dict)
    """Tokens that led to a banned phrase, by their place in `tokens`; they are not drawn there again."""
    shifted_from: int | None = None
    """First token whose keys and values are no longer exact, since a context shift moved it here or it was
    computed behind such tokens; None: all are exact."""
    moved: range | None = None
    """Tokens ahead of `computed` whose keys and values are there already: once all in front of them are
    computed, they count as computed, too. None: there are no such tokens."""
    theta: ThetaSetting = WITHOUT
    """How theta counts in it. Keys and values that were computed with another setting are of no use to it."""
    anew: bool = False
    """Whether every token goes through the model, cached or not, since its hidden state is wanted."""
    cached_tokens: int = 0
    """Prompt tokens found in the KV cache when the sequence first started, shifted ones included."""
    started_at: float | None = None
    """Monotonic seconds of the first step that worked on it."""
    first_token_at: float | None = None

    @classmethod
    def from_request(cls, request: GenerationRequest) -> "Sequence":
        """A waiting sequence for a request whose prompt is already token ids."""
        assert isinstance(request.prompt, TokenPrompt)
        ids = list(request.prompt.ids)
        return cls(request=request, tokens=ids, prompt_length=len(ids))

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.request_id

    @property
    def client(self) -> str:
        """Who asks."""
        return self.request.client

    @property
    def remaining(self) -> int:
        """Tokens that the model has yet to see."""
        return len(self.tokens) - self.computed

    @property
    def missing(self) -> int:
        """Tokens that the model has yet to see up to those that were moved, or up to the end."""
        return (len(self.tokens) if self.moved is None else self.moved.start) - self.computed

    def advance(self, count: int) -> None:
        """Count the next tokens as computed, at most the `missing` ones."""
        self.computed += count
        if self.moved is not None and self.computed == self.moved.start:
            self.computed, self.moved = self.moved.stop, None

    @property
    def generated(self) -> int:
        """Tokens made so far, hidden end tokens included."""
        return len(self.tokens) - self.prompt_length

    @property
    def left(self) -> int:
        """Tokens that may still be drawn."""
        return self.request.max_tokens - self.drawn

    def take_back(self, count: int) -> None:
        """Remove the last `count` tokens, and never draw the first of them there again."""
        place = len(self.tokens) - count
        # What was banned further on was banned behind a token that will not come again.
        self.banned_at = {at: tokens for at, tokens in self.banned_at.items() if at <= place}
        self.banned_at.setdefault(place, set()).add(self.tokens[place])
        del self.tokens[place:]

    def usage(self, now: float, seed: int) -> Usage:
        """What it has cost, once it ends. `now`: monotonic seconds."""
        started = now if self.started_at is None else self.started_at
        first = now if self.first_token_at is None else self.first_token_at
        return Usage(
            prompt_tokens=self.prompt_length,
            completion_tokens=self.generated,
            cached_tokens=self.cached_tokens,
            left_out_tokens=max(0, self.request.sent_tokens - self.prompt_length),
            prompt_seconds=first - started,
            decode_seconds=now - first,
            seed=seed,
        )
