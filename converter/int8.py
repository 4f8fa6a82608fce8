"""Rounds a correction to INT8 with as little loss as its rank allows. Knows no torch."""

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError
from engine.theta import ThetaFactors

_INT8_MAX = 127
_NOTHING = 1e-12
"""Share of the strongest component's energy below which a component is rounding noise of the input."""

_Real = npt.NDArray[np.floating]
_Double = npt.NDArray[np.float64]


def to_int8(u: _Real, v: _Real, *, metric: _Real | None = None) -> ThetaFactors:
    """INT8 factors of B = u v^T, for u (m, r) and v (n, r) of any float type.

    What counts as loss is |(B - B') x|^2 for the inputs x of the layer, averaged: `metric` is their
    R = E[x x^T] (n, n), symmetric and positive semi-definite; without it, the identity. The columns come
    ordered by the energy that they carry, the first r' being the best correction of rank r' but for the
    rounding. V is rounded to absmax / 127 a column, then U fitted anew by least squares, then rounded. A
    component without energy becomes a column of zeros with the scale 0. The largest element of each column of
    V is positive. Raises `ConfigError` for values that are not finite or leave float32.
    """
    left, right = u.astype(np.float64), v.astype(np.float64)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ConfigError("theta has values that are not finite; if it was trained, lower the learning rate")
    left, right = _principal(left, right, metric)
    v8, _ = _round(right)
    u8, scale = _round(_fit(left, right, v8.astype(np.float64), metric))
    if (scale > np.finfo(np.float32).max).any():
        raise ConfigError("theta has values that are too large; if it was trained, lower the learning rate")
    v8[:, scale == 0] = 0
    return ThetaFactors(u8, v8, scale.astype(np.float32))


def _principal(u: _Double, v: _Double, metric: _Real | None) -> tuple[_Double, _Double]:
    """Factors of the same B whose left columns are orthonormal, strongest first.

    With u = Q T, the left singular vectors P of T R^(1/2) come from the r x r matrix
    (T v^T) R (v T^T) = P S^2 P^T, and B = (Q P) (v T^T P)^T whatever the rank of u, v and R.
    """
    q, t = np.linalg.qr(u)
    weak = v @ t.T
    energy, p = np.linalg.eigh(weak.T @ _times(metric, weak))
    order = np.argsort(-energy, kind="stable")
    energy, p = energy[order], p[:, order]
    p[:, energy <= _NOTHING * energy[:1]] = 0
    right = weak @ p
    peaks = np.take_along_axis(right, np.abs(right).argmax(axis=0)[None], axis=0)
    p *= np.where(peaks < 0, -1.0, 1.0)
    missing = ((0, 0), (0, u.shape[1] - p.shape[1]))
    return np.pad(q @ p, missing), np.pad(weak @ p, missing)


def _fit(left: _Double, right: _Double, rounded: _Double, metric: _Real | None) -> _Double:
    """The U that makes |(left right^T - U rounded^T) R^(1/2)| least: B R V (V^T R V)^+ for V = rounded."""
    weighted = _times(metric, rounded)
    fitted: _Double = left @ (right.T @ weighted) @ np.linalg.pinv(rounded.T @ weighted)
    return fitted


def _times(metric: _Real | None, columns: _Double) -> _Double:
    """R columns. R may be large and keeps its own precision."""
    if metric is None:
        return columns
    with np.errstate(over="ignore", invalid="ignore"):
        product: _Double = (metric @ columns.astype(metric.dtype)).astype(np.float64)
    if not np.isfinite(product).all():
        raise ConfigError("the inputs that theta was derived from are not finite or too large")
    return product


def _round(columns: _Double) -> tuple[npt.NDArray[np.int8], _Double]:
    """Columns as INT8, and the scale that gives each back."""
    scale: _Double = np.abs(columns).max(axis=0) / _INT8_MAX
    divisor = np.where(scale > 0, scale, 1.0)
    return np.rint(columns / divisor).astype(np.int8), scale
