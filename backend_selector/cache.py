"""How long the context and how large the KV cache can be. Pure."""

from dataclasses import dataclass

from backend_selector.choice import Decision
from backend_selector.facts import FileFacts, Wishes
from backend_selector.placement import Placement
from backend_selector.sizes import gib
from engine.config import DEFAULT_CONTEXT_LENGTH
from engine.errors import ConfigError

BLOCK = 16
"""Tokens that the engine allocates at a time."""
CONTEXTS = 4
"""Contexts that the cache holds when nobody says how large it shall be."""
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


def plan_cache(file: FileFacts, placement: Placement, wishes: Wishes) -> CachePlan:
    """What the user asks for, else as much as is usual and fits.

    What is decided here leaves an eighth of the free memory to activations and other programs; what the
    user asks for may take that too. Raises `ConfigError` where no such cache fits.
    """
    fits = _whole_blocks(placement.room // placement.kv_bytes_per_token)
    spare = _whole_blocks(max(0, placement.room - placement.free // 8) // placement.kv_bytes_per_token)
    if wishes.kvtokens is not None and wishes.kvtokens > fits:
        raise _too_large(placement, wishes.kvtokens, fits, "--kvtokens")
    context = _context(file, placement, wishes, fits, spare)
    return CachePlan(context, _tokens(wishes, context.value, spare))


def _context(file: FileFacts, placement: Placement, wishes: Wishes, fits: int, spare: int) -> Decision[int]:
    asked, cache = wishes.contextsize, wishes.kvtokens
    if asked is not None:
        if cache is not None and cache < asked:
            raise ConfigError(
                f"a KV cache of {cache} tokens cannot hold a context of {asked}: raise --kvtokens or lower "
                "--contextsize"
            )
        if asked > fits:
            raise _too_large(placement, asked, fits, "--contextsize")
        return Decision(asked, "as asked for")
    usual = min(file.trained_context, DEFAULT_CONTEXT_LENGTH)
    context = min(usual, spare if cache is None else cache)
    if context == usual:
        trained = "what the model was trained on"
        return Decision(usual, trained if usual == file.trained_context else "the usual length")
    if cache is not None:
        return Decision(context, f"all that {cache} tokens of KV cache can hold")
    if context < min(usual, LEAST_CONTEXT):
        raise _too_large(placement, usual, fits, "--contextsize")
    room = gib(placement.room)
    return Decision(context, f"lowered from {usual}: {room} are free beside the weights for the KV cache")


def _tokens(wishes: Wishes, context: int, spare: int) -> Decision[int]:
    if wishes.kvtokens is not None:
        return Decision(wishes.kvtokens, "as asked for")
    if CONTEXTS * context <= spare:
        return Decision(CONTEXTS * context, f"{CONTEXTS} contexts")
    return Decision(max(context, spare), f"as many as fit, for want of memory for {CONTEXTS} contexts")


def _too_large(placement: Placement, tokens: int, fits: int, flag: str) -> ConfigError:
    needed, room = gib(tokens * placement.kv_bytes_per_token), gib(placement.room)
    other = "" if placement.device.value == "cpu" else " or --device cpu"
    advice = f"say {flag} {fits} or less{other}" if fits else f"free some memory{other}"
    return ConfigError(
        f"a KV cache of {tokens} tokens needs {needed}, but {placement.device.value} has {room} free beside "
        f"the weights: {advice}, or take a smaller model"
    )


def _whole_blocks(tokens: int) -> int:
    return tokens // BLOCK * BLOCK
