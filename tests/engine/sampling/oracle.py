"""The samplers from their definitions: one token at a time, in float64, nothing fused and nothing cached.

Candidates are lists of (token, logit). Random numbers come from outside.
"""

import math
from collections.abc import Iterator, Mapping

from engine.types import Sampler, SamplingParams

Pairs = list[tuple[int, float]]


def falling(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def softmax(pairs: Pairs) -> list[float]:
    highest = max(logit for _, logit in pairs)
    odds = [math.exp(logit - highest) for _, logit in pairs]
    return [one / sum(odds) for one in odds]


def log_softmax(pairs: Pairs) -> list[float]:
    highest = max(logit for _, logit in pairs)
    total = math.log(sum(math.exp(logit - highest) for _, logit in pairs))
    return [logit - highest - total for _, logit in pairs]


def penalised(pairs: Pairs, tokens: list[int], params: SamplingParams) -> Pairs:
    window = tokens[-max(1, params.rep_pen_range) :]
    after = []
    for token, logit in pairs:
        if token in window:
            last = max(i for i, seen in enumerate(window) if seen == token)
            r = params.rep_pen
            if 2 * last < len(window) and params.rep_pen > 1 and params.rep_pen_slope > 0:
                r = 1 + (params.rep_pen - 1) * params.rep_pen_slope
            logit = logit * r if logit <= 0 else logit / r
            logit -= params.presence_penalty + params.frequency_penalty * window.count(token)
        after.append((token, logit))
    return falling(after)


def dry_penalties(
    tokens: list[int], params: SamplingParams, sequences: list[tuple[int, ...]]
) -> Mapping[int, float]:
    """What DRY subtracts from whom; `sequences` break repetitions."""
    allowed = params.dry_allowed_length
    n = len(tokens) if params.dry_penalty_last_n <= 0 else min(len(tokens), params.dry_penalty_last_n)
    window = tokens[len(tokens) - n :]
    limit = n
    for i in range(n):
        head = n - 1 - i
        tails = [len(s) - 1 for s in sequences if tuple(window[head : head + len(s)]) == s]
        if tails:
            limit = i - max(tails)
            break
    longest: dict[int, int] = {}
    for j in range(n - 1):
        k = 0
        while k <= j and window[j - k] == window[n - 1 - k]:
            k += 1
        k = min(k, limit)
        if k >= allowed:
            longest[window[j + 1]] = max(k, longest.get(window[j + 1], k))
    if n <= allowed or limit <= allowed:
        return {}
    cap = math.floor(88.7228391 / math.log(params.dry_base)) if params.dry_base > 1.000001 else math.inf
    return {
        token: params.dry_multiplier * params.dry_base ** min(k - allowed, cap)
        for token, k in longest.items()
    }


def truncated(name: Sampler, pairs: Pairs, params: SamplingParams) -> Pairs:
    p = softmax(pairs)
    match name:
        case Sampler.TOP_K if params.top_k >= 1:
            return pairs[: params.top_k]
        case Sampler.TOP_A if params.top_a > 0:
            return [pair for i, pair in enumerate(pairs) if i == 0 or p[i] >= params.top_a * p[0] ** 2]
        case Sampler.TFS if params.tfs < 1 and len(pairs) > 2:
            first = [p[i] - p[i + 1] for i in range(len(p) - 1)]
            second = [abs(first[i] - first[i + 1]) for i in range(len(first) - 1)]
            total = sum(second)
            weights = [s / total if total > 1e-6 else 1 / len(second) for s in second]
            cuts = (i for i in range(1, len(weights)) if sum(weights[: i + 1]) > params.tfs)
            return pairs[: next(cuts, len(pairs))]
        case Sampler.TYPICAL if params.typical < 1:
            log_p = log_softmax(pairs)
            entropy = -sum(one * log_one for one, log_one in zip(p, log_p, strict=True))
            order = sorted(range(len(p)), key=lambda i: abs(-log_p[i] - entropy))
            kept: list[int] = []
            for i in order:
                kept.append(i)
                if sum(p[j] for j in kept) > params.typical:
                    break
            return falling([pairs[i] for i in kept])
        case Sampler.TOP_P:
            min_p = params.min_p
            if params.top_p < 1:
                count = next((i + 1 for i in range(len(p)) if sum(p[: i + 1]) >= params.top_p), len(p))
                pairs = pairs[:count]
            elif params.adaptive_target > 0 and min_p <= 0 and params.mirostat not in (1, 2):
                min_p = 0.002
            if min_p > 0:
                least = pairs[0][1] + math.log(min_p)
                pairs = [pair for i, pair in enumerate(pairs) if i == 0 or pair[1] >= least]
    return pairs


def heated(pairs: Pairs, params: SamplingParams) -> Pairs:
    """Temperature, smoothing and nsigma."""
    plain = params.mirostat in (1, 2)
    if params.temperature <= 0:
        return pairs[:1]
    t = params.temperature
    if params.dynatemp_range != 0 and not plain:
        if len(pairs) > 1:
            low, high = max(0.0, t - params.dynatemp_range), max(0.0, t + params.dynatemp_range)
            entropy = -sum(one * math.log(one) for one in softmax(pairs) if one > 0)
            t = low + (high - low) * (entropy / math.log(len(pairs))) ** max(0.0, params.dynatemp_exponent)
        else:
            t = 1.0
    pairs = [(token, logit / t) for token, logit in pairs]
    if params.smoothing_factor > 0 and len(pairs) > 1:
        f, c, h = params.smoothing_factor, params.smoothing_curve, pairs[0][1]
        pairs = falling(
            [
                (token, h - (3 - c) / 2 * f * (logit - h) ** 2 + (c - 1) / 2 * f * (logit - h) ** 3)
                for token, logit in pairs
            ]
        )
    if params.nsigma > 0 and not plain:
        mean = sum(logit for _, logit in pairs) / len(pairs)
        sigma = math.sqrt(sum((logit - mean) ** 2 for _, logit in pairs) / len(pairs))
        pairs = [pair for pair in pairs if pair[1] >= pairs[0][1] - params.nsigma * sigma]
    return pairs


def chained(
    logits: list[float],
    tokens: list[int],
    params: SamplingParams,
    sequences: list[tuple[int, ...]] | None = None,
    excluded: frozenset[int] = frozenset(),
) -> Pairs:
    """Everything from the raw logits to the end of the chain."""
    row = dict(enumerate(logits))
    for token, amount in params.logit_bias:
        row[token] += amount
    pairs = [(token, logit) for token, logit in row.items() if token not in excluded and logit > -math.inf]
    if params.dry_multiplier > 0 and params.dry_base > 0:
        lowered = dry_penalties(tokens, params, sequences or [])
        pairs = [(token, logit - lowered.get(token, 0.0)) for token, logit in pairs]
    pairs = falling(pairs)[:5000]
    mirostat = params.mirostat in (1, 2)
    for name in (Sampler.REP_PEN, Sampler.TEMPERATURE) if mirostat else params.order:
        if name is Sampler.REP_PEN:
            pairs = penalised(pairs, tokens, params)
        elif name is Sampler.TEMPERATURE:
            pairs = heated(pairs, params)
        else:
            pairs = truncated(name, pairs, params)
    return pairs


def top_choices_excluded(pairs: Pairs, params: SamplingParams, u: float) -> Pairs:
    if u >= params.xtc_probability:
        return pairs
    good = sum(p >= params.xtc_threshold for p in softmax(pairs))
    return falling([(t, logit - 999 if i < good - 1 else logit) for i, (t, logit) in enumerate(pairs)])


class Adaptive:
    """adaptive-p's average of one request."""

    def __init__(self, params: SamplingParams) -> None:
        self.target, self.decay = params.adaptive_target, min(0.99, max(0.01, params.adaptive_decay))
        self.sum, self.weight = self.target / (1 - self.decay), 1 / (1 - self.decay)

    def reshaped(self, pairs: Pairs) -> Pairs:
        target = min(1.0, max(0.0, 2 * self.target - self.sum / self.weight))
        distances = [abs(p - target) / 0.3 for p in softmax(pairs)]
        return falling([(t, 5 - 10 * d * d / (1 + d)) for (t, _), d in zip(pairs, distances, strict=True)])

    def learn(self, logits: list[float], token: int) -> None:
        self.sum = softmax(list(enumerate(logits)))[token] + self.decay * self.sum
        self.weight = 1 + self.decay * self.weight


def mirostat_narrowed(pairs: Pairs, params: SamplingParams, mu: float, vocab_size: int) -> Pairs:
    p = softmax(pairs)
    if params.mirostat == 2:
        cuts = (i for i in range(1, len(p)) if -math.log2(p[i]) > mu)
        return pairs[: next(cuts, len(pairs))]
    ratios = [math.log(p[i] / p[i + 1]) for i in range(min(99, len(p) - 1))]
    gaps = [math.log((i + 2) / (i + 1)) for i in range(len(ratios))]
    s = sum(t * b for t, b in zip(gaps, ratios, strict=True)) / sum(t * t for t in gaps)
    e = s - 1
    k = int(((e * 2**mu) / (1 - vocab_size**-e)) ** (1 / s))
    return pairs[:k] if k > 0 else pairs


def drawn(pairs: Pairs, u: float) -> int:
    total = 0.0
    for (token, _), p in zip(pairs, softmax(pairs), strict=True):
        total += p
        if total >= u:
            return token
    return pairs[-1][0]


def mt19937(seed: int) -> Iterator[int]:
    """32-bit outputs of the generator, from its definition (Matsumoto and Nishimura 1998)."""
    state = [seed]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ state[-1] >> 30) + i) & 0xFFFFFFFF)
    number = 0
    while True:
        i = number % 624
        mixed = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7FFFFFFF)
        state[i] = state[(i + 397) % 624] ^ mixed >> 1 ^ (0x9908B0DF if mixed & 1 else 0)
        y = state[i]
        y ^= y >> 11
        y ^= y << 7 & 0x9D2C5680
        y ^= y << 15 & 0xEFC60000
        yield y ^ y >> 18
        number += 1
