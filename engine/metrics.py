"""Plain counters of the engine. The engine thread writes them; others read a frozen snapshot."""

from dataclasses import dataclass, fields

from engine.types import FinishReason, Usage


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the engine at one moment. Counts are totals since the start."""

    steps: int = 0
    prompt_tokens_computed: int = 0
    """Prompt tokens run through the model, those of preempted requests counted again."""
    prompt_tokens_cached: int = 0
    """Prompt tokens taken from the prefix cache instead."""
    prompt_tokens_shifted: int = 0
    """Prompt tokens whose keys and values were moved from another place of an earlier context instead."""
    embedding_tokens_computed: int = 0
    """Tokens run through the model for embeddings, those of preempted inputs counted again."""
    generated_tokens: int = 0
    drafted_tokens: int = 0
    """Guessed tokens run through the model; see `engine.speculation`."""
    accepted_tokens: int = 0
    """Those among them that were drawn."""
    requests_added: int = 0
    requests_finished: int = 0
    requests_aborted: int = 0
    preemptions: int = 0
    running: int = 0
    waiting: int = 0
    blocks_total: int = 0
    blocks_free: int = 0
    """Blocks that no request holds; some of them still cache a prefix."""
    last_usage: Usage | None = None
    last_finish: FinishReason | None = None
    last_drafted_tokens: int = 0
    """`drafted_tokens` of the request that ended last."""
    last_accepted_tokens: int = 0


@dataclass(slots=True)
class Counters:
    """The engine's own, mutable side of `Snapshot`: only what no other object knows."""

    steps: int = 0
    prompt_tokens_computed: int = 0
    prompt_tokens_cached: int = 0
    prompt_tokens_shifted: int = 0
    embedding_tokens_computed: int = 0
    generated_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    requests_added: int = 0
    requests_finished: int = 0
    requests_aborted: int = 0
    preemptions: int = 0
    last_usage: Usage | None = None
    last_finish: FinishReason | None = None
    last_drafted_tokens: int = 0
    last_accepted_tokens: int = 0

    def snapshot(self, *, running: int, waiting: int, blocks_total: int, blocks_free: int) -> Snapshot:
        """The counters now, with what other objects know."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return Snapshot(
            running=running, waiting=waiting, blocks_total=blocks_total, blocks_free=blocks_free, **own
        )
