"""A bound that was found in one precision, computed again in the other."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import jax
import numpy as np
import pytest

from cvxnn.convex import (
    L1,
    ConvexProgram,
    DualPoint,
    FeatureGroupLasso,
    GatedOperator,
    HuberLoss,
    LogisticLoss,
    MultinomialLoss,
    NeuronGroupLasso,
    SquaredL2,
    SquaredLoss,
    Weights,
    on_host,
    register_pytree,
)
from cvxnn.convex._duality import _best_value
from cvxnn.convex._padding import pad, pad_dual

N, D, P, C = 40, 3, 5, 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_best_scale_may_lie_at_the_edge_of_the_domain(dtype: type) -> None:
    """Of values that rise up to there, the search finds one within, whatever is rounded."""
    edges = np.random.default_rng(0).uniform(0.1, 1.9, 1000).astype(dtype)

    def value(scale: np.ndarray) -> np.ndarray:
        return np.where(scale <= edges, scale, dtype(-np.inf))

    found = _best_value(value, np.ones(1000, dtype))
    np.testing.assert_allclose(found, edges, rtol=1e-5)
    assert (found <= edges).all()


@register_pytree
@dataclass(frozen=True)
class ElasticNet:
    """Half the squares and all absolute values, whose bound is searched."""

    def value(self, U: Any) -> Any:
        return (U**2).sum() / 2 + abs(U).sum()

    def prox(self, U: Any, step: Any) -> Any:
        shrunk = np.sign(U) * np.maximum(abs(U) - step, 0)
        return shrunk / (1 + step)

    def conjugate(self, U: Any) -> Any:
        return (np.maximum(abs(U) - 1, 0) ** 2).sum(axis=(1, 2, 3)) / 2


LOSSES = [SquaredLoss(), HuberLoss(0.3), LogisticLoss(), MultinomialLoss()]
PENALTIES = [NeuronGroupLasso(), FeatureGroupLasso(), L1(), SquaredL2(), ElasticNet()]


def make(loss: Any, penalty: Any, dtype: Any, seed: int, **parts: Any) -> ConvexProgram:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, D)).astype(dtype)
    codes = rng.integers(0, C, N)
    y = rng.standard_normal((N, C))
    if isinstance(loss, LogisticLoss):
        y = np.where(codes[:, None] == np.arange(C), 1.0, -1.0)
    if isinstance(loss, MultinomialLoss):
        y = np.eye(C)[codes]
    operator = GatedOperator(X, rng.standard_normal((N, P)) > 0)
    weight = rng.integers(0, 3, N).astype(dtype)
    return ConvexProgram(operator, y.astype(dtype), 0.02, loss, penalty, weight, "gated", **parts)


@pytest.mark.parametrize("skip", [None, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda part: type(part).__name__)
def test_the_other_precision_finds_the_bound_again(
    loss: Any, penalty: Any, dtype: Any, skip: float | None
) -> None:
    for seed in range(4):
        program = make(loss, penalty, dtype, seed, skip=skip)
        rng = np.random.default_rng(seed)
        weights = Weights(
            rng.standard_normal((C, 1, P, D)).astype(dtype),
            None if skip is None else rng.standard_normal((C, D)).astype(dtype),
        )
        at = program.evaluate(weights)
        found = float(program.bound_of(DualPoint(at.residual, None)))
        other = np.float64 if dtype == np.float32 else np.float32
        dual = DualPoint(np.asarray(at.residual).astype(other), None)
        again = float(on_host(program, other).bound_of(dual))
        assert np.isfinite(found)
        size = abs(float(at.objective))
        assert again == pytest.approx(found, abs=2e-5 * size)
        # It is a bound: no point lies below it.
        nothing = program.evaluate(jax.tree.map(np.zeros_like, weights))
        assert max(found, again) <= min(float(at.objective), float(nothing.objective)) + 1e-5 * size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_off_the_simplex_by_rounding_prove_a_bound(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    program = make(MultinomialLoss(), NeuronGroupLasso(), dtype, 0)
    weights = Weights(rng.standard_normal((C, 1, P, D)).astype(dtype))
    at = program.evaluate(weights)
    true = float(program.bound_of(DualPoint(at.residual, None)))
    for size in (1e-7, 1e-5):
        noise = size * rng.standard_normal(at.residual.shape).astype(dtype)
        near = float(program.bound_of(DualPoint(at.residual + noise, None)))
        assert near == pytest.approx(true, abs=100 * size)
    # What is no probability at all proves nothing.
    assert program.bound_of(DualPoint(at.residual + dtype(0.1), None)) == -np.inf


def exact_bound(program: ConvexProgram, residual: np.ndarray) -> float:
    """Bound for the squared loss and one open pattern, without any rounding but the last."""
    X = [[Fraction(float(value)) for value in row] for row in program.operator.X]
    r, y = ([Fraction(float(value)) for value in part[:, 0]] for part in (residual, program.y))
    n, alpha = len(r), Fraction(program.alpha)
    slope = [sum(ri * row[j] for ri, row in zip(r, X, strict=True)) / n for j in range(len(X[0]))]
    best = sum(ri * yi for ri, yi in zip(r, y, strict=True)) / sum(ri * ri for ri in r)
    scale = max(best, Fraction(0))
    squares = sum(value * value for value in slope)
    if scale * scale * squares > alpha * alpha:
        scale = alpha / Fraction(math.sqrt(squares))
    pairs = zip(r, y, strict=True)
    return float(sum(scale * ri * yi - (scale * ri) ** 2 / 2 for ri, yi in pairs) / n)


@pytest.mark.parametrize("alpha", [1e-24, 1e-20, 1e-16, 1e-12])
def test_a_slope_that_cancels_proves_no_more_than_its_rounding(alpha: float) -> None:
    """Rows are equal and targets have mean zero: what is left of the slope is noise."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        X = np.repeat(rng.standard_normal((1, 3)), 5, axis=0)
        y = rng.standard_normal((5, 1))
        y -= y.mean()
        y -= y.mean()
        program = ConvexProgram(GatedOperator(X, np.ones((5, 1), bool)), y, alpha)
        program = replace(program, formulation="gated")
        dual = DualPoint(y, None)
        found = float(program.bound_of(dual))
        assert found <= exact_bound(program, y) * (1 + 1e-9)
        order = rng.permutation(5)
        mixed = replace(program, operator=GatedOperator(X, np.ones((5, 1), bool)), y=y[order])
        padded = float(pad(program, 8).bound_of(pad_dual(program, dual, 8)))
        others = float(mixed.bound_of(DualPoint(y[order], None))), padded
        assert others == pytest.approx((found, found), rel=1e-9)
