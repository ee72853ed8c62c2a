"""Errors of rows left out by folds against refits, and the strength that they choose."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from cvxnn.convex import ConvexProgram, GatedOperator, SquaredL2, sample_patterns
from cvxnn.training import measure_strength
from cvxnn.training.fold_errors import FoldErrors, fold_errors, units_of_folds
from cvxnn.training.outliers import pull_in
from cvxnn.training.row_sample import Sample
from cvxnn.training.spectrum import Spectrum, leave_one_out


def make(n: int, n_patterns: int, noise: float = 0.5, d: int = 3) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) / np.sqrt(d)
    y = np.abs(X[:, :2]) + noise * rng.standard_normal((n, 2))
    mask = sample_patterns(X, n_patterns, random_state=0).mask
    operator = GatedOperator(X, mask)
    return ConvexProgram(
        operator, y - y.mean(axis=0), 0.0, penalty=SquaredL2(), formulation="gated"
    )


def features(program: ConvexProgram) -> np.ndarray:
    operator = program.operator
    return (operator.mask[:, :, None] * operator.X[:, None, :]).reshape(len(program.y), -1)


def refits(program: ConvexProgram, folds: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Errors of ridge regressions that have not seen the units that they predict."""
    F, y = features(program), program.y
    share = np.broadcast_to(program.share, (len(F), 1))[:, 0]
    errors = np.zeros((len(alphas), y.shape[1]))
    for own in folds:
        s = share * (1 - own)
        s = s / s.sum()
        gram, right = F.T @ (s[:, None] * F), F.T @ (s[:, None] * y)
        for k, alpha in enumerate(alphas):
            z = np.linalg.solve(gram + alpha * np.eye(len(gram)), right)
            errors[k] += (share * own) @ (y - F @ z) ** 2
    return errors


@pytest.mark.parametrize("kind", ["rows", "weights", "units", "groups"])
@pytest.mark.parametrize("n_patterns", [4, 40])  # the matrix of the weights, and the kernel
def test_errors_are_those_of_refits(
    kind: str, n_patterns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvxnn.training.fold_errors._TOL", 1e-6)
    program, rng = make(80, n_patterns, 0.1), np.random.default_rng(1)
    weight = rng.integers(1, 5, 80).astype(float)
    units = weight if kind == "units" else None
    groups = np.arange(80) // 3 if kind == "groups" else None
    if kind in ("weights", "units"):
        program = replace(program, sample_weight=weight)
    sample = Sample(program, units, groups, 1.0)
    folds = units_of_folds(sample, 4, np.random.RandomState(0))
    found = fold_errors(sample, np.random.RandomState(0))
    alphas = found.alpha.mean() * 10.0 ** np.linspace(-3, 3, 121)
    errors = refits(program, folds, alphas)
    assert found.part == 0.75
    assert (found.kernel is None) == (n_patterns == 4)
    if found.kernel is not None:
        share = np.broadcast_to(program.share, (80, 1))
        F = np.sqrt(share) * features(program)
        np.testing.assert_allclose(found.kernel, F @ F.T, atol=1e-6)
    for c in range(2):
        # Strengths are tried on a grid, three to a power of ten.
        least = errors[:, c].min()
        assert (1 - 1e-4) * least <= found.error[c] <= 1.02 * least
        assert refits(program, folds, found.alpha[[c]])[0, c] <= 1.005 * least


def predictions_of_refits(
    program: ConvexProgram, folds: np.ndarray, found: FoldErrors
) -> np.ndarray:
    """Mean predictions of each row by the ridge regressions that have not seen a part of it."""
    F, y = features(program), program.y
    share = np.broadcast_to(program.share, (len(F), 1))[:, 0]
    out = np.zeros(y.shape)
    for own in folds:
        s = share * (1 - own)
        s = s / s.sum()
        gram, right = F.T @ (s[:, None] * F), F.T @ (s[:, None] * y)
        for c, alpha in enumerate(found.alpha):
            z = np.linalg.solve(gram + alpha * np.eye(len(gram)), right[:, c])
            out[:, c] += own * (F @ z)
    return out


@pytest.mark.parametrize("n_patterns", [4, 40])
# Six share a strength, which is found by all of them or by sums of them.
@pytest.mark.parametrize(("n_outputs", "most_columns"), [(2, 4), (6, 6), (6, 4)])
def test_predictions_are_those_of_refits(
    n_patterns: int, n_outputs: int, most_columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvxnn.training.fold_errors._MOST_COLUMNS", most_columns)
    monkeypatch.setattr("cvxnn.training.fold_errors._TOL", 1e-6)
    # Strengths on the grid itself, where predictions are kept.
    monkeypatch.setattr(
        "cvxnn.training.fold_errors._minimum", lambda x, errors: float(x[np.argmin(errors)])
    )
    program, rng = make(80, n_patterns, 0.3), np.random.default_rng(1)
    y = np.tile(program.y, 3)[:, :n_outputs] + 0.1 * rng.standard_normal((80, n_outputs))
    units = rng.integers(1, 5, 80).astype(float)
    program = replace(program, y=y, sample_weight=units)
    sample = Sample(program, units, None, 1.0)
    shared = n_outputs == 6
    found = fold_errors(sample, np.random.RandomState(0), shared=shared)
    draws = np.random.RandomState(0)
    if n_outputs > most_columns:
        draws.choice([-1.0, 1.0], (n_outputs, 4))
    folds = units_of_folds(sample, 4, draws)
    expected = predictions_of_refits(program, folds, found)
    np.testing.assert_allclose(found.predictions, expected, atol=2e-3 * np.abs(expected).max())


def test_of_strengths_alike_over_more_than_a_power_of_ten_the_strongest_is_taken() -> None:
    """Targets without noise ask for none: their systems took hundreds of iterations."""
    noise = 1e-3 * np.random.default_rng(1).standard_normal((200, 1))
    program = make(200, 4)
    operator = GatedOperator(program.operator.X, np.ones((200, 1), bool))
    program = replace(program, operator=operator, y=program.operator.X[:, :1] + noise)
    sample = Sample(program, None, None, 1.0)
    found = fold_errors(sample, np.random.RandomState(0))
    folds = units_of_folds(sample, 4, np.random.RandomState(0))
    alphas = found.alpha[0] * 10.0 ** np.array([0, -1, -2, -3])
    errors = refits(program, folds, alphas)[:, 0]
    assert errors[0] <= 1.01 * errors.min()
    assert errors[-1] <= 1.001 * errors.min()  # as good, but 1,000 times weaker
    assert refits(program, folds, found.alpha * 1000)[0, 0] > 1.01 * errors.min()


def test_outliers_of_a_larger_sample_are_pulled_to_predictions_of_the_smaller_one() -> None:
    program = make(120, 10, 0.1)
    small = Sample(program, None, None, 1.0).take(np.arange(40))
    spectrum = Spectrum.of(small.program)
    found = leave_one_out(small, spectrum)
    pulled = pull_in(Sample(program, None, None, 1.0), small, spectrum, found, 0.2)
    F, seen = features(program), features(small.program)
    for c, alpha in enumerate(found.alpha):
        gram = seen.T @ seen / 40 + alpha * np.eye(F.shape[1])
        around = F @ np.linalg.solve(gram, seen.T @ small.program.y[:, c] / 40)
        expected = np.clip(program.y[:, c], around - 0.2, around + 0.2)
        np.testing.assert_allclose(pulled.program.y[:, c], expected, atol=1e-8)
    assert 0 < (pulled.program.y != program.y).sum() < program.y.size


def test_every_unit_is_left_out_once() -> None:
    program, rng = make(60, 4), np.random.default_rng(0)
    units = rng.integers(1, 9, 60).astype(float)
    parts = units_of_folds(Sample(program, units, None, 1.0), 3, np.random.RandomState(0))
    np.testing.assert_allclose(parts.sum(axis=0), 1)
    counts = parts * units
    np.testing.assert_allclose(counts, np.rint(counts))
    assert np.ptp(counts.sum(axis=1)) <= 1
    groups = np.repeat(np.arange(20), 3)
    parts = units_of_folds(Sample(program, units, groups, 1.0), 3, np.random.RandomState(0))
    np.testing.assert_array_equal(parts[:, ::3], parts[:, 2::3])
    np.testing.assert_array_equal(np.sort(np.unique(parts)), [0, 1])


def test_random_sums_stand_for_many_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvxnn.training.fold_errors._MOST_COLUMNS", 4)
    program, rng = make(200, 20), np.random.default_rng(0)
    y = np.eye(12)[rng.integers(0, 12, 200)] + np.repeat(program.operator.X, 4, axis=1)
    program = replace(program, y=y - y.mean(axis=0))
    sample = Sample(program, None, None, 1.0)
    found = fold_errors(sample, np.random.RandomState(0), shared=True)
    folds = units_of_folds(sample, 4, np.random.RandomState(1))
    errors = refits(program, folds, np.append(found.alpha[0], np.logspace(-4, 1, 40))).sum(axis=1)
    assert errors[0] <= 1.02 * errors.min()
    assert found.error == pytest.approx(errors.min(), rel=0.2)


def test_the_strength_of_many_rows_does_not_depend_on_the_sample() -> None:
    """Those of 512 rows were one to nine by seed."""
    rng = np.random.default_rng(0)
    n, d = 3000, 10
    X = rng.standard_normal((n, d)).astype(np.float32)
    teacher = np.maximum(X @ rng.standard_normal((d, 10)) / np.sqrt(d), 0)
    y = np.sign(teacher @ rng.standard_normal(10))
    y[rng.random(n) < 0.1] *= -1
    X, y = X / np.sqrt(d), (y - y.mean())[:, None]
    mask = sample_patterns(X, 64, random_state=0).mask

    def program(rows: slice) -> ConvexProgram:
        operator = GatedOperator(X[rows], mask[rows])
        return ConvexProgram(operator, y[rows], 0.0, penalty=SquaredL2(), formulation="gated")

    seen, new = program(slice(2000)), program(slice(2000, None))
    alphas = np.array(
        [measure_strength(seen, "auto", np.random.RandomState(s)).alpha for s in range(4)]
    )
    assert np.ptp(np.log10(alphas)) < 0.2
    gram = features(seen).T @ features(seen) / 2000
    right = features(seen).T @ seen.y / 2000

    def error(alpha: float) -> float:
        z = np.linalg.solve(gram + alpha * np.eye(len(gram)), right)
        return float(((new.y - features(new) @ z) ** 2).mean())

    least = min(error(alpha) for alpha in np.median(alphas) * 10.0 ** np.linspace(-1.5, 1.5, 7))
    assert max(error(alpha) for alpha in alphas[[alphas.argmin(), alphas.argmax()]]) < 1.01 * least


@pytest.mark.parametrize("n_patterns", [4, 40])
def test_sparse_rows_choose_what_the_same_dense_rows_choose(n_patterns: int) -> None:
    dense = make(80, n_patterns)
    rows = sparse.csr_array(dense.operator.X)
    program = replace(dense, operator=GatedOperator(rows, dense.operator.mask))
    found = [
        fold_errors(Sample(p, None, None, 1.0), np.random.RandomState(0)) for p in (dense, program)
    ]
    np.testing.assert_allclose(found[1].alpha, found[0].alpha, rtol=1e-3)
    np.testing.assert_allclose(found[1].error, found[0].error, rtol=1e-3)
    assert found[1].flops == pytest.approx(found[0].flops)
