"""Refuses settings with which nothing can be computed."""

import math
from dataclasses import fields

from engine.errors import RequestError
from engine.types import SamplingParams


def check_params(params: SamplingParams) -> None:
    """Raise `RequestError`, one line, for a number that is none or is infinite. A bias may be -infinity."""
    for field in fields(params):
        value = getattr(params, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{field.name} must be a finite number, not {value}")
    for token, bias in params.logit_bias:
        if math.isnan(bias) or bias == math.inf:
            raise RequestError(f"the logit bias of token {token} must be a finite number, not {bias}")
