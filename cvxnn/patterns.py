r"""Activation patterns: which rows of the data a gate lets through.

A gate vector :math:`g` splits the rows of ``X`` by the sign of :math:`Xg`; its activation pattern
is the 0/1 vector :math:`1(Xg \ge 0)`, the diagonal of :math:`D_i` in the convex program (Pilanci &
Ergen, 2020). This module is plain NumPy: gates are drawn on the host, so they depend on the seed
alone and never on the device. Gaussian gates through the origin do not depend on the order of the
rows either; gates built from rows of ``X`` do, since rows are drawn by their index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

PatternSource = Literal["gaussian", "data"]

# Give up looking for new patterns after this many draws per pattern asked for.
_MAX_DRAWS_PER_PATTERN = 10


@dataclass(frozen=True)
class ActivationPatterns:
    """Distinct activation patterns and the gates they come from.

    Attributes
    ----------
    mask : ndarray of bool, shape (n_samples, n_patterns)
        ``mask[k, i]`` tells whether gate ``i`` is open on row ``k``.
    gates : ndarray, shape (n_patterns, n_features) or (n_patterns, n_features + 1)
        Gate vectors; the last entry is the offset where gates were drawn with ``bias=True``.
    """

    mask: NDArray[np.bool_]
    gates: NDArray[np.floating]

    def __len__(self) -> int:
        """Give the number of patterns."""
        return self.mask.shape[1]


def add_bias(X: NDArray[np.floating]) -> NDArray[np.floating]:
    """Append a column of ones to ``X``, keeping its dtype."""
    return np.concatenate([X, np.ones((len(X), 1), X.dtype)], axis=1)


def from_gates(
    X: NDArray[np.floating], gates: NDArray[np.floating], *, bias: bool = False
) -> ActivationPatterns:
    """Patterns of given gate vectors: duplicates and patterns that are closed everywhere dropped.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
    gates : ndarray, shape (n_gates, n_features), or (n_gates, n_features + 1) with ``bias=True``
    bias : bool, default=False
        Whether gates carry an offset, so that they need not pass through the origin.

    Returns
    -------
    ActivationPatterns
        At most ``n_gates`` patterns, in the order in which they first appear.

    Raises
    ------
    ValueError
        If the gates have another width than the data.
    """
    width = X.shape[1] + bias
    gates = np.asarray(gates)
    if gates.ndim != 2 or gates.shape[1] != width:
        raise ValueError(
            f"gates have shape {gates.shape}; expected (n_gates, {width}) for data with "
            f"{X.shape[1]} features and bias={bias}."
        )
    gates = gates.astype(X.dtype, copy=False)
    scores = X @ gates[:, :-1].T + gates[:, -1] if bias else X @ gates.T
    mask = scores >= 0
    # Packed columns compare as short byte strings, eight rows to a byte.
    keys = np.ascontiguousarray(np.packbits(mask, axis=0).T)
    _, first = np.unique(keys, axis=0, return_index=True)
    keep = np.sort(first)
    keep = keep[mask[:, keep].any(axis=0)]
    return ActivationPatterns(np.ascontiguousarray(mask[:, keep]), gates[keep])


def sample(
    X: NDArray[np.floating],
    n_patterns: int,
    *,
    source: PatternSource = "gaussian",
    bias: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> ActivationPatterns:
    r"""Draw distinct activation patterns.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Finite data, as the network sees it.
    n_patterns : int
        How many patterns to look for, at least 1. Fewer come back when the data has fewer: with
        rank :math:`r` there are :math:`O(r (n/r)^r)` (Pilanci & Ergen, 2020). After ten draws for
        each pattern asked for, what was found is returned.
    source : {"gaussian", "data"}, default="gaussian"
        ``"gaussian"`` draws gates from :math:`N(0, I)`. ``"data"`` takes differences of two
        random rows; with ``bias=True`` the gate is their perpendicular bisector.
    bias : bool, default=False
        Add an offset to each gate, so that it need not pass through the origin. A Gaussian gate
        then passes through a random row of ``X``.
    random_state : int, RandomState or None
        Seed of the draw.

    Returns
    -------
    ActivationPatterns
        Between 1 and ``n_patterns`` distinct patterns, none closed on every row.

    Raises
    ------
    ValueError
        If ``n_patterns < 1``, the source is unknown, or ``X`` has no rows.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import patterns
    >>> X = np.random.RandomState(0).randn(100, 5)
    >>> patterns.sample(X, 20, random_state=0).mask.shape
    (100, 20)
    """
    if n_patterns < 1:
        raise ValueError(f"n_patterns={n_patterns}; expected at least 1.")
    if source not in ("gaussian", "data"):
        raise ValueError(f"source={source!r}; expected 'gaussian' or 'data'.")
    if len(X) == 0:
        raise ValueError("X has no rows; expected at least one.")
    rng = check_random_state(random_state)
    gates = np.empty((0, X.shape[1] + bias), X.dtype)
    for _ in range(_MAX_DRAWS_PER_PATTERN):
        gates = np.concatenate([gates, _draw(X, n_patterns, source, bias, rng)])
        found = from_gates(X, gates, bias=bias)
        if len(found) >= n_patterns:
            break
        gates = found.gates
    return ActivationPatterns(found.mask[:, :n_patterns], found.gates[:n_patterns])


def _draw(
    X: NDArray[np.floating],
    n_gates: int,
    source: PatternSource,
    bias: bool,
    rng: np.random.RandomState,
) -> NDArray[np.floating]:
    n, d = X.shape
    if source == "gaussian":
        gates = rng.standard_normal((n_gates, d)).astype(X.dtype)
        if bias:
            through = X[rng.randint(n, size=n_gates)]
            offsets = -np.einsum("ij,ij->i", gates, through)
            gates = np.concatenate([gates, offsets[:, None]], axis=1)
        return gates
    left, right = X[rng.randint(n, size=n_gates)], X[rng.randint(n, size=n_gates)]
    gates = left - right
    if bias:
        offsets = ((right**2).sum(axis=1) - (left**2).sum(axis=1)) / 2
        gates = np.concatenate([gates, offsets[:, None]], axis=1)
    return gates
