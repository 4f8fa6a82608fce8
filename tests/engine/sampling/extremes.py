"""Numbers at the edge for every setting of the samplers, and what each of them has to come to."""

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from engine.types import Sampler, SamplingParams

EDGES = [
    0.0, -0.0, 5e-324, -5e-324, 1e-300, 1e-40, 1e-20, 1e-8, 2e-8, 1e-3, 0.5, 1.0, math.nextafter(1, 2), 1.5,
    1e8, 1e30, 1e38, 3.5e38, 1e300, 1.7976931348623157e308, math.inf, -1e-40, -1.0, -1e38, -1e300, -math.inf,
]  # fmt: skip
COUNTS = [-(2**31) + 1, -1, 0, 1, 2, 5, 2**31 - 1]
REALS = (
    "temperature", "top_p", "min_p", "top_a", "tfs", "typical", "nsigma", "rep_pen", "rep_pen_slope",
    "presence_penalty", "frequency_penalty", "dynatemp_range", "dynatemp_exponent", "smoothing_factor",
    "smoothing_curve", "mirostat_tau", "mirostat_eta", "dry_multiplier", "dry_base", "xtc_threshold",
    "xtc_probability", "adaptive_target", "adaptive_decay",
)  # fmt: skip
WHOLE = ("top_k", "rep_pen_range", "dry_allowed_length", "dry_penalty_last_n")

TOKENS = [1, 2, 3, 1, 2]
"""A context that repeats itself."""

rows = st.lists(
    st.integers(-30, 30).map(float) | st.sampled_from([-math.inf, -1e30, -1e29, 1e29, 1e30, -0.0, 1e-30]),
    min_size=5,
    max_size=12,
).filter(lambda row: max(row) > -math.inf)
fields = st.fixed_dictionaries(
    {"seed": st.integers(1, 10**6)},
    optional={
        **dict.fromkeys(REALS, st.sampled_from(EDGES)),
        **dict.fromkeys(WHOLE, st.sampled_from(COUNTS)),
        "mirostat": st.sampled_from([0, 1, 2]),
        "order": st.permutations(list(Sampler)).map(tuple) | st.lists(st.sampled_from(Sampler)).map(tuple),
        "logit_bias": st.lists(st.tuples(st.integers(0, 4), st.sampled_from(EDGES)), max_size=3).map(tuple),
    },
)

ROW = [3.0, 5.0, 5.0, 4.0, -2.0]
"""Two tokens are the likeliest."""
_ODDS = [math.exp(logit - 5) for logit in ROW]
PLAIN = {token: odds / sum(_ODDS) for token, odds in enumerate(_ODDS)}
EVEN = dict.fromkeys(range(5), 0.2)
TWO = {1: 0.5, 2: 0.5}
ONE = {1: 1.0}


def without(*tokens: int) -> dict[int, float]:
    """The probabilities of the others."""
    rest = {token: odds for token, odds in enumerate(_ODDS) if token not in tokens}
    return {token: odds / sum(rest.values()) for token, odds in rest.items()}


UNSEEN = without(1, 2, 3)

LIMITS: list[tuple[dict[str, Any], Mapping[int, float] | None]] = [
    *(({"temperature": t}, ONE) for t in (0.0, -0.0, 5e-324, 1e-40, 1e-20, -5e-324, -1.0, -math.inf)),
    *(({"temperature": t}, EVEN) for t in (1e30, 1e38, 3.5e38, 1e300, math.inf)),
    *(({"temperature": t, "dynatemp_range": 0.5}, ONE) for t in (0.0, 5e-324)),
    *(({"dynatemp_range": spread}, EVEN) for spread in (1e30, 1e300, math.inf)),
    ({"dynatemp_range": 5e-324}, PLAIN),
    *(({"top_p": p}, ONE) for p in (0.0, -0.0, 5e-324, 1e-40, -1.0, -math.inf)),
    *(({"top_p": p}, PLAIN) for p in (math.nextafter(1, 2), 1e300, math.inf)),
    *(({"min_p": p}, ONE) for p in (math.nextafter(1, 2), 1.5, 1e300, math.inf)),
    ({"min_p": 1.0}, TWO),
    *(({"min_p": p}, PLAIN) for p in (5e-324, 1e-300, -0.0, -math.inf)),
    *(({"top_a": a}, ONE) for a in (1e3, 1e300, math.inf)),
    *(({"top_a": a}, PLAIN) for a in (5e-324, -math.inf)),
    *(({"typical": p}, {1: 1.0}) for p in (0.0, 5e-324, -math.inf)),
    *(({"typical": p}, PLAIN) for p in (1.5, math.inf)),
    *(({"tfs": z}, ONE) for z in (0.0, 5e-324, -math.inf)),
    *(({"tfs": z}, PLAIN) for z in (1.5, math.inf)),
    *(({"nsigma": n}, TWO) for n in (5e-324, 1e-20)),
    *(({"nsigma": n}, PLAIN) for n in (1e30, math.inf, -math.inf)),
    *(({"top_k": k}, PLAIN) for k in (0, -1, -(2**31) + 1, 2**31 - 1)),
    *(({"rep_pen": r}, PLAIN) for r in (0.0, -0.0, -1.0, -math.inf)),
    *(({"presence_penalty": p}, UNSEEN) for p in (1e30, 1e300, math.inf)),
    *(
        ({"presence_penalty": p, "min_p": 1e-300}, {1: 1 / 3, 2: 1 / 3, 3: 1 / 3})
        for p in (-1e300, -math.inf)
    ),
    *(({"frequency_penalty": p}, UNSEEN) for p in (1e300, math.inf)),
    *(({"smoothing_factor": f}, TWO) for f in (1e30, 1e300, math.inf)),
    *(({"smoothing_factor": f}, PLAIN) for f in (-0.0, -math.inf)),
    *(({"smoothing_factor": f}, EVEN) for f in (5e-324, 1e-40)),
    *(({"xtc_probability": p, "xtc_threshold": 0.3}, without(1)) for p in (1.5, 1e300, math.inf)),
    *(({"xtc_probability": 1.0, "xtc_threshold": t}, {4: 1.0}) for t in (0.0, 5e-324, -1.0, -math.inf)),
    *(({"xtc_probability": 1.0, "xtc_threshold": t}, PLAIN) for t in (1.5, math.inf)),
    *(({"xtc_probability": 1.0, "xtc_threshold": 0.3, "temperature": t}, {2: 1.0}) for t in (2e-8, 1e-7)),
    *(({"mirostat": 2, "mirostat_tau": tau}, ONE) for tau in (0.0, -1.0, -1e300, -math.inf)),
    *(({"mirostat": version, "mirostat_tau": math.inf}, PLAIN) for version in (1, 2)),
    *(({"logit_bias": ((4, bias),)}, {4: 1.0}) for bias in (1e4, 1e30, 1e300, math.inf)),
    *(
        ({"logit_bias": ((1, bias), (2, bias), (3, bias))}, UNSEEN)
        for bias in (-1e4, -1e30, -1e300, -math.inf)
    ),
    ({"logit_bias": tuple((token, -math.inf) for token in range(5)), "temperature": 0.0}, ONE),
    ({"logit_bias": ((0, -math.inf), (0, math.inf), (1, -math.inf)), "temperature": 0.0}, {2: 1.0}),
    *(({"dry_multiplier": m, "dry_allowed_length": 1}, without(3)) for m in (1e30, math.inf)),
    ({"dry_multiplier": 1.0, "dry_base": math.inf, "dry_allowed_length": 1}, without(3)),
    *(({"dry_multiplier": 1.0, "dry_base": base, "dry_allowed_length": 1}, PLAIN) for base in (5e-324, -1.0)),
    *(({"adaptive_target": t, "min_p": 1e-300}, None) for t in (5e-324, 1e-40, 1e300, math.inf)),
]
"""Settings, and the probabilities behind all samplers of `ROW` after `TOKENS`, those below 1e-9 left out.

None: whatever they are, they are probabilities."""


def params_of(given: Mapping[str, Any]) -> SamplingParams:
    """Settings with a seed."""
    return SamplingParams(**{"seed": 1, **given})
