"""Sources of activation patterns that need no training.

This module is plain NumPy: gates are drawn on the host, so they depend on the seed alone and never
on the device. Gaussian gates through the origin do not depend on the order of the rows either;
gates built from rows of ``X`` do, since rows are drawn by their index.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.convex.thresholds import threshold_gates
from cvxnn.numerics.arrays import refuse_sparse
from cvxnn.numerics.threads import limits_threads

PatternSource = Literal["gaussian", "data", "thresholds", "sparse", "patch"]

# Options of each source; an option of another one is refused, not ignored.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "gaussian": (),
    "data": ("y",),
    "thresholds": ("feature_chances",),
    "sparse": ("sparsity",),
    "patch": ("image_shape", "patch_shape"),
}

# Give up looking for new patterns after this many draws per pattern asked for.
_MAX_DRAWS_PER_PATTERN = 10


@limits_threads(lambda X, n_patterns, **_: 2.0 * X.size * n_patterns)
def sample_patterns(
    X: NDArray[np.floating],
    n_patterns: int,
    *,
    patterns: PatternSource = "gaussian",
    bias: bool = False,
    n_constant: int = 0,
    y: ArrayLike | None = None,
    feature_chances: ArrayLike | None = None,
    sparsity: int | None = None,
    image_shape: tuple[int, ...] | None = None,
    patch_shape: tuple[int, int] | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> ActivationPatterns:
    r"""Draw distinct activation patterns.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Finite data, as the network sees it. It may be sparse where gates pass through the origin
        and have nothing to do with rows: for ``"gaussian"``, ``"sparse"`` and ``"patch"``, without
        ``bias`` and ``n_constant``.
    n_patterns : int
        How many patterns to look for, at least 1. Fewer come back when the data has fewer: with
        rank :math:`r` there are :math:`O(r (n/r)^r)` (Pilanci & Ergen, 2020). After ten draws for
        each pattern asked for, what was found is returned.
    patterns : {"gaussian", "data", "thresholds", "sparse", "patch"}, default="gaussian"
        ``"gaussian"`` draws gates from :math:`N(0, I)`. ``"data"`` takes differences of two
        random rows. ``"thresholds"`` draws conjunctions of two thresholds, each of a random feature
        and open on a random side; they need an offset (``bias=True`` or ``n_constant``).
        ``"sparse"`` draws Gaussian entries on a few random features, and ``"patch"``
        on a rectangle at a random place of an image; all their other entries are zero.
    bias : bool, default=False
        Add an offset to each gate, so that it need not pass through the origin: it passes beside
        a random row of ``X``, or between the two rows of ``"data"``.
    n_constant : int, default=0
        How many of the last columns of ``X`` are constant, such as the ones of ``add_bias``. They
        carry the offset that ``bias=True`` would append, in equal shares; gates look at the
        other columns only. With 0, every column is a feature like any other.
    y : array-like, shape (n_samples,), optional
        For ``"data"``: class labels. Only pairs of rows of different classes are drawn, each with
        the same chance. Leave it out for regression targets.
    feature_chances : array-like, shape (n_features,), optional
        For ``"thresholds"``: how often features are drawn, in proportion: finite, at least 0 and
        not all 0. Equal by default.
    sparsity : int, optional
        For ``"sparse"``: features per gate; by default the square root of their number, rounded up.
    image_shape : tuple of int, optional
        For ``"patch"``: ``(height, width)`` or ``(height, width, channels)`` of the images whose
        pixels, in C order, are the features.
    patch_shape : tuple of int, optional
        For ``"patch"``: ``(height, width)`` of a patch, which covers all channels.
    random_state : int, RandomState or None
        Seed of the draw.

    Returns
    -------
    ActivationPatterns
        Between 1 and ``n_patterns`` distinct patterns, none closed on every row.

    Raises
    ------
    TypeError
        If ``X`` is sparse and gates depend on its rows.
    ValueError
        If ``n_patterns < 1``, the source is unknown or was given an option of another one, ``X``
        has no rows, the last ``n_constant`` columns are not constant or are zero, thresholds have
        no offset, ``y`` has another length or a single class, or a shape or ``sparsity`` does not
        fit the features.

    Notes
    -----
    Gates are in general position: no row lies on one, where rounding would decide its side. A gate
    with an offset lies at a random place of the gap between two neighbouring rows. Without offsets,
    the differences of ``"data"`` are turned at random by about half a degree, since rows of
    integers are often orthogonal to them. Only rows without any feature of a gate (rows of zeros,
    or zeros where a ``"sparse"`` or ``"patch"`` gate is not zero) lie on every gate through the
    origin; it is open on them.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.convex import sample_patterns
    >>> X = np.random.RandomState(0).randn(100, 64)
    >>> sample_patterns(X, 20, random_state=0).mask.shape
    (100, 20)
    >>> found = sample_patterns(
    ...     X, 20, patterns="patch", image_shape=(8, 8), patch_shape=(3, 3), random_state=0
    ... )
    >>> int((found.gates[0] != 0).sum())
    9
    """
    if n_patterns < 1:
        raise ValueError(f"n_patterns={n_patterns}; expected at least 1.")
    options = {
        "y": y,
        "feature_chances": feature_chances,
        "sparsity": sparsity,
        "image_shape": image_shape,
        "patch_shape": patch_shape,
    }
    _check_patterns(patterns, {name for name, value in options.items() if value is not None})
    if X.shape[0] == 0:
        raise ValueError("X has no rows; expected at least one.")
    if patterns in ("data", "thresholds") or bias or n_constant:
        own = patterns in ("data", "thresholds")
        what = f"patterns={patterns!r}" if own else "gates beside or between rows"
        refuse_sparse(X, what, "patterns='gaussian' with bias=False and n_constant=0")
    constants = _constants(X, n_constant, bias)
    features = X[:, : X.shape[1] - n_constant]
    n, d = features.shape
    if patterns == "thresholds" and not len(constants):
        raise ValueError(
            "patterns='thresholds' needs gates with an offset; set bias=True, or n_constant to the "
            "number of constant columns at the end of X."
        )
    labels = None if y is None else _check_labels(y, n)
    chances = None if feature_chances is None else _check_chances(feature_chances, d)
    n_active = _check_sparsity(sparsity, d) if patterns == "sparse" else d
    image, patch = _check_shapes(image_shape, patch_shape, d) if patterns == "patch" else ((), ())
    rng = check_random_state(random_state)

    def draw(count: int) -> NDArray[np.floating]:
        if patterns == "thresholds":
            return threshold_gates(features, constants, count, rng, chances)
        if patterns == "data":
            left, right = (features[rows] for rows in _pairs(n, count, labels, rng))
            gates, through = left - right, (left + right) / 2
            same = ~gates.any(axis=1)  # equal rows have nothing between them: any direction will do
            gates[same] = rng.standard_normal((same.sum(), d))
            if not len(constants):
                gates = _turned(gates, rng)
        else:
            if patterns == "gaussian":
                gates = rng.standard_normal((count, d))
            elif patterns == "sparse":
                gates = _sparse(count, d, n_active, rng)
            else:
                gates = _patches(count, image, patch, rng)
            gates = gates.astype(X.dtype, copy=False)
            if len(constants):
                through = features[rng.randint(n, size=count)]
        if not len(constants):
            return gates
        thresholds = _between_rows(features @ gates.T, np.einsum("ij,ij->i", gates, through), rng)
        offsets = -thresholds[:, None] / (len(constants) * constants)
        return np.concatenate([gates, offsets.astype(X.dtype)], axis=1)

    fresh = draw(n_patterns)
    found = ActivationPatterns.from_gates(X, fresh, bias=bias)
    for _ in range(_MAX_DRAWS_PER_PATTERN - 1):
        if len(found) >= n_patterns:
            break
        # Some of those may be known or closed again.
        fresh = draw(min(2 * (n_patterns - len(found)) + 8, n_patterns))
        found = found.union(ActivationPatterns.from_gates(X, fresh, bias=bias))
    if not len(found):  # Every gate was closed everywhere, so its opposite is open everywhere.
        found = ActivationPatterns.from_gates(X, -fresh, bias=bias)
    return ActivationPatterns(found.mask[:, :n_patterns], found.gates[:n_patterns])


def _turned(
    gates: NDArray[np.floating], rng: np.random.RandomState, angle: float = 0.01
) -> NDArray[np.floating]:
    """Turn gates by about ``angle``, so that no row is orthogonal to them but by chance.

    Parameters
    ----------
    gates : ndarray, shape (n_gates, n_features)
        Gate vectors.
    rng : RandomState
        Draws the turns.
    angle : float, default=0.01
        Angle in radians.
    """
    sizes = np.linalg.norm(gates, axis=1, keepdims=True)
    noise = rng.standard_normal(gates.shape) * (angle / math.sqrt(gates.shape[1]))
    return gates + (sizes * noise).astype(gates.dtype)


def _between_rows(
    scores: NDArray[np.floating], thresholds: NDArray[np.floating], rng: np.random.RandomState
) -> NDArray[np.floating]:
    """Move thresholds to a random place between the neighbouring scores, (n_samples, n_gates).

    Rows at a threshold, up to rounding, count as above it, so that no row changes sides.

    Parameters
    ----------
    scores : ndarray, shape (n_samples, n_gates)
        Rows times gate vectors.
    thresholds : ndarray, shape (n_gates,)
        Score from which on each gate is open.
    rng : RandomState
        Draws the places.
    """
    lowest, highest = scores.min(axis=0), scores.max(axis=0)
    rounding = 10 * np.finfo(scores.dtype).eps * np.maximum(highest, -lowest)
    thresholds = thresholds - rounding
    with np.errstate(all="ignore"):
        # The nearest on either side is the extreme of the inverse, with no mask to look through.
        inverse = 1 / (scores - thresholds)
        nearest = 1 / np.stack([inverse.min(axis=0), inverse.max(axis=0)])
    # Where all rows are on one side, the gap is as wide as their range.
    width = highest - lowest
    width = np.where(width > rounding, width, 1)
    low = np.where(lowest < thresholds, thresholds + nearest[0], lowest - width)
    high = np.where(highest >= thresholds, thresholds + nearest[1], highest + width)
    place: NDArray[np.floating] = rng.uniform(0.25, 0.75, size=len(thresholds))
    return low + place * (high - low)


def _pairs(
    n: int, n_pairs: int, labels: NDArray[np.intp] | None, rng: np.random.RandomState
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return indices of random pairs of rows, of different classes if there are labels.

    Parameters
    ----------
    n : int
        Number of rows.
    n_pairs : int
        Number of pairs.
    labels : ndarray of int, shape (n,), or None
        Classes of the rows, numbered from 0; at least two.
    rng : RandomState
        Draws the pairs.
    """
    if labels is None:
        return rng.randint(n, size=n_pairs), rng.randint(n, size=n_pairs)
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    # A row comes first as often as it has partners, so that all pairs have the same chance.
    partners = n - sizes[labels]
    left = rng.choice(n, size=n_pairs, p=partners / partners.sum())
    right = rng.randint(partners[left])
    # The n-th partner, counted over the rows sorted by class: step over the class of the left row.
    own = labels[left]
    right += np.where(right >= (np.cumsum(sizes) - sizes)[own], sizes[own], 0)
    return left, order[right]


def _sparse(
    n_gates: int, n_features: int, n_active: int, rng: np.random.RandomState
) -> NDArray[np.floating]:
    """Return Gaussian gate vectors with ``n_active`` nonzero entries at random places each."""
    gates = np.zeros((n_gates, n_features))
    active = np.argsort(rng.random_sample(gates.shape), axis=1)[:, :n_active]
    np.put_along_axis(gates, active, rng.standard_normal(active.shape), axis=1)
    return gates


def _patches(
    n_gates: int, image: tuple[int, ...], patch: tuple[int, ...], rng: np.random.RandomState
) -> NDArray[np.floating]:
    """Return Gaussian gate vectors that see a patch of an image, at a random place each."""
    gates = np.zeros((n_gates, *image))
    rows, columns = (
        rng.randint(whole - part + 1, size=(n_gates, 1)) + np.arange(part)
        for whole, part in zip(image, patch, strict=False)
    )
    gate = np.arange(n_gates)[:, None, None]
    values = rng.standard_normal((n_gates, *patch, *image[2:]))
    gates[gate, rows[:, :, None], columns[:, None, :]] = values
    return gates.reshape(n_gates, -1)


def _check_patterns(patterns: str, given: set[str]) -> None:
    """Refuse an unknown kind of patterns, and options that belong to another kind."""
    if patterns not in _OPTIONS:
        known = ", ".join(map(repr, _OPTIONS))
        raise ValueError(f"patterns={patterns!r}; expected one of {known}.")
    for owner, names in _OPTIONS.items():
        for name in names:
            if name in given and owner != patterns:
                raise ValueError(
                    f"{name} is an option of patterns={owner!r}; leave it out with "
                    f"patterns={patterns!r}."
                )


def _constants(X: NDArray[np.floating], n_constant: int, bias: bool) -> NDArray[np.floating]:
    """Return the values of the columns that carry the offset, of which there may be none."""
    if not 0 <= n_constant < max(X.shape[1], 1):
        raise ValueError(
            f"n_constant={n_constant}; expected at least 0 and less than the {X.shape[1]} columns "
            "of X."
        )
    if bias and n_constant:
        raise ValueError(
            f"bias=True and n_constant={n_constant} both give the gates an offset; choose one."
        )
    if bias:
        return np.ones(1, X.dtype)
    if n_constant == 0:
        return np.zeros(0, X.dtype)
    constants = X[:, X.shape[1] - n_constant :]
    if (constants != constants[0]).any() or (constants[0] == 0).any():
        raise ValueError(
            f"the last {n_constant} columns of X are not constant and nonzero; expected "
            "n_constant such columns, e.g. n_constant=1 after add_bias(X)."
        )
    return constants[0]


def _check_labels(y: ArrayLike, n: int) -> NDArray[np.intp]:
    """Return the classes of labels, numbered from 0."""
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise ValueError(f"y has shape {labels.shape}; expected one label for each row, ({n},).")
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("y has a single class; leave y out to draw pairs from all rows.")
    return codes


def _check_sparsity(sparsity: int | None, d: int) -> int:
    """Return the number of features that a sparse gate sees: the root of all by default."""
    n_active = math.isqrt(max(d - 1, 0)) + 1 if sparsity is None else sparsity
    if not 1 <= n_active <= d:
        raise ValueError(f"sparsity={sparsity}; expected between 1 and the {d} features.")
    return n_active


def _check_chances(chances: ArrayLike, d: int) -> NDArray[np.floating]:
    """Return how often each feature is drawn."""
    found = np.asarray(chances, np.float64)
    if found.shape != (d,) or not np.all(np.isfinite(found) & (found >= 0)) or not found.any():
        raise ValueError(
            f"feature_chances={chances!r}; expected {d} finite numbers, one for each feature, at "
            "least 0 and not all 0."
        )
    return found


def _check_shapes(
    image: tuple[int, ...] | None, patch: tuple[int, ...] | None, d: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of an image and of a patch that fits into it."""
    if image is None or patch is None:
        raise ValueError("patterns='patch' needs both image_shape and patch_shape.")
    if len(image) not in (2, 3) or min(image) < 1 or math.prod(image) != d:
        raise ValueError(
            f"image_shape={image}; expected (height, width) or (height, width, channels) whose "
            f"product is the number of features, {d} (constant columns not counted)."
        )
    fits = len(patch) == 2 and all(
        1 <= part <= whole for part, whole in zip(patch, image, strict=False)
    )
    if not fits:
        raise ValueError(
            f"patch_shape={patch}; expected (height, width) between (1, 1) and {tuple(image[:2])}."
        )
    return tuple(image), tuple(patch)
