"""No bound lies above the optimum: random programs of every kind, against CVXPY.

Losses and penalties are those of the package and some of a user's own. The optimum comes from a
program that is written here, expression by expression, and shares no code with the package.

What costs time is to compile: cases in a row therefore share what is compiled (the parts of the
program and the rounded shape) and differ in all else. ``campaign.py bounds`` runs many of them.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cvxpy as cp
import jax.numpy as jnp
import numpy as np
import pytest

from cvxnn.convex import (
    L1,
    ConvexProgram,
    Cronos,
    DualPoint,
    FeatureGroupLasso,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    LogisticLoss,
    Loss,
    MultinomialLoss,
    NeuronGroupLasso,
    ProximalGradient,
    Result,
    Ridge,
    Solver,
    SquaredL2,
    SquaredLoss,
    Status,
    Weights,
    register_pytree,
    regularization_path,
    solve,
    solve_on_working_sets,
)


def xp(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else jnp


# A user's own parts ---------------------------------------------------------------------------


@register_pytree
@dataclass(frozen=True)
class SquaredHinge(Loss):
    """``max(0, 1 - y f)^2 / 2``: its conjugate is ``p^2 / 2 - p`` for ``p = -y z >= 0``."""

    curvature = 1.0

    def value(self, prediction: Any, target: Any) -> Any:
        return xp(prediction).maximum(0, 1 - target * prediction) ** 2 / 2

    def gradient(self, prediction: Any, target: Any) -> Any:
        return -target * xp(prediction).maximum(0, 1 - target * prediction)

    def hessian(self, prediction: Any, target: Any) -> Any:
        return xp(prediction).where(target * prediction < 1, 1.0 + 0 * prediction, 0)

    def conjugate(self, dual: Any, target: Any) -> Any:
        p = -target * dual
        return xp(dual).where(p >= 0, p**2 / 2 - p, xp(dual).inf)


@register_pytree
@dataclass(frozen=True)
class ScaledRidge:
    """A ridge of another strength: the case of a false certificate in the past."""

    factor: float = 0.1

    def value(self, U: Any) -> Any:
        return self.factor / 2 * (U**2).sum()

    def prox(self, U: Any, step: Any) -> Any:
        return U / (1 + self.factor * step)

    def conjugate(self, U: Any) -> Any:
        return (U.reshape(len(U), -1) ** 2).sum(axis=1) / (2 * self.factor)


@register_pytree
@dataclass(frozen=True)
class ElasticNet:
    """``ratio |u|_1 + (1 - ratio) |u|^2 / 2``."""

    ratio: float = 0.5

    def value(self, U: Any) -> Any:
        return self.ratio * abs(U).sum() + (1 - self.ratio) / 2 * (U**2).sum()

    def prox(self, U: Any, step: Any) -> Any:
        shrunk = xp(U).sign(U) * xp(U).maximum(abs(U) - self.ratio * step, 0)
        return shrunk / (1 + (1 - self.ratio) * step)

    def conjugate(self, U: Any) -> Any:
        beyond = xp(U).maximum(abs(U.reshape(len(U), -1)) - self.ratio, 0)
        return (beyond**2).sum(axis=1) / (2 * (1 - self.ratio))


@register_pytree
@dataclass(frozen=True)
class HuberPenalty:
    """``|u|`` with a round tip: its conjugate has an edge, as those of norms do."""

    def value(self, U: Any) -> Any:
        near = xp(U).minimum(abs(U), 1)
        return (near * (abs(U) - near / 2)).sum()

    def prox(self, U: Any, step: Any) -> Any:
        return xp(U).where(abs(U) <= 1 + step, U / (1 + step), U - step * xp(U).sign(U))

    def conjugate(self, U: Any) -> Any:
        flat = U.reshape(len(U), -1)
        edge = 1 + 4 * xp(U).finfo(U.dtype).eps
        inside = (abs(flat) <= edge).all(axis=1)
        return xp(U).where(inside, (flat**2).sum(axis=1) / 2, xp(U).inf)


@register_pytree
@dataclass(frozen=True)
class WeightedNeurons(NeuronGroupLasso):
    """A norm of one's own, which inherits from one of the package."""

    factor: float = 2.0

    def value(self, U: Any) -> Any:
        return self.factor * super().value(U)

    def prox(self, U: Any, step: Any) -> Any:
        return super().prox(U, self.factor * step)

    def dual_norm(self, U: Any) -> Any:
        return super().dual_norm(U) / self.factor


# The same in CVXPY ----------------------------------------------------------------------------


def penalty_of(penalty: Any, U: Any) -> Any:
    """Value at the blocks of one output, one a row."""
    return {
        NeuronGroupLasso: lambda: cp.sum(cp.norm(U, axis=1)),
        FeatureGroupLasso: lambda: cp.sum(cp.norm(U, axis=0)),
        L1: lambda: cp.sum(cp.abs(U)),
        SquaredL2: lambda: cp.sum_squares(U) / 2,
        ScaledRidge: lambda: penalty.factor / 2 * cp.sum_squares(U),
        ElasticNet: lambda: (
            penalty.ratio * cp.sum(cp.abs(U)) + (1 - penalty.ratio) / 2 * cp.sum_squares(U)
        ),
        HuberPenalty: lambda: cp.sum(cp.huber(U, 1)) / 2,
        WeightedNeurons: lambda: penalty.factor * cp.sum(cp.norm(U, axis=1)),
    }[type(penalty)]()


def loss_of(loss: Any, f: Any, y: np.ndarray, share: np.ndarray) -> Any:
    """Weighted sum of the losses of predictions, (n_samples, n_outputs)."""
    each = {
        SquaredLoss: lambda: cp.square(f - y) / 2,
        HuberLoss: lambda: cp.huber(f - y, loss.delta) / 2,
        LogisticLoss: lambda: cp.logistic(-cp.multiply(y, f)),
        SquaredHinge: lambda: cp.square(cp.pos(1 - cp.multiply(y, f))) / 2,
    }
    if isinstance(loss, MultinomialLoss):
        own = cp.sum(cp.multiply(y, f), axis=1)
        return share[:, 0] @ (cp.log_sum_exp(f, axis=1) - own)
    return cp.sum(cp.multiply(np.broadcast_to(share, y.shape), each[type(loss)]()))


class Oracle:
    """A program in CVXPY: its optimum, and its objective at weights."""

    def __init__(self, program: ConvexProgram) -> None:
        X, mask = np.asarray(program.operator.X, float), np.asarray(program.operator.mask)
        # The solver errs by parts in a thousand on small features.
        self.unit = unit = np.abs(X).max() or 1.0
        X = X / unit
        y, (n, P), d = np.asarray(program.y, float), mask.shape, X.shape[1]
        weight = program.sample_weight
        share = np.full((n, 1), 1 / n) if weight is None else (weight / weight.sum())[:, None]
        objective, cones, predictions = 0, [], []
        self.blocks, self.linear = [], []
        for _ in range(y.shape[1]):
            v, w = cp.Variable((P, d)), cp.Variable((P, d))
            f = cp.sum(cp.multiply(mask, X @ (v - w).T), axis=1)
            if program.formulation == "relu":
                cones += [cp.multiply(2.0 * mask - 1, X @ part.T) >= 0 for part in (v, w)]
                blocks = cp.vstack([v, w])
            else:
                cones += [w == 0]
                blocks = v
            self.blocks.append((v, w))
            objective += program.alpha * penalty_of(program.penalty, blocks / unit)
            if program.skip is not None:
                z = cp.Variable(d)
                self.linear.append(z)
                f += X @ z
                objective += program.skip / 2 * cp.sum_squares(z / unit)
            predictions.append(f)
        objective += loss_of(program.loss, cp.vstack(predictions).T, y, np.asarray(share, float))
        self.problem = cp.Problem(cp.Minimize(objective), cones)

    def optimum(self) -> float | None:
        """Return the optimum, or None where the solver does not find it to eight digits."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
            for tol in (1e-10, 1e-8):
                with contextlib.suppress(cp.SolverError):
                    self.problem.solve("CLARABEL", tol_gap_abs=tol, tol_gap_rel=tol, tol_feas=tol)
                if self.problem.status == "optimal":
                    return float(self.problem.objective.value)
        return None

    def at(self, weights: Weights) -> float:
        """Return the objective at weights; infinity outside the cones."""
        for own, variables in zip(weights.blocks, self.blocks, strict=True):
            for part, variable in itertools.zip_longest(own, variables, fillvalue=0 * own[0]):
                variable.value = self.unit * np.asarray(part, float)
        for z, variable in zip(weights.linear if self.linear else (), self.linear, strict=True):
            variable.value = self.unit * np.asarray(z, float)
        outside = any(cone.violation().max() > 0 for cone in self.problem.constraints)
        return np.inf if outside else float(self.problem.objective.value)


# Random programs ------------------------------------------------------------------------------

LOSSES = (SquaredLoss(), HuberLoss(0.5), LogisticLoss(), MultinomialLoss(), SquaredHinge())
PENALTIES = (
    NeuronGroupLasso(),
    FeatureGroupLasso(),
    L1(),
    SquaredL2(),
    ScaledRidge(),
    ElasticNet(),
    HuberPenalty(),
    WeightedNeurons(),
)
# Differences that pass for rounding, as parts of the loss without weights.
ROUNDING = {np.float64: 1e-6, np.float32: 1e-4}
COMBINATIONS = list(itertools.product(LOSSES, PENALTIES, ("relu", "gated")))
SHARED = 40  # cases in a row that share what is compiled


class Parts(NamedTuple):
    """What decides what is compiled: cases that agree in it share that."""

    dtype: Any
    n_most: int
    """Largest number of rows; ``solve`` rounds up to a multiple of 8."""
    d: int
    C: int
    loss: Any
    penalty: Any
    formulation: Any
    has_skip: bool


def draw_parts(number: int) -> Parts:
    """Return the next combination of loss, penalty and form, of a random shape."""
    rng = np.random.default_rng([number, SHARED])
    loss, penalty, formulation = COMBINATIONS[37 * number % len(COMBINATIONS)]  # no common factor
    return Parts(
        np.float64 if rng.random() < 0.8 else np.float32,
        int(rng.choice([8, 16, 24], p=[0.4, 0.5, 0.1])),
        int(rng.choice([1, 2, 3, 3, 3, 5])),
        3 if isinstance(loss, MultinomialLoss) else int(rng.integers(1, 3)),
        loss,
        penalty,
        formulation,
        bool(rng.random() < 0.3),
    )


def draw(case: int) -> tuple[ConvexProgram, np.random.Generator]:
    """Draw data, targets, patterns, strength and weights; give the generator for what follows."""
    parts = draw_parts(case // SHARED)
    rng = np.random.default_rng(case)
    (dtype, n_most, d, C), loss = parts[:4], parts.loss
    n, P = int(rng.integers(max(2, n_most - 7), n_most + 1)), int(rng.integers(1, 8))
    X = rng.standard_normal((n, d)) * 10.0 ** rng.integers(-2, 3)
    kind = rng.integers(6)
    if kind == 0:
        X[rng.integers(n)] = 0
    elif kind == 1:
        X[:, -1] = X[:, 0]
    elif kind == 2:
        X[:, -1] = 1
    elif kind == 3:
        X[rng.integers(n)] = X[0]
    elif kind == 4:
        X = np.round(X)
    y = rng.standard_normal((n, C)) * 10.0 ** rng.integers(-2, 3)
    if isinstance(loss, MultinomialLoss):
        y = np.eye(C)[rng.integers(C, size=n)]
    elif isinstance(loss, LogisticLoss | SquaredHinge):
        y = np.where(y > 0, 1.0, -1.0)
    weight = None
    if rng.random() < 0.4:
        weight = rng.exponential(size=n) * (rng.random(n) < 0.8)
        weight[0] += 1
    program = ConvexProgram(
        GatedOperator(X.astype(dtype), X @ rng.standard_normal((d, P)) >= 0),
        y.astype(dtype),
        1.0,
        loss,
        parts.penalty,
        None if weight is None else weight.astype(dtype),
        parts.formulation,
    )
    unit = float(replace(program, penalty=NeuronGroupLasso()).alpha_max())
    skip = float(10.0 ** rng.uniform(-2, 1)) if parts.has_skip else None
    alpha = max(unit, 1e-3) * 10.0 ** rng.uniform(-3, 0.3)
    return replace(program, alpha=alpha, skip=skip), rng


def draw_solver(program: ConvexProgram, rng: np.random.Generator) -> Solver:
    """Draw one of the solvers that take the program, perhaps one that stops far too early."""
    tol = float(10.0 ** rng.uniform(-5, -1))
    early = bool(rng.random() < 0.3)
    certify = "network" if rng.random() < 0.5 else "program"
    first_order: Solver = ProximalGradient(tol=tol, max_iter=60 if early else 5000)
    if program.formulation == "relu":
        first_order = Cronos(tol=tol, certify=certify, max_iter=60 if early else 2000)  # type: ignore[arg-type]
    interior = InteriorPoint(tol=tol, certify=certify, max_iter=3 if early else 100)  # type: ignore[arg-type]
    takers = [first_order]
    for solver in (interior, Ridge(tol=tol)):
        try:
            takers.append(solver.accept(program))
        except TypeError:
            continue
    return takers[rng.integers(len(takers))]


def draw_result(program: ConvexProgram, solver: Solver, rng: np.random.Generator) -> Result:
    """Solve a program in one of the ways that give a bound."""
    way = rng.random()
    other = 10.0 ** rng.uniform(-1, 1)
    if way < 0.2:
        before = solve(replace(program, alpha=other * program.alpha), solver)
        return solve(program, solver, start=before)
    if way < 0.3:
        alphas = sorted([program.alpha, other * program.alpha])
        path = regularization_path(program, alphas=alphas, tol=solver.tol, solver=solver)
        return path.results[1 - alphas.index(program.alpha)]
    if way < 0.5 and type(program.penalty) is NeuronGroupLasso and program.skip is None:
        return solve_on_working_sets(program, tol=solver.tol, solver=solver, n_first=2)
    return solve(program, solver)


def check(program: ConvexProgram, solver: Solver, rng: np.random.Generator) -> bool:
    """Check the bounds of a program; return whether there is an optimum to judge them by."""
    dtype = program.operator.X.dtype.type
    y = np.asarray(program.y, float)
    at_zero = float((program.share * program.loss.value(0 * y, y)).sum())
    room = ROUNDING[dtype] * at_zero
    oracle = Oracle(program)
    best = oracle.optimum()
    if best is None:
        return False
    result = draw_result(program, solver, rng)
    assert result.status is not Status.NON_FINITE, f"{result}"
    # The oracle stops near the optimum: any feasible point may be the better judge of bounds.
    own = oracle.at(result.weights)
    best = min(best, own)
    assert result.dual_bound <= best + room, f"{result.dual_bound=} above {best=}"
    assert result.dual is not None, "no dual point"
    again = float(program.bound_of(result.dual))
    near = pytest.approx(result.dual_bound, rel=ROUNDING[dtype], abs=room)
    assert again == near, f"{again=} of {result.dual_bound=}"
    at = program.evaluate(result.weights)
    exact = getattr(solver, "certify", "network") == "program"
    value = float(at.objective if exact else at.network_objective)
    near = pytest.approx(result.objective, rel=1e-5, abs=room)
    assert value == near, f"{value=} of {result.objective=}"
    if result.status is Status.CONVERGED:
        assert result.gap <= solver.tol * (1 + 1e-6), f"{result.gap=}, {solver.tol=}"
    if program.formulation == "gated":
        near = pytest.approx(own, rel=1e-5, abs=room)
        assert result.objective == near, f"{result.objective=} where the oracle has {own=}"
    # Any dual point gives a bound: the one found, changed at random.
    noise = 10.0 ** rng.uniform(-3, 0)
    residual = result.dual.residual + noise * rng.standard_normal(y.shape)
    multipliers = result.dual.multipliers
    if multipliers is not None:
        multipliers = multipliers + noise / len(y) * rng.exponential(size=multipliers.shape)
    changed = float(program.bound_of(DualPoint(residual.astype(dtype), multipliers)))
    assert changed <= best + room, f"{changed=} above {best=}"
    return True


class Outcome(NamedTuple):
    """What came of a case: no optimum to judge by, a broken promise, or neither."""

    number: int
    name: str
    error: str = ""
    broken: str = ""


def run(number: int) -> Outcome:
    """Check one case."""
    program, rng = draw(number)
    solver = draw_solver(program, rng)
    name = type(solver).__name__
    try:
        return Outcome(number, name, "" if check(program, solver, rng) else "not judged")
    except AssertionError as broken:
        return Outcome(number, name, broken=f"{broken}: {program}, {solver}")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_no_bound_lies_above_the_optimum(cases: int) -> None:
    outcomes = [run(case) for case in range(max(cases // 2, 1))]
    assert [outcome for outcome in outcomes if outcome.broken] == []
    n_unjudged = sum(outcome.error == "not judged" for outcome in outcomes)
    assert n_unjudged <= 0.1 * len(outcomes)
