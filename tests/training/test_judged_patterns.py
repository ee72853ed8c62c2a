"""The choice between kinds of patterns against a plain loop that leaves rows out one by one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cvxnn import ConvexReLURegressor
from cvxnn.convex import ConvexProgram, GatedOperator, SquaredL2, SquaredLoss
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.training import choose_patterns, draw_patterns
from cvxnn.training.spectrum import Spectrum

KINDS = ("gaussian", "thresholds")


def program_of(y: np.ndarray, weight: np.ndarray | None = None) -> ConvexProgram:
    X = np.column_stack([np.random.default_rng(0).standard_normal((len(y), 3)), np.ones(len(y))])
    operator = GatedOperator(X, np.zeros((len(y), 0), bool))
    return ConvexProgram(operator, y, 0.0, SquaredLoss(), SquaredL2(), weight, "gated")


def naive_error(program: ConvexProgram, groups: np.ndarray) -> float:
    X, mask, y = program.operator.X, program.operator.mask, program.y
    share = np.broadcast_to(program.share, (len(y), 1))
    A = (X[:, None] * mask[:, :, None]).reshape(len(y), -1)
    least = np.inf
    for alpha in Spectrum.of(program).alphas():
        total = 0.0
        for g in np.unique(groups):
            rest = groups != g
            gram = A[rest].T @ (share[rest] * A[rest]) + alpha * np.eye(A.shape[1])
            z = np.linalg.solve(gram, A[rest].T @ (share[rest] * y[rest]))
            total += (share[~rest] * (y[~rest] - A[~rest] @ z) ** 2).sum()
        least = min(least, total)
    return least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grouped", "weighted"),
    [
        (False, False),
        (True, True),
        *(pytest.param(a, not a, marks=pytest.mark.slow) for a in (False, True)),
    ],
)
def test_the_kind_of_least_error_is_chosen(grouped: bool, weighted: bool) -> None:
    n, rng = 60, np.random.default_rng(0)
    groups = np.arange(n) // 2 if grouped else np.arange(n)
    weight = rng.uniform(0.5, 2, n) if weighted else None
    X = program_of(np.zeros((n, 1))).operator.X
    chosen = []
    for target in (np.abs(X[:, :3].sum(axis=1)), 3.0 * (X[:, 0] > 0) - (X[:, 1] > 1)):
        program = program_of(target[:, None] - target.mean(), weight)
        draws = np.random.RandomState(0)
        errors = []
        for kind in KINDS:
            mask = draw_patterns(X, program.y, 24, kind, draws).mask
            errors.append(naive_error(replace(program, operator=GatedOperator(X, mask)), groups))
        own = groups if grouped else None
        found = choose_patterns(program, 24, KINDS, np.random.RandomState(0), groups=own)
        assert found.kind == KINDS[int(errors[1] < 0.98 * errors[0])]
        chosen.append(found.kind)
    assert chosen == list(KINDS)


def test_outputs_that_nothing_predicts_have_no_say() -> None:
    rng = np.random.default_rng(1)
    X = program_of(np.zeros((60, 1))).operator.X
    for target in (np.abs(X[:, :3].sum(axis=1)), 3.0 * (X[:, 0] > 0) - (X[:, 1] > 1)):
        clean = target[:, None] - target.mean()
        noisy = 10 * rng.standard_normal((60, 30))
        alone, among = (
            choose_patterns(program_of(y), 24, KINDS, np.random.RandomState(0))
            for y in (clean, np.hstack([clean, noisy - noisy.mean(axis=0)]))
        )
        assert among.kind == alone.kind


@pytest.mark.parametrize("n", [60, 300])
@pytest.mark.parametrize("kinds", [KINDS, KINDS[::-1], ("data",)])
def test_patterns_are_those_of_a_draw_without_a_choice(n: int, kinds: tuple[str, ...]) -> None:
    program = program_of(np.random.default_rng(0).standard_normal((n, 1)))
    rng, same = np.random.RandomState(0), np.random.RandomState(0)
    found = choose_patterns(program, 8, kinds, rng)
    X = program.operator.X
    drawn = draw_patterns(X, program.y, 8, found.kind, same)
    np.testing.assert_array_equal(found.patterns.gates, drawn.gates)
    np.testing.assert_array_equal(found.patterns.mask, drawn.mask)
    assert rng.randint(10**6) == same.randint(10**6)
    assert (found.spectrum is not None) == (n == 60 and found.kind == kinds[0] and len(kinds) > 1)
    if found.spectrum is not None:
        own = Spectrum.of(replace(program, operator=GatedOperator(X, drawn.mask)))
        np.testing.assert_array_equal(found.spectrum.kernel, own.kernel)


@pytest.mark.parametrize("loss", ["squared", "huber"])
@pytest.mark.parametrize("n", [60, 300, 700])
def test_a_fit_builds_no_kernel_twice(monkeypatch: pytest.MonkeyPatch, n: int, loss: str) -> None:
    built, computed = [], Kernel.between

    def keep(data: RidgeData, *arguments: Any) -> np.ndarray:
        built.append((data.X, data.columns))
        return computed(data, *arguments)

    monkeypatch.setattr(Kernel, "between", staticmethod(keep))
    X = np.random.default_rng(0).standard_normal((n, 3))
    y = np.abs(X).sum(axis=1)
    model = ConvexReLURegressor(loss=loss, formulation="gated", n_patterns=16, random_state=0)
    model.fit(X, y)
    assert built
    for k, (inputs, columns) in enumerate(built):
        for others, masks in built[:k]:
            same = inputs.shape == others.shape and np.array_equal(inputs, others)
            assert not (same and np.array_equal(columns, masks))


@pytest.mark.parametrize(("n", "rows"), [(300, 256), (6400, 400), (40000, 1024)])
def test_kinds_are_compared_on_a_part_of_many_rows(
    n: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def of(program: ConvexProgram) -> Spectrum:
        seen.append(len(program.y))
        return Spectrum(np.ones(len(program.y)), np.eye(len(program.y)), np.eye(len(program.y)))

    monkeypatch.setattr(Spectrum, "of", of)
    y = np.random.default_rng(0).standard_normal((n, 1))
    choose_patterns(program_of(y), 4, KINDS, np.random.RandomState(0))
    assert seen == [rows, rows]
