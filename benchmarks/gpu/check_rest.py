"""Activations, rotations and draws against float64."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.check import Check, distance, largest
from benchmarks.gpu.check_products import random_rows
from benchmarks.gpu.settings import Settings
from engine.kernels import Draws, Norm
from engine.kernels.cuda.activations import prepare
from engine.kernels.cuda.hadamard import rotate_heads
from engine.kernels.cuda.sampling import sample
from engine.kv_cache import hadamard

_EXACT = 1e-6
_HALF_STEP = 0.5 + 1e-4
"""Largest error of activations in integers, in scales."""
_EPSILON = 1e-5
_CUT = 40
_DRAWN_ROWS = 32
_NEAR = 1e-5
"""Odds this close to a bound may fall on either side of it."""


def rest_checks(settings: Settings) -> Iterator[Check]:
    """All that is neither a product nor attention."""
    generator = torch.Generator(settings.device).manual_seed(5)
    width = settings.sizes.check_shape[1]
    yield Check("activations behind a norm", _EXACT, partial(_normed_error, width, generator))
    yield Check("activations in integers", _HALF_STEP, partial(_integers_error, width, generator))
    yield Check("projections of theta", _EXACT, partial(_projections_error, width, settings.rank, generator))
    for dim in settings.sizes.check_heads:
        yield Check(f"rotated heads of {dim}", _EXACT, partial(_rotation_error, dim, generator))
    vocab = settings.config.vocab_size
    yield Check("greedy draws", 0.0, partial(_wrong_draws, vocab, 1, generator))
    yield Check("draws by top-k, top-p, min-p", 0.0, partial(_wrong_draws, vocab, _CUT, generator))


def _norm(width: int, generator: torch.Generator) -> Norm:
    numbers = torch.randn(width, generator=generator, device=generator.device)
    return Norm(1 + 0.1 * numbers, _EPSILON)


def _behind(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    wide = x.double()
    return wide / (wide.square().mean(1, keepdim=True) + norm.epsilon).sqrt() * norm.weight.double()


def _normed_error(width: int, generator: torch.Generator) -> float:
    x, norm = random_rows(3, width, generator), _norm(width, generator)
    made = prepare(x, norm, [], integers=False, floats=torch.float32)
    assert made.floats is not None
    return distance(made.floats, _behind(x, norm))


def _integers_error(width: int, generator: torch.Generator) -> float:
    """In scales; infinite where the sums are not those of the integers."""
    x = random_rows(3, width, generator)
    made = prepare(x, None, [], integers=True, floats=None)
    assert made.integers is not None
    assert made.scales is not None
    assert made.sums is not None
    integers = torch.unflatten(made.integers, 1, (-1, 32)).int()
    first, every = integers[..., :16].sum(-1), integers.sum(-1)
    if not torch.equal((first & 0xFFFF) | every << 16, made.sums.long()):
        return float("inf")
    return largest(integers, torch.unflatten(x.double(), 1, (-1, 32)) / made.scales.double()[..., None])


def _projections_error(width: int, rank: int, generator: torch.Generator) -> float:
    x = random_rows(3, width, generator)
    v = torch.randint(-127, 128, (rank, width), generator=generator, device=x.device).to(torch.int8)
    made = prepare(x, None, [v], integers=True, floats=None)
    assert made.projections is not None
    return distance(made.projections, x.double() @ v.double().T)


def _rotation_error(dim: int, generator: torch.Generator) -> float:
    x = torch.randn(5, 3, dim, generator=generator, device=generator.device)
    should = hadamard(x.double())
    rotate_heads(x)
    return distance(x, should)


def _wrong_draws(vocab: int, cut: int, generator: torch.Generator) -> float:
    """How many tokens are not those that the same random numbers draw in float64, where they decide."""
    device = generator.device

    logits = 3 * torch.randn(_DRAWN_ROWS, vocab, generator=generator, device=device)
    cuts = torch.full((_DRAWN_ROWS,), cut, dtype=torch.float64, device=device)
    numbers = [_between(low, high, generator) for low, high in ((0.5, 1.05), (0.5, 5), (0.3, 2), (0, 1))]
    draws = Draws(torch.stack([cuts, *numbers]), cut)
    tokens = sample(logits, draws)
    expected, is_near = _drawn(logits.double(), draws)
    return float(((tokens != expected) & ~is_near).sum().item())


def _between(low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Random numbers, float64 [B] though of single precision, as a kernel takes them."""
    shares = torch.rand(_DRAWN_ROWS, generator=generator, device=generator.device, dtype=torch.float64)
    return (low + (high - low) * shares).float().double()


def _drawn(logits: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens in float64, and where rounding alone decides: int64 and bool [B]."""
    _, top_p, distances, temperatures, u = draws.table[:, :, None]
    best, ids = logits.topk(min(draws.most, logits.shape[1]))
    place = torch.arange(best.shape[1], device=best.device)
    reached = best.softmax(-1).cumsum(-1)
    # The token that reaches p is the last one that stays; the tail of min-p is cut behind that.
    count = (reached < top_p).sum(-1) + 1
    near = ((reached - top_p).abs() < _NEAR).any(-1) & (top_p[:, 0] < 1)
    far = best[:, :1] - distances
    near |= ((best - far).abs() < _NEAR).any(-1)
    kept = (place < count[:, None]) & ((best >= far) | (place == 0))
    heated = (best / temperatures).masked_fill(~kept, -torch.inf)
    chosen = heated.softmax(-1).cumsum(-1)
    near |= ((chosen - u).abs() < _NEAR).any(-1)
    index = torch.minimum((chosen < u).sum(-1), kept.sum(-1) - 1)
    return ids.gather(1, index[:, None]).squeeze(1), near
