"""TPE: one figure for what theta gains in quality and costs in speed. Pure."""

import math

BEST, EXCELLENT, GOOD = 0.150, 0.145, 0.140
"""What a score must exceed for its class. Meant for a model of 7B parameters: small models score lower."""


def tpe(perplexity: float, overhead: float) -> float:
    """(1 / perplexity) / (1 + log10(1 + overhead)): the higher, the better.

    `overhead`: lambda_theta = t_nkat / t_baseline - 1 of the decode time per token, 0 for the baseline,
    which so scores 1 / perplexity. Raises `ValueError` for what no measurement gives: a perplexity below 1,
    or a tenth of the baseline's time, where the formula has its pole.
    """
    if not (perplexity >= 1 and -0.9 < overhead < math.inf):
        raise ValueError(f"no score for a perplexity of {perplexity} and an overhead of {overhead}")
    return 1 / perplexity / (1 + math.log10(1 + overhead))


def tpe_class(score: float) -> str:
    """`best`, `excellent`, `good` or `below`."""
    if score > BEST:
        return "best"
    if score > EXCELLENT:
        return "excellent"
    return "good" if score > GOOD else "below"
