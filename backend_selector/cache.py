"""How long the context and how large the KV cache can be. Pure."""

from dataclasses import dataclass

from backend_selector.advice import CacheNeed, no_room
from backend_selector.choice import Decision
from backend_selector.facts import FileFacts, MachineFacts, Wishes
from backend_selector.placement import Placement
from backend_selector.sizes import gib
from engine.config import DEFAULT_CONTEXT_LENGTH, usual_contexts
from engine.errors import ConfigError

BLOCK = 16
"""Tokens that the engine allocates at a time."""
LEAST_CONTEXT = 256
"""No context is lowered below this: better to refuse than to serve one that is of no use."""


@dataclass(frozen=True, slots=True)
class CachePlan:
    """A cache that fits beside the weights; it holds at least one context."""

    context: Decision[int]
    tokens: Decision[int]

    @property
    def slots(self) -> int:
        """Tokens in whole blocks, as the engine allocates them."""
        return -(-self.tokens.value // BLOCK) * BLOCK


def plan_cache(file: FileFacts, machine: MachineFacts, placement: Placement, wishes: Wishes) -> CachePlan:
    """What the user asks for, else as much as is usual and fits on every device of the placement.

    What is decided here leaves a part of the free memory to activations and other programs; what the
    user asks for may take that too. Raises `ConfigError` where no such cache fits.
    """

    def refusal(tokens: int, flag: str) -> ConfigError:
        return no_room(file, machine, wishes, placement, CacheNeed(tokens, flag, LEAST_CONTEXT, BLOCK))

    fits, spare = _whole_blocks(placement.fits), _whole_blocks(placement.spare)
    asked, cache = wishes.contextsize, wishes.kvtokens
    if cache is not None and cache > fits:
        raise refusal(cache, "--kvtokens")
    if asked is not None and cache is not None and cache < asked:
        raise ConfigError(
            f"a KV cache of {cache} tokens cannot hold a context of {asked}: raise --kvtokens or lower "
            "--contextsize"
        )
    if asked is not None and asked > fits:
        raise refusal(asked, "--contextsize")
    usual = min(file.trained_context, DEFAULT_CONTEXT_LENGTH)
    context = _context(file, placement, wishes, spare)
    if asked is None and cache is None and context.value < min(usual, LEAST_CONTEXT):
        raise refusal(usual, "--contextsize")
    return CachePlan(context, _tokens(wishes, context.value, spare))


def _context(file: FileFacts, placement: Placement, wishes: Wishes, spare: int) -> Decision[int]:
    """The context asked for, else the usual one as far as it fits."""
    if wishes.contextsize is not None:
        return Decision(wishes.contextsize, "as asked for")
    usual, cache = min(file.trained_context, DEFAULT_CONTEXT_LENGTH), wishes.kvtokens
    context = min(usual, spare if cache is None else cache)
    if context == usual:
        trained = "what the model was trained on"
        return Decision(usual, trained if usual == file.trained_context else "the usual length")
    if cache is not None:
        return Decision(context, f"all that {cache} tokens of KV cache can hold")
    room = gib(min(stage.room for stage in placement.stages if stage.blocks))
    return Decision(context, f"lowered from {usual}: {room} are free beside the weights for the KV cache")


def _tokens(wishes: Wishes, context: int, spare: int) -> Decision[int]:
    if wishes.kvtokens is not None:
        return Decision(wishes.kvtokens, "as asked for")
    contexts = usual_contexts(context)
    if contexts * context <= spare:
        return Decision(contexts * context, f"{contexts} contexts")
    return Decision(max(context, spare), f"as many as fit, for want of memory for {contexts} contexts")


def _whole_blocks(tokens: int) -> int:
    return tokens // BLOCK * BLOCK
