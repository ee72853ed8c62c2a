"""Leave-one-out against refits, the unit of the strength, the automatic choice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.convex import (
    L1,
    ConvexProgram,
    GatedOperator,
    LogisticLoss,
    MultinomialLoss,
    NeuronGroupLasso,
    SquaredL2,
    SquaredLoss,
    sample_patterns,
)
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.training import automatic_strength, measure_strength, strength
from cvxnn.training.row_sample import Sample, sample_rows
from cvxnn.training.spectrum import Spectrum, leave_one_out, predictions_without


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


def whole(
    program: ConvexProgram, units: np.ndarray | None = None, groups: np.ndarray | None = None
) -> Sample:
    return Sample(program, units, groups, 1.0)


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


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_is_a_loop_of_refits(weighted: bool, shared: bool) -> None:
    program = make(weighted=weighted)
    noise = np.random.default_rng(1).standard_normal(14)
    y = np.column_stack([program.operator.X[:, 0], noise])
    program = replace(program, y=y)
    spectrum = Spectrum.of(program)
    found = leave_one_out(whole(program), spectrum, shared=shared)
    share = np.broadcast_to(program.share, (14, 1))
    naive = [refits(program, alpha) for alpha in found.alphas]
    errors = np.array([(share * (program.y - each) ** 2).sum(axis=0) for each in naive])
    np.testing.assert_allclose(found.errors, errors, rtol=1e-8)
    best = (errors.sum(axis=1).argmin().repeat(2) if shared else errors.argmin(axis=0)).tolist()
    assert shared or best[0] != best[1]
    np.testing.assert_array_equal(found.alpha, found.alphas[best])
    wanted = np.column_stack([naive[k][:, c] for c, k in enumerate(best)])
    np.testing.assert_allclose(found.predictions, wanted, atol=1e-8)


@pytest.mark.parametrize("n", [1, 14, 60])
def test_leave_one_out_without_a_penalty_is_the_limit(n: int) -> None:
    # With 60 rows and 18 weights the kernel has no inverse, with 14 equal columns neither.
    program = make(n)
    spectrum = Spectrum.of(program)
    none = predictions_without(whole(program), spectrum, 0.0)
    little = predictions_without(whole(program), spectrum, 1e-9 * spectrum.values[-1])
    np.testing.assert_allclose(none, little, atol=1e-3 * np.abs(little).max() + 1e-12)
    constant = replace(program, operator=replace(program.operator, X=0 * program.operator.X))
    spectrum = Spectrum.of(constant)
    assert np.isfinite(predictions_without(whole(constant), spectrum, 0.0)).all()


def test_default_strengths_surround_the_mean_eigenvalue() -> None:
    program = make()
    spectrum = Spectrum.of(program)
    grid = spectrum.alphas()
    mean = np.trace(kernel(program)) / 14
    assert len(grid) == 31
    assert grid[[0, -1]] == pytest.approx([1e-6 * mean, 1e2 * mean])
    found = leave_one_out(whole(program), spectrum)
    np.testing.assert_array_equal(found.alphas, grid)


def test_the_spectrum_is_that_of_the_kernel() -> None:
    program = make(weighted=True)
    values, vectors, _ = Spectrum.of(program)
    np.testing.assert_allclose((vectors * values) @ vectors.T, kernel(program), atol=1e-12)
    assert (values >= 0).all()


def test_units() -> None:
    program = make()
    spectrum = Spectrum.of(program)
    assert strength.alpha_max(program, spectrum) == spectrum.values[-1]
    logistic = replace(program, loss=LogisticLoss())
    assert strength.alpha_max(logistic, spectrum) == spectrum.values[-1] / 4
    for penalty in (NeuronGroupLasso(), L1()):
        norm = replace(program, penalty=penalty)
        assert strength.alpha_max(norm, None) == float(norm.alpha_max())
    silent = replace(program, penalty=L1(), y=np.zeros_like(program.y))
    assert strength.alpha_max(silent, None) == 1


def test_another_error_may_choose_a_shared_ridge() -> None:
    def linear(n: int) -> ConvexProgram:
        program, rng = make(n), np.random.default_rng(3)
        y = program.operator.X[:, :2] + 0.5 * rng.standard_normal((n, 2))
        return targets_of(program, y - y.mean(axis=0))

    program = linear(40)

    def absolute(sample: Sample, predictions: np.ndarray) -> float:
        return float(np.abs(sample.program.y - predictions).mean())

    def choose(of: ConvexProgram, **options: object) -> float:
        return measure_strength(of, "auto", np.random.RandomState(0), **options).alpha

    found, grid = choose(program, shared=True, error=absolute), Spectrum.of(program).alphas()
    k = int(np.flatnonzero(np.isclose(grid, found))[0])
    assert found != choose(program, shared=True)
    errors = [np.abs(program.y - refits(program, grid[i])).mean() for i in (k - 1, k, k + 1)]
    assert errors[1] <= min(errors) + 1e-9
    # Of a part of the rows, only the strength of the squared error is known to transfer.
    large = linear(600)
    assert choose(large, shared=True, error=absolute) == choose(large, shared=True)
    # Strengths of several outputs keep to the squared error of each.
    np.testing.assert_array_equal(choose(program, error=absolute), choose(program))


def rows_of(program: ConvexProgram, rows: np.ndarray) -> ConvexProgram:
    return replace(program, operator=program.operator.take(rows), y=program.y[rows])


@pytest.mark.parametrize("shared", [False, True])
def test_the_learning_exponent_compares_half_of_a_sample_with_all_of_it(shared: bool) -> None:
    program = make(24)

    def least(part: ConvexProgram) -> np.ndarray:
        grid = Spectrum.of(part).alphas()
        errors = np.array([((part.y - refits(part, alpha)) ** 2).mean(axis=0) for alpha in grid])
        return errors.sum(axis=1).min() if shared else errors.min(axis=0)

    half = rows_of(program, np.arange(0, 24, 2))
    expected = np.clip(np.log2(least(half) / least(program)), 0, 1)
    sample = whole(program)._replace(part=0.1)
    spectrum = Spectrum.of(program)
    found = leave_one_out(sample, spectrum, shared=shared)
    exponent = automatic_strength.learning_exponent(sample, spectrum, found, shared=shared)
    np.testing.assert_allclose(exponent, np.broadcast_to(expected, 2), rtol=1e-6)
    assert (exponent > 0).all()
    all_rows = automatic_strength.learning_exponent(whole(program), spectrum, found, shared=shared)
    assert not all_rows.any()


@pytest.mark.parametrize("weighted", [False, True])
def test_the_kernel_of_some_rows_is_a_part_of_that_of_all(weighted: bool) -> None:
    sample = whole(make(24, weighted=weighted), groups=np.arange(24) // 3)
    rows = sample.half()
    assert rows.tolist() == [k for k in range(24) if k // 3 % 2 == 0]
    half = sample.take(rows)
    assert half.part == 0.5
    share = np.broadcast_to(sample.program.share, (24, 1))[rows]
    part = Spectrum.of(sample.program).of_rows(rows, share)
    np.testing.assert_allclose(part.kernel, kernel(half.program), atol=1e-14)


def test_what_more_rows_resolve_is_no_noise() -> None:
    """Without noise the ridge falls faster than the number of rows grows."""
    program = make(480)
    X, rng = program.operator.X, np.random.default_rng(0)
    operator = GatedOperator(X, sample_patterns(X, 100, random_state=0).mask)
    y = np.abs(X @ rng.standard_normal((3, 2)))

    def exponent(noise: float) -> float:
        targets = y + noise * rng.standard_normal(y.shape)
        sampled = replace(program, operator=operator, y=targets)
        random = np.random.RandomState(0)
        found = measure_strength(sampled, "auto", random, shared=True, most=120)
        return float(np.log(found.factor) / np.log(found.sample.part) - 1)

    assert exponent(0.0) > 0.3
    assert exponent(3.0) < 0.2


@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=9), position=st.floats(0, 1))
def test_steps_lead_down_to_the_nearest_minimum(values: list[int], position: float) -> None:
    grid = np.arange(len(values)) + 0.5
    start = round(position * (len(values) - 1))
    k = int(automatic_strength.nearest_minimum(lambda x: values[int(x)], grid, grid[start]) - 0.5)
    assert values[k] <= min(values[max(k - 1, 0) : k + 2])
    between = values[start : k + 1] if k >= start else values[k : start + 1][::-1]
    assert between == sorted(set(between), reverse=True)


def test_rows_are_sampled_with_all_that_belongs_to_them() -> None:
    program = make(30)
    sample = sample_rows(program, np.random.RandomState(0))
    assert sample.program is program
    assert sample.part == 1
    sample = sample_rows(program, np.random.RandomState(0), most=8)
    assert sample.units is None
    assert sample.part == pytest.approx(8 / 30)
    part = sample.program
    index = [int(np.flatnonzero((x == program.operator.X).all(axis=1))[0]) for x in part.operator.X]
    assert len(set(index)) == 8
    np.testing.assert_array_equal(part.y, program.y[index])
    np.testing.assert_array_equal(part.operator.mask, program.operator.mask[index])
    assert part.sample_weight is None


def test_more_rows_are_sampled_of_many_classes() -> None:
    program = make(3000)
    for n_classes, n_rows in ((3, 512), (100, 800), (300, 2048)):
        y = np.eye(n_classes)[np.arange(3000) % n_classes]
        part = sample_rows(targets_of(program, y), np.random.RandomState(0)).program
        assert abs(len(part.y) - n_rows) < n_classes
        assert part.y.sum(axis=0).min() >= n_rows // n_classes - 1


def targets_of(program: ConvexProgram, y: np.ndarray) -> ConvexProgram:
    return replace(program, y=y.reshape(len(y), -1))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_a_sample_stands_for_all_rows(seed: int) -> None:
    """Its weighted class frequencies are those of all rows, and no class is missing."""
    rng = np.random.default_rng(seed)
    n, n_classes = 400, int(rng.integers(1, 6))
    frequency = rng.dirichlet(np.full(n_classes, 0.3))
    codes = rng.choice(n_classes, n, p=frequency).astype(float)
    weight = rng.exponential(size=n) ** 3
    program = replace(targets_of(make(n), codes), sample_weight=weight)
    sample = sample_rows(program, np.random.RandomState(seed), most=60)
    y, drawn = sample.program.y[:, 0], sample.program.sample_weight
    drawn = np.ones(len(y)) if drawn is None else drawn
    assert len(y) <= 90
    for code in np.unique(codes):
        expected = weight[codes == code].sum() / weight.sum()
        assert drawn[y == code].sum() / drawn.sum() == pytest.approx(expected)
        few = min((codes == code).sum(), 60 // (2 * len(np.unique(codes))))
        assert (y == code).sum() >= min(few, 1)
        if (codes == code).sum() == few:  # a rare class is in with all its members
            assert (y == code).sum() == few


def test_rows_without_weight_are_not_drawn() -> None:
    program = make(400)
    weight = np.full(400, 1e-9)
    weight[:40] = 1
    sample = sample_rows(replace(program, sample_weight=weight), np.random.RandomState(0), most=100)
    rows = {x.tobytes() for x in program.operator.X[:40]}
    assert all(x.tobytes() in rows for x in sample.program.operator.X)
    # Each is one unit of data, however often it was drawn.
    assert sample.units is None


def test_groups_are_drawn_whole_or_in_equal_parts() -> None:
    program = make(400)
    small = np.repeat(np.arange(80), 5)
    sample = sample_rows(program, np.random.RandomState(0), groups=small, most=100)
    assert sample.groups is not None
    np.testing.assert_array_equal(np.unique(sample.groups, return_counts=True)[1], 5)
    large = np.repeat(np.arange(4), 100)
    sample = sample_rows(program, np.random.RandomState(0), groups=large, most=100)
    assert sample.groups is not None
    np.testing.assert_array_equal(np.bincount(sample.groups), 25)


def repeated(times: np.ndarray) -> ConvexProgram:
    program = make(len(times))
    return replace(
        program,
        operator=GatedOperator(
            np.repeat(program.operator.X, times, axis=0),
            np.repeat(program.operator.mask, times, axis=0),
        ),
        y=np.repeat(program.y, times, axis=0),
    )


def test_leaving_out_a_unit_equals_leaving_out_one_of_the_copies() -> None:
    times = np.array([1, 5, 2, 3, 1, 1, 4, 1])
    copies = repeated(times)
    program = replace(make(8), sample_weight=times.astype(float))
    sample, spectrum = whole(program, times.astype(float)), Spectrum.of(program)
    found = leave_one_out(sample, spectrum)
    naive = [refits(copies, alpha) for alpha in found.alphas]
    errors = [((copies.y - each) ** 2).sum(axis=0) / times.sum() for each in naive]
    np.testing.assert_allclose(found.errors, errors, rtol=1e-8)
    first = np.cumsum(times) - times
    for alpha, each in zip(found.alphas, naive, strict=True):
        np.testing.assert_allclose(
            predictions_without(sample, spectrum, alpha), each[first], atol=1e-8
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_leaving_out_groups_is_a_loop_of_refits(weighted: bool) -> None:
    program = make(weighted=weighted)
    groups = np.array([0, 1, 2, 2, 1, 1, 3, 0, 4, 4, 4, 1, 2, 0])
    sample, spectrum = whole(program, groups=groups), Spectrum.of(program)
    found = leave_one_out(sample, spectrum)
    F = (program.operator.mask[:, :, None] * program.operator.X[:, None, :]).reshape(14, -1)
    share = np.broadcast_to(program.share, (14, 1))
    naive = []
    for alpha in found.alphas:
        predictions = np.empty_like(program.y)
        for g in range(5):
            A, s, y = F[groups != g], share[groups != g], program.y[groups != g]
            z = np.linalg.solve(A.T @ (s * A) + alpha * np.eye(F.shape[1]), A.T @ (s * y))
            predictions[groups == g] = F[groups == g] @ z
        naive.append(predictions)
    errors = [(share * (program.y - each) ** 2).sum(axis=0) for each in naive]
    np.testing.assert_allclose(found.errors, errors, rtol=1e-8)
    for alpha, each in zip(found.alphas, naive, strict=True):
        np.testing.assert_allclose(predictions_without(sample, spectrum, alpha), each, atol=1e-8)


@pytest.mark.parametrize("counted", [False, True])
def test_log_odds_of_the_prior_have_a_mean_square_of_100(counted: bool) -> None:
    counts = np.arange(1.0, 15.0) if counted else np.ones(14)
    y = np.where(np.arange(14)[:, None] < [[7, 12]], -1.0, 1.0)
    program = replace(make(n=14), y=y, sample_weight=counts)
    sample = whole(program, counts if counted else None)
    features = program.operator.mask[:, :, None] * program.operator.X[:, None, :]
    features = features.reshape(14, -1)
    draws = np.random.default_rng(0).standard_normal((features.shape[1], 20_000))
    # Of the second output, the first 12 rows have 78 units and the others 27.
    squares = np.array([280.0, 270.0]) if counted else np.array([100.0, 100.0])
    for shared in (False, True):
        expected = np.full(2, squares.min()) if shared else squares
        least = automatic_strength.least_of_log_odds(sample, Spectrum.of(program), shared=shared)
        for alpha, square in zip(least, expected, strict=True):
            scores = features @ draws / np.sqrt(alpha * counts.sum())
            found = np.average((scores**2).mean(axis=1), weights=counts)
            assert found == pytest.approx(square, rel=0.02)


@pytest.mark.parametrize("loss", [LogisticLoss(), MultinomialLoss()])
def test_log_odds_have_a_prior_at_least(loss) -> None:
    rng = np.random.default_rng(0)
    clear = rng.integers(0, 2, (14, 2))
    X = np.column_stack([clear + 0.05 * rng.standard_normal((14, 2)), np.ones(14)])
    operator = GatedOperator(X, sample_patterns(X, 6, random_state=0).mask)
    program = replace(make(n=14), operator=operator)
    least = automatic_strength.least_of_log_odds(whole(program), Spectrum.of(program))
    least_binds = []
    for codes in (clear, rng.integers(0, 2, (14, 2))):
        y = codes[:, [0]] == [0, 1] if loss.coupled else 2 * codes - 1
        own, squared = (
            measure_strength(
                replace(program, loss=each, y=y.astype(float)),
                "auto",
                np.random.RandomState(0),
                shared=loss.coupled,
            ).alpha
            for each in (loss, SquaredLoss())
        )
        np.testing.assert_allclose(own, np.maximum(loss.curvature * squared, least))
        least_binds += np.ravel(loss.curvature * squared < least).tolist()
    assert 0 < np.mean(least_binds) < 1


def test_the_prior_of_log_odds_is_that_of_all_rows() -> None:
    program = make(n=400)
    signs = np.where(program.operator.X[:, :2] > 0, 1.0, -1.0)
    program = replace(program, loss=LogisticLoss(), y=signs)
    of_all = automatic_strength.least_of_log_odds(whole(program), Spectrum.of(program))
    sample = sample_rows(program, np.random.RandomState(0), most=100)
    found = automatic_strength.least_of_log_odds(sample, Spectrum.of(sample.program))
    assert found == pytest.approx(of_all, rel=0.1)


@pytest.mark.parametrize("penalty", [SquaredL2(), NeuronGroupLasso()])
def test_more_noise_asks_for_a_stronger_penalty_and_more_rows_for_a_weaker(penalty) -> None:
    def chosen(noise: float, part: float = 1.0) -> np.ndarray:
        program = replace(make(60, noise=noise), penalty=penalty)
        spectrum = Spectrum.of(program)
        rng = np.random.RandomState(0)
        return automatic_strength.automatic_alpha(
            whole(program)._replace(part=part), spectrum, rng
        )[0]

    assert (chosen(0.05) < chosen(1.0)).all()
    assert (chosen(1.0, 0.25) < chosen(1.0)).all()


def test_outputs_that_are_separate_problems_have_a_strength_each() -> None:
    program = make(60)
    noise = np.random.default_rng(1).standard_normal((60, 1))
    program = replace(program, y=np.column_stack([program.y, noise]))

    def measured(program: ConvexProgram, **options: bool) -> np.ndarray:
        return measure_strength(program, "auto", np.random.RandomState(0), **options).alpha

    alone = [measured(replace(program, y=program.y[:, [c]])) for c in range(3)]
    np.testing.assert_array_equal(measured(program), alone)
    assert alone[2] > 100 * alone[0]
    assert np.shape(measured(program, shared=True)) == ()
    assert np.shape(measured(replace(program, penalty=NeuronGroupLasso()))) == ()
    coupled = replace(program, y=np.eye(3)[np.arange(60) % 3], loss=MultinomialLoss())
    assert np.shape(measured(coupled)) == ()


def test_flops_of_the_unit_and_of_the_choice() -> None:
    program = make()
    n, d = program.operator.X.shape
    slope = 2 * n * d * program.operator.n_patterns * program.y.shape[1]
    assert strength.pilot_flops(program, None) == slope
    spectrum = Spectrum.of(program)
    kernel_flops = 2 * n * n * (d + program.operator.n_patterns)
    assert strength.pilot_flops(replace(program, penalty=SquaredL2()), spectrum) > kernel_flops
    # The noise level takes many slopes.
    norm, ridge = (
        strength.pilot_flops(replace(program, penalty=penalty), spectrum)
        for penalty in (NeuronGroupLasso(), SquaredL2())
    )
    assert norm - ridge > 30 * slope
