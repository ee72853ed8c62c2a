"""Sparse rows: each public function works as on dense ones, or refuses them and says what would."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from cvxnn import training
from cvxnn.convex import (
    ActivationPatterns,
    ConvexProgram,
    Cronos,
    DualPoint,
    GatedOperator,
    InteriorPoint,
    NeuronGroupLasso,
    ProximalGradient,
    Ridge,
    SquaredL2,
    Weights,
    add_bias,
    automatic,
    cone_decomposition,
    enumerate_patterns,
    regularization_path,
    sample_patterns,
    solve,
    solve_on_working_sets,
    solve_with_cvxpy,
)

rng = np.random.default_rng(0)
X = np.where(rng.random((30, 6)) < 0.5, rng.standard_normal((30, 6)), 0)
GATES = rng.standard_normal((5, 6))
Y = rng.standard_normal((30, 2))
DUAL = DualPoint(Y / 2, None)
WEIGHT = rng.integers(0, 3, 30).astype(float)

KINDS = [sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.coo_array]
REFUSED = r"X is sparse \(.*\), and .* needs a dense array; pass X\.toarray\(\)"


def program(X: Any, **parts: Any) -> ConvexProgram:
    operator = GatedOperator(X, (X @ GATES.T) >= 0)
    return ConvexProgram(
        operator, Y, 0.1, **{"formulation": "gated", "penalty": SquaredL2(), **parts}
    )


LASSO: dict[str, Any] = {"penalty": NeuronGroupLasso()}
RELU: dict[str, Any] = {**LASSO, "formulation": "relu"}
POINT = Weights(rng.standard_normal((2, 1, 5, 6)))
SKIPPING = POINT._replace(linear=rng.standard_normal((2, 6)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "compute",
    [
        lambda X: sample_patterns(X, 5, random_state=0).mask,
        lambda X: sample_patterns(X, 5, patterns="sparse", random_state=0).mask,
        lambda X: ActivationPatterns.from_gates(X, np.column_stack([GATES, GATES[:, 0]]), bias=True)
        .mask,
        lambda X: sparse.csr_array(add_bias(X)).toarray(),
        lambda X: solve(program(X), Ridge()).weights.blocks,
        lambda X: solve(program(X, sample_weight=WEIGHT), Ridge(max_dense=1)).weights.blocks,
        lambda X: solve(program(X, skip=0.3), Ridge()).weights.linear,
        lambda X: solve(program(X), automatic(program(X), tol=1e-3)).dual_bound,
        lambda X: regularization_path(program(X), alphas=[1.0, 0.1]).results[1].objective,
        lambda X: program(X, **LASSO).evaluate(POINT).objective,
        lambda X: program(X, skip=0.3, **LASSO).evaluate(SKIPPING).objective,
        lambda X: program(X, **LASSO).alpha_max(),
        lambda X: program(X, skip=0.3, sample_weight=WEIGHT, **LASSO).alpha_max(),
        lambda X: program(X, **LASSO).bound_of(DUAL),
        lambda X: program(X, skip=0.3, sample_weight=WEIGHT, **LASSO).bound_of(DUAL),
        lambda X: program(X).zeros().blocks,
        lambda X: training.draw_patterns(X, Y, 5, "gaussian", np.random.RandomState(0)).mask,
        lambda X: training.measure_strength(program(X), "auto", np.random.RandomState(0)).alpha,
        lambda X: training.train(
            X, Y, 0.1, 5, penalty=SquaredL2(), formulation="gated", patterns="gaussian",
            random_state=0,
        ).result.objective,
    ],
)  # fmt: skip
def test_as_on_dense_rows(kind: Callable[[Any], Any], compute: Callable[[Any], Any]) -> None:
    given = kind(X)
    np.testing.assert_allclose(compute(given), compute(X), rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(given.toarray(), X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("attempt", "instead"),
    [
        (lambda X: sample_patterns(X, 5, patterns="data"), "patterns='gaussian'"),
        (lambda X: sample_patterns(X, 5, bias=True), "bias=False"),
        (lambda X: sample_patterns(X, 5, n_constant=1), "n_constant=0"),
        (lambda X: enumerate_patterns(X), "sample_patterns"),
        (lambda X: solve(program(X), InteriorPoint()), "Ridge, which takes sparse rows"),
        (lambda X: solve(program(X, **RELU), Cronos()), "Ridge, which takes sparse rows"),
        (lambda X: solve(program(X), ProximalGradient()), "Ridge, which takes sparse rows"),
        (lambda X: automatic(program(X, **RELU), tol=0.1), "Ridge, which takes sparse rows"),
        (lambda X: solve_on_working_sets(program(X, **LASSO)), "Ridge, which takes sparse rows"),
        (lambda X: regularization_path(program(X, **RELU)), "Ridge, which takes sparse rows"),
        (lambda X: solve_with_cvxpy(program(X)), ""),
        (lambda X: cone_decomposition(program(X), POINT, GATES), ""),
        (lambda X: program(X, skip=0.0, **LASSO).bound_of(DUAL), ""),
        (lambda X: training.draw_patterns(X, Y, 5, "data", np.random.RandomState(0)), "'gaussian'"),
        (lambda X: training.train(X, Y, 0.1, 5), "patterns='gaussian'"),
        (lambda X: training.train(X, Y, 0.1, 5, patterns="gaussian"), "Ridge"),
        (lambda X: training.price(program(X, **LASSO), DUAL, GATES), ""),
    ],
)
def test_or_refused_with_the_remedy(
    kind: Callable[[Any], Any], attempt: Callable[[Any], Any], instead: str
) -> None:
    with pytest.raises(TypeError, match=REFUSED) as caught:
        attempt(kind(X))
    assert instead in str(caught.value)


def test_a_solver_of_the_user_may_take_them() -> None:
    class Sparse(InteriorPoint):
        takes_sparse = True

        def accept(self, problem: Any) -> Any:
            raise RuntimeError("reached")

    with pytest.raises(RuntimeError, match="reached"):
        solve(program(sparse.csr_array(X)), Sparse())
    own = replace(program(X), alpha=math.nan)
    with pytest.raises(ValueError, match="alpha"):
        solve(own, Sparse())
