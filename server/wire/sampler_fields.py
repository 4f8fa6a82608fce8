"""The sampler fields of KoboldCpp, which every dialect understands under the same names.

`to_sampling` is their only reader. Defaults are KoboldCpp's, not neutral: a client that sends no
temperature gets the one it would get there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from engine.types import DEFAULT_SAMPLER_ORDER, Sampler, SamplingParams
from server.wire.lenient import Count, Real, Seed, WireModel

BIAS_LIMIT = 100.0
BIAS_ENTRIES = 512

SAMPLER_NUMBERS = (
    Sampler.TOP_K,
    Sampler.TOP_A,
    Sampler.TOP_P,
    Sampler.TFS,
    Sampler.TYPICAL,
    Sampler.TEMPERATURE,
    Sampler.REP_PEN,
)
"""KoboldCpp's numbering: the place in this row is the number in `sampler_order`."""


def _biases(value: Any) -> tuple[tuple[int, float], ...]:
    """`{"token id": number}`; whatever is no such pair says nothing, as in KoboldCpp."""
    if not isinstance(value, dict):
        return ()
    biases: dict[int, float] = {}
    for key, bias in value.items():
        try:
            token, amount = int(key), float(bias)
        except (TypeError, ValueError, OverflowError):
            continue
        if not math.isnan(amount):
            biases[token] = max(-BIAS_LIMIT, min(BIAS_LIMIT, amount))
    return tuple(biases.items())


def _bans(value: Any) -> tuple[int, ...]:
    """Token ids separated by commas."""
    return tuple(int(part) for part in str(value).split(",") if part.strip().isdecimal() and len(part) < 12)


def _order(value: Any) -> tuple[Sampler, ...]:
    """One to seven numbers, used as they are; anything else means the built-in order."""
    if not isinstance(value, list) or not 1 <= len(value) <= len(SAMPLER_NUMBERS):
        return DEFAULT_SAMPLER_ORDER
    if not all(isinstance(number, int) for number in value):
        return DEFAULT_SAMPLER_ORDER
    return tuple(SAMPLER_NUMBERS[number] for number in value if 0 <= number < len(SAMPLER_NUMBERS))


class SamplerFields(WireModel):
    """How the next token is chosen, in KoboldCpp's words."""

    temperature: Real = 0.7
    top_k: Count = 100
    top_p: Real = 0.92
    min_p: Real = 0.0
    rep_pen: Real = 1.0
    repetition_penalty: Real = 1.0
    repeat_penalty: Real = 1.0
    rep_pen_range: Count = 320
    rep_pen_slope: Real = 1.0
    presence_penalty: Real = 0.0
    frequency_penalty: Real = 0.0
    sampler_order: Annotated[tuple[Sampler, ...], BeforeValidator(_order)] = DEFAULT_SAMPLER_ORDER
    sampler_seed: Seed = None
    logit_bias: Annotated[tuple[tuple[int, float], ...], BeforeValidator(_biases)] = ()
    custom_token_bans: Annotated[tuple[int, ...], BeforeValidator(_bans)] = ()

    top_a: Any = None
    typical: Any = None
    tfs: Any = None
    nsigma: Any = None
    mirostat: Any = None
    mirostat_tau: Any = None
    mirostat_eta: Any = None
    dynatemp_range: Any = None
    dynatemp_exponent: Any = None
    smoothing_factor: Any = None
    smoothing_curve: Any = None
    dry_multiplier: Any = None
    dry_base: Any = None
    dry_allowed_length: Any = None
    dry_penalty_last_n: Any = None
    dry_sequence_breakers: Any = None
    xtc_threshold: Any = None
    xtc_probability: Any = None
    adaptive_target: Any = None
    adaptive_decay: Any = None
    grammar: Any = None
    grammar_retain_state: Any = None
    banned_tokens: Any = None
    banned_strings: Any = None
    negative_prompt: Any = None
    guidance_scale: Any = None


@dataclass(frozen=True, slots=True)
class NotYet:
    """A field that the engine cannot honour yet. `neutral` tells values that ask for nothing."""

    reason: str
    neutral: Callable[[Any], bool]


def number(value: Any) -> float | None:
    """The number that `value` stands for, if any."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def at_most(limit: float) -> Callable[[Any], bool]:
    """Neutral at `limit` and below."""
    return lambda value: (found := number(value)) is None or found <= limit


def at_least(limit: float) -> Callable[[Any], bool]:
    """Neutral at `limit` and above."""
    return lambda value: (found := number(value)) is None or found >= limit


def exactly(wanted: float) -> Callable[[Any], bool]:
    """Neutral at `wanted` alone."""
    return lambda value: (found := number(value)) is None or found == wanted


def empty(value: Any) -> bool:
    """Neutral when nothing is in it."""
    return not value


NOT_YET: dict[str, NotYet] = {
    "top_a": NotYet("top-a sampling comes with the full sampler chain", at_most(0)),
    "typical": NotYet("typical sampling comes with the full sampler chain", at_least(1)),
    "tfs": NotYet("tail-free sampling comes with the full sampler chain", at_least(1)),
    "nsigma": NotYet("top-n-sigma comes with the full sampler chain", at_most(0)),
    "mirostat": NotYet("mirostat comes with the full sampler chain", exactly(0)),
    "dynatemp_range": NotYet("dynamic temperature comes with the full sampler chain", exactly(0)),
    "smoothing_factor": NotYet("smoothing comes with the full sampler chain", at_most(0)),
    "dry_multiplier": NotYet("DRY comes with the full sampler chain", at_most(0)),
    "xtc_probability": NotYet("XTC comes with the full sampler chain", at_most(0)),
    "adaptive_target": NotYet("adaptive-p comes with the full sampler chain", at_most(0)),
    "grammar": NotYet("grammars are not built yet; the reply is free text", empty),
    "banned_tokens": NotYet("phrase bans are not built yet", empty),
    "banned_strings": NotYet("phrase bans are not built yet", empty),
    "guidance_scale": NotYet("guidance by a negative prompt is not built", exactly(1)),
}

IGNORED: dict[str, str] = {
    "mirostat_tau": "a parameter of mirostat",
    "mirostat_eta": "a parameter of mirostat",
    "dynatemp_exponent": "a parameter of dynatemp_range",
    "smoothing_curve": "a parameter of smoothing_factor",
    "dry_base": "a parameter of dry_multiplier",
    "dry_allowed_length": "a parameter of dry_multiplier",
    "dry_penalty_last_n": "a parameter of dry_multiplier",
    "dry_sequence_breakers": "a parameter of dry_multiplier",
    "xtc_threshold": "a parameter of xtc_probability",
    "adaptive_decay": "a parameter of adaptive_target",
    "grammar_retain_state": "a parameter of grammar",
    "negative_prompt": "a parameter of guidance_scale",
}


def to_sampling(fields: SamplerFields) -> SamplingParams:
    """The engine's parameters for what the client asked.

    Of the three names of the repetition penalty the largest value counts, each being 1 when absent,
    so a value below 1 has no effect: KoboldCpp's rule.
    """
    biases = dict(fields.logit_bias)
    biases |= dict.fromkeys(fields.custom_token_bans, -BIAS_LIMIT)
    return SamplingParams(
        temperature=fields.temperature,
        top_k=fields.top_k,
        top_p=fields.top_p,
        min_p=fields.min_p,
        rep_pen=max(fields.rep_pen, fields.repetition_penalty, fields.repeat_penalty),
        rep_pen_range=max(1, fields.rep_pen_range),
        rep_pen_slope=fields.rep_pen_slope if 0 < fields.rep_pen_slope <= 1 else 1.0,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        logit_bias=tuple(biases.items())[:BIAS_ENTRIES],
        order=fields.sampler_order,
        seed=fields.sampler_seed,
    )


def asked_in_vain(fields: WireModel, not_yet: dict[str, NotYet]) -> dict[str, str]:
    """The fields of `not_yet` that the client set to more than their neutral value, with the reasons."""
    vain: dict[str, str] = {}
    for name, entry in not_yet.items():
        value = getattr(fields, name)
        if value is not None and not entry.neutral(value):
            vain[name] = entry.reason
    return vain
