"""Second-order cones for the interior-point method: pairs of points, last axis ``(1 + d)``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class NesterovToddScaling:
    """Scaling of Nesterov and Todd: the symmetric ``W`` with ``W y = W^-1 x``.

    ``W = eta [[w0, w1^T], [w1, I + w1 w1^T / (1 + w0)]]`` with ``w0**2 - |w1|**2 = 1``.

    Parameters
    ----------
    x, y : ndarray, shape (..., 1 + d)
        Points inside the cones.

    Attributes
    ----------
    w0 : ndarray, shape (...)
        First entry of the unit vector that defines ``W``, at least 1.
    w1 : ndarray, shape (..., d)
        Its other entries.
    eta : ndarray, shape (...)
        Scale of ``W``, positive.
    point : ndarray, shape (..., 1 + d)
        ``W y``, where both points meet.
    """

    def __init__(self, x: Floats, y: Floats) -> None:
        size_x, size_y = np.sqrt(_determinant(x)), np.sqrt(_determinant(y))
        unit_x, unit_y = x / size_x[..., None], y / size_y[..., None]
        gamma = np.sqrt((1 + (unit_x * unit_y).sum(axis=-1)) / 2)
        w = (unit_x + _reflect(unit_y)) / (2 * gamma)[..., None]
        self.w0, self.w1 = w[..., 0], w[..., 1:]
        self.eta = np.sqrt(size_x / size_y)
        self.point = self.scale(y)

    def scale(self, y: Floats) -> Floats:
        """Return ``W y``."""
        return _apply(self.w0, self.w1, y) * self.eta[..., None]

    def unscale(self, x: Floats) -> Floats:
        """Return ``W^-1 x``."""
        return _apply(self.w0, -self.w1, x) / self.eta[..., None]

    def divide(self, r: Floats) -> Floats:
        """Return the ``q`` whose Jordan product with ``point`` is ``r``."""
        p = self.point
        first = p[..., 0] * r[..., 0] - (p[..., 1:] * r[..., 1:]).sum(axis=-1)
        first /= _determinant(p)
        rest = (r[..., 1:] - first[..., None] * p[..., 1:]) / p[..., :1]
        return np.concatenate([first[..., None], rest], axis=-1)


def product(x: Floats, y: Floats) -> Floats:
    """Return the Jordan product."""
    first = (x * y).sum(axis=-1, keepdims=True)
    return np.concatenate([first, x[..., :1] * y[..., 1:] + y[..., :1] * x[..., 1:]], axis=-1)


def blocking(x: Floats, dx: Floats) -> float:
    """Return one over the longest step from ``x`` along ``dx`` within all cones."""
    if not x.size:
        return 0.0
    size = np.sqrt(_determinant(x))
    unit = x / size[..., None]
    inner = (unit * _reflect(dx)).sum(axis=-1)
    factor = (inner + dx[..., 0]) / (1 + unit[..., 0])
    rest = np.linalg.norm(dx[..., 1:] - factor[..., None] * unit[..., 1:], axis=-1)
    return float(((rest - inner) / size).max(initial=0))


def map_spectrum(x: Floats, low: float, high: float) -> Floats:
    """Return the change that brings the spectral values of ``x`` into ``[low, high]``.

    No value falls by more than ``high``.
    """
    norm = np.linalg.norm(x[..., 1:], axis=-1)
    values = np.stack([x[..., 0] + norm, x[..., 0] - norm])
    changes = np.maximum(np.clip(values, low, high) - values, -high)
    direction = x[..., 1:] / np.maximum(norm, np.finfo(np.float64).tiny)[..., None]
    rest = ((changes[0] - changes[1]) / 2)[..., None] * direction
    return np.concatenate([changes.mean(axis=0)[..., None], rest], axis=-1)


def _apply(w0: Floats, w1: Floats, y: Floats) -> Floats:
    inner = (w1 * y[..., 1:]).sum(axis=-1)
    factor = y[..., 0] + inner / (1 + w0)
    rest = y[..., 1:] + factor[..., None] * w1
    return np.concatenate([(w0 * y[..., 0] + inner)[..., None], rest], axis=-1)


def _determinant(x: Floats) -> Floats:
    norm = np.linalg.norm(x[..., 1:], axis=-1)
    # Rounding may put a point on the boundary.
    eps = np.finfo(np.float64).eps
    return np.maximum(x[..., 0] - norm, eps * x[..., 0]) * (x[..., 0] + norm)


def _reflect(x: Floats) -> Floats:
    return np.concatenate([x[..., :1], -x[..., 1:]], axis=-1)
