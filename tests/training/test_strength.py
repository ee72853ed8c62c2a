"""Leave-one-out against refits, the unit of the strength, the automatic choice."""

from dataclasses import replace

import numpy as np
import pytest

from cvxnn.convex import (
    L1,
    ConvexProgram,
    GatedOperator,
    LogisticLoss,
    NeuronGroupLasso,
    SquaredL2,
    sample_patterns,
)
from cvxnn.convex.solvers.ridge.products import Kernel, RidgeData
from cvxnn.training import strength


def kernel(program: ConvexProgram) -> np.ndarray:
    return Kernel.stored(RidgeData.of(program)).matrix


def make(n: int = 14, weighted: bool = False, noise: float = 0.1) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 3))
    y = np.abs(X[:, :2]) + noise * rng.standard_normal((n, 2))
    mask = sample_patterns(X, 6, random_state=0).mask
    weight = rng.exponential(size=n) if weighted else None
    return ConvexProgram(
        GatedOperator(X, mask),
        y - y.mean(axis=0),
        0.0,
        penalty=SquaredL2(),
        sample_weight=weight,
        formulation="gated",
    )


def refits(program: ConvexProgram, alpha: float) -> np.ndarray:
    """Each row's prediction by a ridge regression that has not seen it."""
    F = (program.operator.mask[:, :, None] * program.operator.X[:, None, :]).reshape(
        len(program.y), -1
    )
    share = np.broadcast_to(program.share, (len(F), 1))
    predictions = np.empty_like(program.y)
    for k in range(len(F)):
        kept = np.arange(len(F)) != k
        # The others keep their shares of the whole.
        A, s = F[kept], share[kept]
        z = np.linalg.solve(A.T @ (s * A) + alpha * np.eye(F.shape[1]), A.T @ (s * program.y[kept]))
        predictions[k] = F[k] @ z
    return predictions


@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_is_a_loop_of_refits(weighted: bool) -> None:
    program = make(weighted=weighted)
    alphas = np.array([1.0, 0.1, 1e-2, 1e-4])
    found = strength.leave_one_out(program, strength.Spectrum.of(program), alphas)
    share = np.broadcast_to(program.share, (14, 1))
    naive = [refits(program, alpha) for alpha in alphas]
    errors = [float((share * (program.y - each) ** 2).sum()) for each in naive]
    np.testing.assert_allclose(found.errors, errors, rtol=1e-8)
    best = int(np.argmin(errors))
    assert found.alpha == alphas[best]
    np.testing.assert_allclose(found.predictions, naive[best], atol=1e-8)


@pytest.mark.parametrize("n", [1, 14, 60])
def test_leave_one_out_without_a_penalty_is_the_limit(n: int) -> None:
    # With 60 rows and 18 weights the kernel has no inverse, with 14 equal columns neither.
    program = make(n)
    spectrum = strength.Spectrum.of(program)
    none = strength.leave_one_out(program, spectrum, np.zeros(1)).predictions
    little = strength.leave_one_out(program, spectrum, 1e-9 * spectrum.values[-1:]).predictions
    np.testing.assert_allclose(none, little, atol=1e-3 * np.abs(little).max() + 1e-12)
    constant = replace(program, operator=replace(program.operator, X=0 * program.operator.X))
    spectrum = strength.Spectrum.of(constant)
    assert np.isfinite(strength.leave_one_out(constant, spectrum, np.zeros(1)).predictions).all()


def test_default_strengths_surround_the_mean_eigenvalue() -> None:
    program = make()
    spectrum = strength.Spectrum.of(program)
    grid = spectrum.alphas()
    mean = np.trace(kernel(program)) / 14
    assert len(grid) == 31
    assert grid[[0, -1]] == pytest.approx([1e-6 * mean, 1e2 * mean])
    found = strength.leave_one_out(program, spectrum)
    np.testing.assert_array_equal(found.alphas, grid)


def test_the_spectrum_is_that_of_the_kernel() -> None:
    program = make(weighted=True)
    values, vectors = strength.Spectrum.of(program)
    np.testing.assert_allclose((vectors * values) @ vectors.T, kernel(program), atol=1e-12)
    assert (values >= 0).all()


def test_units() -> None:
    program = make()
    spectrum = strength.Spectrum.of(program)
    assert strength.alpha_max(program, spectrum) == spectrum.values[-1]
    logistic = replace(program, loss=LogisticLoss())
    assert strength.alpha_max(logistic, spectrum) == spectrum.values[-1] / 4
    for penalty in (NeuronGroupLasso(), L1()):
        norm = replace(program, penalty=penalty)
        assert strength.alpha_max(norm, None) == float(norm.alpha_max())
    silent = replace(program, penalty=L1(), y=np.zeros_like(program.y))
    assert strength.alpha_max(silent, None) == 1


def test_rows_are_sampled_with_all_that_belongs_to_them() -> None:
    program = make(30, weighted=True)
    assert strength.sample_rows(program, np.random.RandomState(0)) is program
    part = strength.sample_rows(program, np.random.RandomState(0), 8)
    index = [int(np.flatnonzero((x == program.operator.X).all(axis=1))[0]) for x in part.operator.X]
    assert len(set(index)) == 8
    np.testing.assert_array_equal(part.y, program.y[index])
    np.testing.assert_array_equal(part.operator.mask, program.operator.mask[index])
    assert part.sample_weight is not None
    assert program.sample_weight is not None
    np.testing.assert_array_equal(part.sample_weight, program.sample_weight[index])


@pytest.mark.parametrize("penalty", [SquaredL2(), NeuronGroupLasso()])
def test_more_noise_asks_for_a_stronger_penalty_and_more_rows_for_a_weaker(penalty) -> None:
    def chosen(noise: float, n_samples: int = 60) -> float:
        program = replace(make(60, noise=noise), penalty=penalty)
        spectrum = strength.Spectrum.of(program)
        rng = np.random.RandomState(0)
        return strength.automatic_alpha(program, spectrum, n_samples, rng)

    assert chosen(0.05) < chosen(1.0)
    assert chosen(1.0, 240) < chosen(1.0)


def test_flops_of_the_unit_and_of_the_choice() -> None:
    program = make()
    n, d = program.operator.X.shape
    slope = 2 * n * d * program.operator.n_patterns * program.y.shape[1]
    assert strength.pilot_flops(program, None) == slope
    spectrum = strength.Spectrum.of(program)
    kernel_flops = 2 * n * n * (d + program.operator.n_patterns)
    assert strength.pilot_flops(replace(program, penalty=SquaredL2()), spectrum) > kernel_flops
    # The noise level takes many slopes.
    norm, ridge = (
        strength.pilot_flops(replace(program, penalty=penalty), spectrum)
        for penalty in (NeuronGroupLasso(), SquaredL2())
    )
    assert norm - ridge > 30 * slope
