"""The choice among patterns against a plain loop that leaves rows out one by one."""

from typing import Any

import numpy as np
import pytest

from cvxnn.convex import ConvexProgram, GatedOperator, SquaredL2, SquaredLoss
from cvxnn.training import choose_program
from cvxnn.training.spectrum import Spectrum


def programs(y: np.ndarray, weight: np.ndarray | None = None) -> list[ConvexProgram]:
    """Programs of one gate that is open on all rows, on the right half, and on every second row."""
    X = np.column_stack([np.linspace(-1, 1, len(y)), np.ones(len(y))])
    masks = [np.ones(len(y), bool), X[:, 0] >= 0, np.arange(len(y)) % 2 == 0]
    operators = [GatedOperator(X, mask[:, None]) for mask in masks]
    return [
        ConvexProgram(o, y, 0.0, SquaredLoss(), SquaredL2(), weight, "gated") for o in operators
    ]


def naive_error(program: ConvexProgram, groups: np.ndarray) -> float:
    X, mask, y = program.operator.X, program.operator.mask[:, 0], program.y
    share = np.broadcast_to(program.share, (len(y), 1))
    A = X * mask[:, None]
    least = np.inf
    for alpha in Spectrum.of(program).alphas():
        total = 0.0
        for g in np.unique(groups):
            rest = groups != g
            gram = A[rest].T @ (share[rest] * A[rest]) + alpha * np.eye(2)
            z = np.linalg.solve(gram, A[rest].T @ (share[rest] * y[rest]))
            total += (share[~rest] * (y[~rest] - A[~rest] @ z) ** 2).sum()
        least = min(least, total)
    return least


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_program_of_least_error_is_chosen(grouped: bool, weighted: bool) -> None:
    n, rng = 14, np.random.default_rng(0)
    groups = np.arange(n) // 2 if grouped else np.arange(n)
    weight = rng.uniform(0.5, 2, n) if weighted else None
    chosen = []
    for target in range(3):
        shape = [np.linspace(-1, 1, n), np.maximum(np.linspace(-1, 1, n), 0), np.arange(n) % 2 == 0]
        y = (shape[target] + 0.05 * rng.standard_normal(n))[:, None]
        given = programs(y, weight)
        errors = [naive_error(program, groups) for program in given]
        options: dict[str, Any] = {"groups": groups if grouped else None, "shared": True}
        found = choose_program(given, np.random.RandomState(0), **options)
        assert found == np.argmin(errors)
        chosen.append(found)
        # The first one stays where another gains less than 2 %.
        assert choose_program(given[:1] * 2, np.random.RandomState(0), **options) == 0
    assert chosen == [0, 1, 2]


def test_the_generator_is_left_as_it_was() -> None:
    rng = np.random.RandomState(0)
    y = np.random.default_rng(0).standard_normal((300, 1))
    choose_program(programs(y), rng)
    assert rng.randint(10**6) == np.random.RandomState(0).randint(10**6)
    assert choose_program(programs(y)[:1], rng) == 0
