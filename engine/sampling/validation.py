"""Settings with which something can be computed, from those that a request has."""

import math
from dataclasses import fields, replace
from typing import Any

from engine.errors import RequestError
from engine.sampling.candidates import BOUND
from engine.types import SamplingParams


def check_params(params: SamplingParams) -> None:
    """Raise `RequestError`, one line, for a number that is none. Infinity is a large number."""
    for field in fields(params):
        value = getattr(params, field.name)
        if isinstance(value, float) and math.isnan(value):
            raise RequestError(f"{field.name} must be a number, not {value}")
    for token, bias in params.logit_bias:
        if math.isnan(bias):
            raise RequestError(f"the logit bias of token {token} must be a number, not {bias}")


def within_bounds(params: SamplingParams) -> SamplingParams:
    """The same settings, numbers no further from 0 than `BOUND`: there each has come to its limit's meaning.

    Biases are left to `Biases`, for which minus infinity is more than a number.
    """
    found: dict[str, Any] = {
        field.name: max(-BOUND, min(BOUND, value))
        for field in fields(params)
        if isinstance(value := getattr(params, field.name), float) and abs(value) > BOUND
    }
    return replace(params, **found) if found else params
