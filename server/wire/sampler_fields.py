"""The sampler fields of KoboldCpp, which every dialect understands under the same names.

`to_sampling` is their only reader. Defaults are KoboldCpp's, not neutral: a client that sends no
temperature gets the one it would get there.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.config import JsonDict, JsonValue

from engine.types import DEFAULT_SAMPLER_ORDER, Sampler, SamplingParams
from server.wire.lenient import Count, Real, Seed, WireModel

BIAS_LIMIT = 100.0
BIAS_ENTRIES = 512
ENTRIES_READ = 4096
"""Of a list of biases or bans: what is no token says nothing, but is not looked at for ever."""
BIAS_TEXT = 256
"""Characters of the longest text whose tokens get a bias."""
_IS_ID = re.compile(r"\s*[+-]?[0-9]{1,11}")
_ID_LENGTH = 12
"""Characters of a token's id with its comma and spaces."""
BREAKERS = 128
BREAKERS_TEXT = 1 << 16
"""Characters of the longest list of breakers that is written as text."""

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


def _biases(value: Any) -> tuple[tuple[int | str, float], ...]:
    """`{"token id or text": number}`, or llama.cpp's list of pairs; whatever is no such pair says nothing.

    Keys of an object are text by necessity, and an id if they look like one; in a pair an id is a number.
    """
    pairs: Iterable[Any] = ()
    if isinstance(value, dict):
        pairs = ((int(key) if _IS_ID.fullmatch(key) else key, bias) for key, bias in value.items())
    elif isinstance(value, list):
        pairs = (pair for pair in value if isinstance(pair, list) and len(pair) == 2)
    biases: dict[int | str, float] = {}
    for key, bias in islice(pairs, ENTRIES_READ):
        amount = _bias(bias)
        if _is_key(key) and not math.isnan(amount):
            biases[key] = amount
    return tuple(biases.items())


def _is_key(value: Any) -> bool:
    """Whether it is a token id, or a text of which the tokens may be meant."""
    return type(value) is int or (isinstance(value, str) and 0 < len(value) <= BIAS_TEXT)


def _bias(value: Any) -> float:
    """What is added to a logit: minus infinity, or within the limit; NaN for what is no number.

    `false` is llama.cpp's word for a token that never comes.
    """
    if isinstance(value, bool):
        return math.nan if value else -math.inf
    amount = number(value)
    if amount is None or amount == -math.inf:
        return math.nan if amount is None else amount
    return max(-BIAS_LIMIT, min(BIAS_LIMIT, amount)) if amount == amount else amount


def _bans(value: Any) -> tuple[int, ...]:
    """Token ids separated by commas, or a list of them. No more is looked at than `ENTRIES_READ` ids take."""
    if isinstance(value, list):
        return tuple(token for token in value[:ENTRIES_READ] if type(token) is int)
    text = str(value) if isinstance(value, (str, int, float)) else ""
    parts = text[: ENTRIES_READ * _ID_LENGTH].split(",")
    return tuple(int(part) for part in parts if part.strip().isdecimal() and len(part) < _ID_LENGTH)


def _order(value: Any) -> tuple[Sampler, ...]:
    """One to seven numbers, used as they are; anything else means the built-in order."""
    if not isinstance(value, list) or not 1 <= len(value) <= len(SAMPLER_NUMBERS):
        return DEFAULT_SAMPLER_ORDER
    if not all(isinstance(number, int) for number in value):
        return DEFAULT_SAMPLER_ORDER
    return tuple(SAMPLER_NUMBERS[number] for number in value if 0 <= number < len(SAMPLER_NUMBERS))


def _breakers(value: Any) -> Any:
    """A list of strings, or a list written as JSON text; text that is no such list means none."""
    if isinstance(value, str):
        value = _listed(value)
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, str)]


def _listed(text: str) -> Any:
    """What a list says that is written as JSON text, with its brackets or, as some clients do, without."""
    if len(text) > BREAKERS_TEXT:
        return []
    try:
        return json.loads(text if text.lstrip().startswith("[") else f"[{text}]")
    except (ValueError, RecursionError):
        return []


def field(
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
    shown: JsonValue = None,
) -> Any:
    """A field with its meaning and its sensible range, for the API's description; nothing enforces it.

    KoboldCpp enforces no ranges either: values beyond them are clamped or switch the stage off. `shown` is
    the default as clients would send it, where that is not how Python has it.
    """
    told = (("minimum", least), ("maximum", most), ("default", shown))
    extra: JsonDict = {name: value for name, value in told if value is not None}
    return Field(default=default, description=meaning, json_schema_extra=extra)


Breakers = Annotated[
    tuple[str, ...],
    BeforeValidator(_breakers),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
]
Order = Annotated[
    tuple[Sampler, ...],
    BeforeValidator(_order),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": len(SAMPLER_NUMBERS) - 1},
            "minItems": 1,
            "maxItems": len(SAMPLER_NUMBERS),
        }
    ),
]
Biases = Annotated[
    tuple[tuple[int | str, float], ...],
    BeforeValidator(_biases),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": -BIAS_LIMIT, "maximum": BIAS_LIMIT},
        }
    ),
]
Bans = Annotated[tuple[int, ...], BeforeValidator(_bans), WithJsonSchema({"type": "string"})]


class SamplerFields(WireModel):
    """How the next token is chosen, in KoboldCpp's words."""

    temperature: Real = field(0.7, "divides the logits; 0 always takes the likeliest token", least=0, most=5)
    top_k: Count = field(100, "keeps the so many likeliest tokens; 0 keeps all", least=0)
    top_p: Real = field(0.92, "keeps the likeliest tokens that reach this probability", least=0, most=1)
    min_p: Real = field(0.0, "drops tokens less likely than this part of the likeliest", least=0, most=1)
    top_a: Real = field(
        0.0, "drops tokens below this times the square of the top probability", least=0, most=1
    )
    typical: Real = field(1.0, "locally typical sampling; 1 is off", least=0, most=1)
    tfs: Real = field(1.0, "tail-free sampling; 1 is off", least=0, most=1)
    nsigma: Real = field(0.0, "drops logits further below the top than so many deviations; 0 is off", least=0)
    rep_pen: Real = field(1.0, "penalty for tokens seen already; 1 is off", least=1, most=3)
    repetition_penalty: Real = field(1.0, "another name of rep_pen; the largest value counts", least=1)
    repeat_penalty: Real = field(1.0, "another name of rep_pen; the largest value counts", least=1)
    rep_pen_range: Count = field(320, "tokens at the end of the context that the penalties see", least=0)
    rep_pen_slope: Real = field(1.0, "how much of rep_pen the older half of them gets", least=0, most=1)
    presence_penalty: Real = field(0.0, "subtracted once from the logit of each token seen", least=-2, most=2)
    frequency_penalty: Real = field(0.0, "subtracted for each time that a token was seen", least=-2, most=2)
    mirostat: Count = field(0, "1 or 2: mirostat in place of the other samplers; 0 is off", least=0, most=2)
    mirostat_tau: Real = field(5.0, "the surprise that mirostat aims at, in bits", least=0, most=30)
    mirostat_eta: Real = field(0.1, "how fast mirostat learns", least=0, most=10)
    dynatemp_range: Real = field(
        0.0, "temperature moves by as much with the entropy; 0 is off", least=-5, most=5
    )
    dynatemp_exponent: Real = field(1.0, "shape of that movement", least=0, most=10)
    smoothing_factor: Real = field(0.0, "quadratic smoothing of the logits; 0 is off", least=0, most=10)
    smoothing_curve: Real = field(1.0, "cubic part of the smoothing; 1 has none", least=1, most=10)
    dry_multiplier: Real = field(0.0, "strength of the DRY penalty for repeated sequences; 0 is off", least=0)
    dry_base: Real = field(1.75, "how fast that penalty grows with the length of a repetition", least=0)
    dry_allowed_length: Count = field(2, "repetitions up to this length are free", least=0)
    dry_penalty_last_n: Count = field(320, "tokens that DRY looks back; 0 sees the whole context", least=0)
    dry_sequence_breakers: Breakers = field(
        (), "strings that no repetition reaches across; a list, or one written as JSON text"
    )
    xtc_threshold: Real = field(
        0.2, "tokens above this probability are choices; over 0.5 is off", least=0, most=1
    )
    xtc_probability: Real = field(
        0.0, "how often all choices but the least likely go; 0 is off", least=0, most=1
    )
    adaptive_target: Real = field(
        -1.0, "probability that adaptive-p aims at; 0 and below is off", least=-1, most=1
    )
    adaptive_decay: Real = field(0.9, "how long adaptive-p remembers", least=0.01, most=0.99)
    sampler_order: Order = field(
        DEFAULT_SAMPLER_ORDER,
        "order of stages: 0 top_k, 1 top_a, 2 top_p and min_p, 3 tfs, 4 typical, 5 temperature, 6 rep_pen",
        shown=[SAMPLER_NUMBERS.index(stage) for stage in DEFAULT_SAMPLER_ORDER],
    )
    sampler_seed: Seed = field(None, "seed of the random numbers; below 1 a fresh one", least=-1)
    logit_bias: Biases = field(
        (),
        "token ids or texts, and what is added to the logits of these tokens, -100 to 100; false bans them; "
        "also a list of pairs",
        shown={},
    )
    custom_token_bans: Bans = field((), "ids of tokens that should not come, separated by commas", shown="")

    negative_prompt: Any = field(None, "not supported")
    guidance_scale: Any = field(None, "not supported; 1 is neutral")


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


def exactly(wanted: float) -> Callable[[Any], bool]:
    """Neutral at `wanted` alone."""
    return lambda value: (found := number(value)) is None or found == wanted


def empty(value: Any) -> bool:
    """Neutral when nothing is in it."""
    return not value


NOT_YET: dict[str, NotYet] = {
    "guidance_scale": NotYet("guidance by a negative prompt is not built", exactly(1)),
}

LEFT_OUT: dict[str, NotYet] = {
    "negative_prompt": NotYet("guidance by a negative prompt is not built", empty),
}
"""What a client says to the model and the model never sees: told with each request."""


def to_sampling(fields: SamplerFields) -> SamplingParams:
    """The engine's parameters for what the client asked.

    Of the three names of the repetition penalty the largest value counts, each being 1 when absent,
    so a value below 1 has no effect: KoboldCpp's rule.
    """
    biases = dict(fields.logit_bias)
    biases |= dict.fromkeys(fields.custom_token_bans, -BIAS_LIMIT)
    counted = tuple(biases.items())[:BIAS_ENTRIES]
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
        top_a=fields.top_a,
        tfs=fields.tfs,
        typical=fields.typical,
        nsigma=fields.nsigma,
        mirostat=fields.mirostat if fields.mirostat in (1, 2) else 0,
        mirostat_tau=fields.mirostat_tau,
        mirostat_eta=fields.mirostat_eta,
        dynatemp_range=fields.dynatemp_range,
        dynatemp_exponent=max(0.0, fields.dynatemp_exponent),
        smoothing_factor=fields.smoothing_factor,
        smoothing_curve=fields.smoothing_curve,
        dry_multiplier=fields.dry_multiplier,
        dry_base=fields.dry_base,
        dry_allowed_length=fields.dry_allowed_length,
        dry_penalty_last_n=fields.dry_penalty_last_n,
        dry_sequence_breakers=fields.dry_sequence_breakers[:BREAKERS],
        xtc_threshold=fields.xtc_threshold,
        xtc_probability=fields.xtc_probability,
        adaptive_target=fields.adaptive_target,
        adaptive_decay=min(0.99, max(0.01, fields.adaptive_decay)),
        logit_bias=tuple((key, amount) for key, amount in counted if isinstance(key, int)),
        text_bias=tuple((key, amount) for key, amount in counted if isinstance(key, str)),
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
