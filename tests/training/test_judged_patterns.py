"""The choice between kinds of patterns against a plain loop that leaves rows out one by one."""

from dataclasses import replace

import numpy as np
import pytest

from cvxnn.convex import ConvexProgram, GatedOperator, SquaredL2, SquaredLoss
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


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
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
        assert found == KINDS[int(errors[1] < 0.98 * errors[0])]
        chosen.append(found)
    assert chosen == list(KINDS)


def test_the_generator_is_left_as_it_was() -> None:
    rng = np.random.RandomState(0)
    program = program_of(np.random.default_rng(0).standard_normal((300, 1)))
    choose_patterns(program, 8, KINDS, rng)
    assert rng.randint(10**6) == np.random.RandomState(0).randint(10**6)
    assert choose_patterns(program, 8, ["data"], rng) == "data"
