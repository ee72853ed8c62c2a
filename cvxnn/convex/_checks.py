"""Checks at the door: data, targets and weights of a program, losses and penalties of the user."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.losses import HuberLoss, LogisticLoss, Loss, MultinomialLoss, SquaredLoss
from cvxnn.convex.operators import GatedOperator, PairedOperator
from cvxnn.convex.patterns import Formulation
from cvxnn.convex.penalties import (
    L1,
    FeatureGroupLasso,
    NeuronGroupLasso,
    Penalty,
    SquaredL2,
    WithConjugate,
    WithDualNorm,
)
from cvxnn.numerics.arrays import is_sparse, leaves_of, refuse_sparse
from cvxnn.numerics.stored_rows import is_stored

# Their mathematics is tested; a subclass is another function, and is checked.
_LOSSES = (SquaredLoss, HuberLoss, LogisticLoss, MultinomialLoss)
_PENALTIES = (NeuronGroupLasso, FeatureGroupLasso, L1, SquaredL2)

# Sizes of random predictions and weights, and the relative error that passes for rounding.
_SIZES = (0.1, 1.0, 10.0)
_ROUNDING = 1e-4


def refuse_sparse_program(program: Any, what: str) -> None:
    """Refuse a program of sparse rows, with the name of the one solver that takes them.

    Raises
    ------
    TypeError
        If the rows are sparse.
    """
    ridge = (
        "Ridge, which takes sparse rows in the gated formulation with SquaredLoss, SquaredL2 and "
        "alpha above 0"
    )
    refuse_sparse(program.operator.X, what, ridge)


def check_shapes(operator: Any, y: Any, sample_weight: Any) -> None:
    """Refuse arrays that do not fit together; only shapes and dtypes are looked at.

    Raises
    ------
    TypeError
        For what is no array, or of another dtype.
    ValueError
        For another shape.
    """
    if not isinstance(operator, GatedOperator):
        raise TypeError(f"operator={operator!r}; expected GatedOperator(X, mask).")
    n = _check_array("X", operator.X, "(n_samples, n_features)", (None, None), "f")[0]
    mask = "(n_samples, n_patterns), a row for each row of X"
    _check_array("mask", operator.mask, mask, (n, None), "b")
    rows = "row of X"
    if isinstance(operator, PairedOperator):
        n = _check_array("pairs", operator.pairs, "(n_pairs, 2)", (None, 2), "i")[0]
        rows = "pair"
    _check_array("y", y, f"(n_samples, n_outputs), a row for each {rows}", (n, None), "f")
    if sample_weight is not None:
        _check_array("sample_weight", sample_weight, "(n_samples,)", (n,), "f")


def check_values(operator: GatedOperator, y: Any, sample_weight: Any, loss: Any) -> None:
    """Refuse data that are not finite, and weights and targets out of range.

    Raises
    ------
    ValueError
        The message says what to change.
    """
    if isinstance(operator, PairedOperator):
        pairs, n = np.asarray(operator.pairs), operator.X.shape[0]
        if not ((pairs >= 0) & (pairs < n)).all():
            raise ValueError(f"pairs must be row numbers of X, from 0 to {n - 1}.")
    X = operator.X.data if is_sparse(operator.X) else operator.X
    for name, array in (("X", X), ("y", y), ("sample_weight", sample_weight)):
        if array is not None and not _is_finite(array):
            raise ValueError(
                f"{name} holds NaN or infinite values, with which no objective or bound exists; "
                "remove or impute them."
            )
    if 0 in y.shape:
        raise ValueError(f"y has shape {y.shape}; expected at least one row and one output.")
    sample_weight = None if sample_weight is None else np.asarray(sample_weight)
    if sample_weight is not None and not ((sample_weight >= 0).all() and sample_weight.sum() > 0):
        raise ValueError("sample_weight must be non-negative, and not zero everywhere.")
    y = np.asarray(y)
    if type(loss) is LogisticLoss and not (np.abs(y) == 1).all():
        raise ValueError("LogisticLoss takes targets -1 and 1, and y holds others: use 2 * y - 1.")
    if type(loss) is MultinomialLoss and not (
        (y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=1e-5)
    ):
        raise ValueError(
            "MultinomialLoss takes one-hot targets, and y has rows that are negative or do not add "
            "up to 1; use y = np.eye(n_classes)[labels]."
        )
    if type(loss) is HuberLoss and not 0 < float(loss.delta) < np.inf:
        raise ValueError(f"HuberLoss has delta={loss.delta!r}; expected a finite number above 0.")


def _is_finite(array: Any) -> bool:
    return array.is_finite() if is_stored(array) else bool(np.isfinite(array).all())


def number(name: str, value: Any) -> float:
    """Return a number that has to be finite and at least 0.

    Raises
    ------
    ValueError
        The message names it.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = np.nan
    if not 0 <= found < np.inf:
        import jax

        shown = value if np.isnan(found) and not isinstance(value, jax.Array) else found
        raise ValueError(f"{name}={shown!r}; expected a finite number of at least 0.")
    return found


def check_alpha(alpha: Any, n_outputs: int, penalty: Any) -> None:
    """Refuse strengths that are negative or not finite, or several where there is one.

    Raises
    ------
    TypeError
        For a strength of each output with a penalty other than ``SquaredL2``.
    ValueError
        For numbers out of range, or another number of them.
    """
    if np.ndim(alpha) == 0:
        number("alpha", alpha)
        return
    if np.shape(alpha) != (n_outputs,):
        raise ValueError(
            f"alpha has shape {np.shape(alpha)}; expected a number, or one for each of the "
            f"{n_outputs} outputs."
        )
    if type(penalty) is not SquaredL2:
        raise TypeError(
            f"alpha has a value for each output, which SquaredL2 takes, not "
            f"{type(penalty).__name__}; divide the targets of an output by r instead, which "
            "multiplies the strength of a norm by r."
        )
    for c, value in enumerate(np.asarray(alpha)):
        number(f"alpha[{c}]", value)


def check_loss(loss: Any, y: NDArray[np.floating]) -> None:
    """Refuse a loss of the user's whose methods contradict each other, at random predictions.

    Raises
    ------
    TypeError
        If it is no loss.
    ValueError
        If the gradient is not that of a convex function with this conjugate and curvature.
    """
    if type(loss) in _LOSSES:
        return
    _require(loss, Loss, "loss", "SquaredLoss()", ("curvature", "coupled"))
    name, rng = type(loss).__name__, np.random.default_rng(0)
    axis = (1,) if loss.coupled else ()
    shape = (len(y), 1) if loss.coupled else y.shape
    points = [size * rng.standard_normal(y.shape) for size in _SIZES]
    slopes = [_numbers(loss.gradient(f, y)) for f in points]
    for f, z in zip(points, slopes, strict=True):
        value, conjugate = _numbers(loss.value(f, y)), _numbers(loss.conjugate(z, y))
        if value.shape != shape or conjugate.shape != shape or z.shape != y.shape:
            raise ValueError(
                f"{name}: for predictions of shape {y.shape}, value and conjugate have shapes "
                f"{value.shape} and {conjugate.shape}, the gradient {z.shape}; expected {shape} "
                f"and {y.shape}."
            )
        product = (f * z).sum(axis=axis, keepdims=bool(axis))
        _compare(f"{name}: value, gradient and conjugate", value + conjugate, product, value)
    change = np.linalg.norm(slopes[1] - slopes[0], axis=1)
    limit = float(loss.curvature) * np.linalg.norm(points[1] - points[0], axis=1)
    if not (change <= (1 + _ROUNDING) * limit).all():
        raise ValueError(
            f"{name}.curvature={loss.curvature!r} is too small: the gradient changes by "
            f"{np.max(change / limit):.3g} times as much. Give a bound of the second derivative."
        )


def check_formulation(formulation: str, operator: GatedOperator, skip: Any) -> None:
    """Refuse an unknown formulation, and one that an operator of pairs does not take.

    Parameters
    ----------
    formulation : {"relu", "gated"}
        That of the program.
    operator : GatedOperator
        That of the program.
    skip : number or None
        Ridge penalty of the linear part; None without one.

    Raises
    ------
    ValueError
        If the formulation is unknown, or does not go with the operator.
    """
    known = get_args(Formulation)
    if formulation not in known:
        raise ValueError(f"formulation={formulation!r}; expected one of {known}.")
    if isinstance(operator, PairedOperator) and (formulation != "gated" or skip is not None):
        raise ValueError(
            "a PairedOperator takes the gated formulation without a linear part; set "
            "formulation='gated' and skip=None, or use GatedOperator."
        )


def check_linear_part(skip: Any, loss: Loss) -> None:
    """Refuse a ridge of the linear part that is none, or without which there is no minimiser.

    Parameters
    ----------
    skip : number
        Ridge penalty of the linear part.
    loss : Loss
        Of the program.

    Raises
    ------
    ValueError
        If it is negative or not finite, or 0 under a logistic loss.
    """
    if number("skip", skip) == 0 and isinstance(loss, LogisticLoss | MultinomialLoss):
        raise ValueError(
            "A linear part without a ridge may have no minimiser under a logistic loss; "
            "give it a small one, such as skip=1e-4."
        )


def check_penalty(penalty: Any, shape: tuple[int, ...]) -> None:
    """Refuse a penalty of the user's whose methods contradict each other, at random weights.

    Raises
    ------
    TypeError
        If it is no penalty, or has neither a dual norm nor a conjugate.
    ValueError
        If its proximal map is not that of a function with this dual norm or conjugate.
    """
    if type(penalty) in _PENALTIES:
        return
    _require(penalty, Penalty, "penalty", "NeuronGroupLasso()")
    name, rng = type(penalty).__name__, np.random.default_rng(0)
    if not isinstance(penalty, WithConjugate | WithDualNorm):
        raise TypeError(
            f"{name} has neither dual_norm nor conjugate, without which nothing proves a bound; "
            "write dual_norm(U) if it is a norm, else conjugate(U), each a number per output."
        )
    for size in _SIZES:
        U = size * rng.standard_normal(shape)
        P = _numbers(penalty.prox(U, 1.0))
        # A subgradient at P, where value and conjugate add up to the inner product.
        Z = U - P
        value, product = _numbers(penalty.value(P)), (P * Z).sum()
        if isinstance(penalty, WithConjugate):
            conjugate = _numbers(penalty.conjugate(Z))
            _check_outputs(f"{name}.conjugate", conjugate, shape)
            total = value + conjugate.sum()
            _compare(f"{name}: value, prox and conjugate", total, product, value)
            continue
        dual = _numbers(penalty.dual_norm(Z))
        _check_outputs(f"{name}.dual_norm", dual, shape)
        _compare(f"{name}: value and prox", value, product, value)
        # At most 1, and exactly 1 where the weights are not zero.
        kept = np.abs(P).max(axis=tuple(range(1, P.ndim)), initial=0) > 0
        _compare(f"{name}: value, prox and dual_norm", np.where(kept, dual, 1), 1.0, 1.0)
        _compare(f"{name}: value, prox and dual_norm", np.maximum(dual, 1), 1.0, 1.0)


def _require(
    part: Any, protocol: Any, role: str, example: str, attributes: tuple[str, ...] = ()
) -> None:
    methods = [name for name in vars(protocol) if not name.startswith("_")]
    missing = [name for name in {*methods, *attributes} if not hasattr(part, name)]
    if missing or isinstance(part, type):
        lacks = "" if isinstance(part, type | str) else f" It has no {', '.join(sorted(missing))}."
        raise TypeError(
            f"{role}={part!r}; expected an instance of a {role} of cvxnn.convex, such as "
            f"{example}, or of your own.{lacks}"
        )
    if any(leaf is part for leaf in leaves_of(part)):
        raise TypeError(
            f"{type(part).__name__} is no pytree, so that nothing compiles it; write "
            "@register_pytree (of cvxnn.convex) above @dataclass(frozen=True)."
        )


def _numbers(values: Any) -> NDArray[np.floating]:
    return np.asarray(values, np.float64)


def _check_outputs(what: str, values: NDArray[np.floating], shape: tuple[int, ...]) -> None:
    if values.shape != shape[:1]:
        raise ValueError(
            f"{what} has shape {values.shape} for weights of shape {shape}; expected "
            f"{shape[:1]}, one number for each output."
        )


def _compare(what: str, left: Any, right: Any, size: Any) -> None:
    """Raise unless two sides of a Fenchel equality agree up to rounding."""
    allowed = _ROUNDING * np.maximum(np.abs(right), np.abs(size)) + 1e-12
    if not (np.abs(left - right) <= allowed).all():
        worst = np.argmax(np.abs(left - right))
        there = [float(np.broadcast_to(side, np.shape(left)).flat[worst]) for side in (left, right)]
        raise ValueError(
            f"{what} contradict each other, so that no bound could be trusted: at a random "
            f"point {there[0]:.6g} has to equal {there[1]:.6g} (Fenchel-Young). Correct their "
            "formulas; see the guide, 'Your own loss, penalty, solver'."
        )


def _check_array(
    name: str, array: Any, expected: str, shape: tuple[int | None, ...], kind: str
) -> tuple[int, ...]:
    found = getattr(array, "shape", None)
    if found is None or not hasattr(array, "dtype"):
        raise TypeError(
            f"{name} is a {type(array).__name__}; expected an array of shape {expected}."
        )
    fits = len(found) == len(shape)
    if not fits or any(want not in (None, have) for want, have in zip(shape, found, strict=True)):
        column = " A single output is a column, y[:, None]." if name == "y" and not fits else ""
        raise ValueError(f"{name} has shape {found}; expected {expected}.{column}")
    if np.dtype(array.dtype).kind != kind:
        kinds = {"b": "bool, such as X @ gates.T >= 0", "i": "int64", "f": "float32 or float64"}
        raise TypeError(f"{name} has dtype {array.dtype}; expected {kinds[kind]}.")
    return tuple(found)
