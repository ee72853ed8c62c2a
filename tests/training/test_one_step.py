"""Leave-one-out by one step: exact where the penalty is a ridge, near refits where it is a norm."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from cvxnn.convex import (
    L1,
    ConvexProgram,
    FeatureGroupLasso,
    GatedOperator,
    InteriorPoint,
    LogisticLoss,
    NeuronGroupLasso,
    ProximalGradient,
    Ridge,
    SquaredL2,
    Weights,
    sample_patterns,
    solve,
)
from cvxnn.network import TwoLayerNetwork, recover
from cvxnn.training import approximate_leave_one_out
from cvxnn.training.row_sample import Sample


def problem(penalty, n=30, *, alpha=0.02, weighted=False, skip=None):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((n, 3)) / 2, np.ones(n)])
    y = np.abs(X[:, :2]) - X[:, 1:3] + 0.3 * rng.standard_normal((n, 2))
    found = sample_patterns(X, 8, random_state=0)
    weight = rng.exponential(size=n) if weighted else None
    operator = GatedOperator(X, found.mask)
    program = ConvexProgram(
        operator, y, alpha, penalty=penalty, sample_weight=weight, formulation="gated", skip=skip
    )
    return program, found.gates


def network_of(program, gates, tol=1e-9):
    ridge = isinstance(program.penalty, SquaredL2)
    solver = Ridge(tol=tol) if ridge else ProximalGradient(tol=tol, max_iter=20000)
    return recover(solve(program, solver).weights, gates=gates)


def left_out(network, program, *, part=1.0, units=None, groups=None, **options):
    return approximate_leave_one_out(network, Sample(program, units, groups, part), **options)


def refits(program, gates, tol=1e-7, rows=30):
    """Prediction of each row by a network that has not seen it; weight 0 keeps the shapes."""
    n = len(program.y)
    weight = np.ones(n) if program.sample_weight is None else program.sample_weight
    out = np.empty((rows, 2))
    for k in range(rows):
        less = np.where(np.arange(n) == k, 0, weight)
        # The others keep their shares of the whole.
        part = less.sum() / weight.sum()
        scaled = replace(
            program,
            sample_weight=less,
            alpha=program.alpha / part,
            skip=None if program.skip is None else program.skip / part,
        )
        out[k] = network_of(scaled, gates, tol).forward(program.operator.X[[k], :-1])[0]
    return out


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("skip", [None, 0.05])
def test_a_ridge_is_left_exactly(weighted, skip):
    program, gates = problem(SquaredL2(), weighted=weighted, skip=skip, alpha=0.05)
    network = network_of(program, gates)
    left = left_out(network, program, alpha=program.alpha, bias=True, skip=skip)
    np.testing.assert_allclose(left, refits(program, gates), atol=1e-6)
    rows = sparse.csr_array(program.operator.X)
    thin = replace(program, operator=replace(program.operator, X=rows))
    again = left_out(network, thin, alpha=program.alpha, bias=True, skip=skip)
    np.testing.assert_allclose(again, left, atol=1e-9)


@pytest.mark.parametrize(
    "penalty",
    [
        NeuronGroupLasso(),
        *(pytest.param(p, marks=pytest.mark.slow) for p in (FeatureGroupLasso(), L1())),
    ],
)
def test_a_norm_is_left_nearly(penalty):
    program, gates = problem(penalty)
    network = network_of(program, gates)
    y = program.y[:10]
    seen = network.forward(program.operator.X[:10, :-1])
    left = left_out(network, program, alpha=program.alpha, bias=True)[:10]
    exact = refits(program, gates, tol=1e-4, rows=10)
    # A good part of what a row does to its own prediction is known without a refit.
    assert np.abs(left - exact).mean() < 0.65 * np.abs(seen - exact).mean()
    error, true = ((left - y) ** 2).mean(), ((exact - y) ** 2).mean()
    assert ((seen - y) ** 2).mean() < error
    assert error == pytest.approx(true, rel=0.22)


def with_cones(alpha):
    program, _ = problem(NeuronGroupLasso(), alpha=alpha)
    return replace(program, y=program.y[:, :1], formulation="relu")


def relu_network(program, tol):
    return recover(solve(program, InteriorPoint(tol=tol)).weights)


@functools.cache
def without_row_and_cones(alpha):
    """Prediction of each row by a ReLU network of the others; with the row, its cones go."""
    program = with_cones(alpha)
    X, mask, y, n = program.operator.X, program.operator.mask, program.y, 30
    out = np.empty(n)
    for k in range(n):
        kept = np.arange(n) != k
        operator = GatedOperator(X[kept], mask[kept])
        rest = replace(program, operator=operator, y=y[kept], alpha=alpha * n / (n - 1))
        out[k] = relu_network(rest, 1e-7).forward(X[[k], :-1])[0, 0]
    return out


@pytest.mark.parametrize("alpha", [0.05, 0.005, 0.0005])
@pytest.mark.parametrize("tol", [1e-7, 1e-3])
def test_cones_hold_neurons_that_a_row_leaves(alpha, tol):
    program = with_cones(alpha)
    y, network = program.y[:, 0], relu_network(program, tol)
    seen = network.forward(program.operator.X[:, :-1])[:, 0]
    left = left_out(network, program, alpha=alpha, bias=True, gap=tol)[:, 0]
    exact = without_row_and_cones(alpha)
    assert np.abs(left - exact).mean() < 0.65 * np.abs(seen - exact).mean()
    error, true = ((left - y) ** 2).mean(), ((exact - y) ** 2).mean()
    assert error == pytest.approx(true, rel=0.33)
    assert ((seen - y) ** 2).mean() < 0.8 * true


def test_a_negative_gap_holds_as_many_rows_as_the_largest():
    """A network that has left its patterns says nothing of how near its rows are to their edges."""
    program = with_cones(0.005)
    network = relu_network(program, 1e-7)
    by_gap = [
        left_out(network, program, alpha=0.005, bias=True, gap=gap)
        for gap in (-1e-9, -1.0, 0.01, 1)
    ]
    for other in by_gap[1:]:
        np.testing.assert_array_equal(other, by_gap[0])
    near = left_out(network, program, alpha=0.005, bias=True, gap=1e-5)
    assert not np.array_equal(near, by_gap[0])


@pytest.mark.parametrize("penalty", [NeuronGroupLasso(), FeatureGroupLasso(), L1(), SquaredL2()])
def test_an_output_without_neurons_is_zero_without_the_row_as_well(penalty):
    program, gates = problem(penalty)
    blocks = program.zeros().blocks
    blocks[0] = np.random.default_rng(1).standard_normal(blocks[0].shape)
    network = recover(Weights(blocks), gates=gates)
    left = left_out(network, program, alpha=program.alpha, bias=True)
    assert np.isfinite(left).all()
    assert not left[:, 1].any()


def test_a_group_is_left_out_as_a_whole():
    program, gates = problem(SquaredL2(), n=24, alpha=0.05)
    network = network_of(program, gates)
    groups = np.arange(24) // 4
    left = left_out(network, program, groups=groups, alpha=program.alpha, bias=True)
    for group in range(6):
        own = groups == group
        part = (~own).mean()
        rest = replace(program, sample_weight=(~own).astype(float), alpha=program.alpha / part)
        without = network_of(rest, gates).forward(program.operator.X[own, :-1])
        np.testing.assert_allclose(left[own], without, atol=1e-6)


def test_one_unit_of_a_row_is_left_out():
    program, gates = problem(SquaredL2(), n=12, alpha=0.05)
    units = np.random.default_rng(0).integers(1, 4, 12).astype(float)
    program = replace(program, sample_weight=units)
    left = left_out(
        network_of(program, gates), program, units=units, alpha=program.alpha, bias=True
    )
    for k in range(12):
        less = units - (np.arange(12) == k)
        part = less.sum() / units.sum()
        rest = replace(program, sample_weight=less, alpha=program.alpha / part)
        without = network_of(rest, gates).forward(program.operator.X[[k], :-1])
        np.testing.assert_allclose(left[[k]], without, atol=1e-6)


def test_other_losses_are_left_nearly():
    program, gates = problem(SquaredL2(), n=20, alpha=0.05)
    program = replace(program, y=np.sign(program.y[:, :1]), loss=LogisticLoss())

    def fit(program):
        solver = ProximalGradient(tol=1e-7, max_iter=20000)
        return recover(solve(program, solver).weights, gates=gates)

    network = fit(program)
    rows = program.operator.X[:, :-1]
    left = left_out(network, program, alpha=program.alpha, bias=True)[:5]
    exact = []
    for k in range(5):
        less = (np.arange(20) != k).astype(float)
        rest = replace(program, sample_weight=less, alpha=program.alpha * 20 / 19)
        exact.append(fit(rest).forward(rows[[k]])[0])
    seen = network.forward(rows[:5])
    assert np.abs(left - exact).max() < 0.15 * np.abs(seen - exact).max()


def test_a_sample_knows_the_leverages_of_the_fit():
    program, gates = problem(SquaredL2(), n=400, alpha=0.05)
    network = network_of(program, gates)
    whole = left_out(network, program, alpha=program.alpha, bias=True)
    rows = np.random.default_rng(1).permutation(400)[:200]
    operator = replace(
        program.operator, X=program.operator.X[rows], mask=program.operator.mask[rows]
    )
    sample = replace(program, operator=operator, y=program.y[rows])
    some = left_out(network, sample, alpha=program.alpha, bias=True, part=0.5)
    seen = network.forward(operator.X[:, :-1])
    size = np.abs(whole[rows] - seen).mean()
    assert np.abs(some - whole[rows]).mean() < 0.15 * size


@pytest.mark.parametrize("alpha", [0.0, 1e-12])
def test_rows_fitted_by_themselves_stay_finite(alpha):
    program, gates = problem(SquaredL2(), n=6, alpha=1e-9)
    network = network_of(program, gates)
    rows = program.operator.X[:, :-1]
    left = left_out(network, program, alpha=alpha, bias=True, skip=0.0)
    assert np.isfinite(left).all()
    hidden, bias = np.eye(3), np.zeros(3)
    relu = TwoLayerNetwork(hidden, bias, np.ones(3), np.zeros(2), output_index=np.array([0, 0, 1]))
    left = left_out(relu, program, alpha=alpha, bias=True, skip=0.0)
    growth = (program.y - left) / (program.y - relu.forward(rows))
    assert (growth >= 1 - 1e-9).all()
