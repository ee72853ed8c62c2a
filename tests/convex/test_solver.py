"""A researcher's own solver, loss and penalty, built from the public names alone."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvxnn.convex import (
    ConvexProgram,
    GatedOperator,
    Measurement,
    NeuronGroupLasso,
    ProximalGradient,
    Result,
    Solver,
    SquaredLoss,
    Start,
    Status,
    Weights,
    register_pytree,
    sample_patterns,
    solve,
)


@register_pytree
@dataclass(frozen=True)
class PseudoHuber:
    """A loss that the package does not have: sqrt(1 + e^2) - 1."""

    coupled: ClassVar[bool] = False
    curvature: ClassVar[float] = 1.0

    def value(self, prediction: Any, target: Any) -> Any:
        return (1 + (prediction - target) ** 2) ** 0.5 - 1

    def gradient(self, prediction: Any, target: Any) -> Any:
        error = prediction - target
        return error / (1 + error**2) ** 0.5

    def hessian(self, prediction: Any, target: Any) -> Any:
        return (1 + (prediction - target) ** 2) ** -1.5

    def conjugate(self, dual: Any, target: Any) -> Any:
        xp = np if isinstance(dual, np.ndarray) else jnp
        inside = xp.abs(dual) <= 1
        rest = (1 - xp.where(inside, dual, 0) ** 2) ** 0.5
        return xp.where(inside, 1 - rest + dual * target, xp.inf)

    def dual_scale(self, residual: Any, target: Any, share: Any, extra: Any) -> Any:
        return 1 + 0 * residual[0]


@register_pytree
@dataclass(frozen=True)
class WeightedLasso(NeuronGroupLasso):
    """A penalty that the package does not have: the group lasso times a number."""

    factor: float = 2.0

    def value(self, U: Any) -> Any:
        return self.factor * super().value(U)

    def prox(self, U: Any, step: Any) -> Any:
        return super().prox(U, self.factor * step)

    def dual_norm(self, U: Any) -> Any:
        return super().dual_norm(U) / self.factor


class Descent(NamedTuple):
    U: Any
    step: Any


@register_pytree
@dataclass(frozen=True)
class PlainProximalGradient(Solver[ConvexProgram, Descent]):
    """The gated formulation by proximal gradient without momentum."""

    tol: float = 1e-3
    max_iter: int = 20_000
    check_every: int = 50
    certified: bool = field(default=True, metadata={"static": True})

    def init(self, program: ConvexProgram, start: Start | None) -> Descent:
        U = jnp.zeros(program.stacked_shape) if start is None else start.weights
        return Descent(U, jnp.nan)

    def refresh(self, program: ConvexProgram, state: Descent) -> Descent:
        op = program.operator
        largest = program.loss.curvature * program.operator.n_patterns * jnp.linalg.norm(op.X) ** 2
        return state._replace(step=len(op.X) / largest)

    def step(self, program: ConvexProgram, state: Descent) -> Descent:
        residual = program.evaluate(state.U).residual
        U = program.regularizer.prox(state.U + state.step * program.slope(residual), state.step)
        return state._replace(U=U)

    def measure(self, program: ConvexProgram, state: Descent) -> tuple[Descent, Measurement]:
        at = program.evaluate(state.U)
        bound = program.dual_bound(at.residual)
        return state, Measurement(at.objective, bound, (at.objective - bound) / at.objective)

    def weights(self, state: Descent) -> Any:
        return state.U


class HostDescent(PlainProximalGradient):
    """The same in plain Python."""

    on_host = True

    def init(self, program: ConvexProgram, start: Start | None) -> Descent:
        return Descent(np.zeros(program.stacked_shape), np.nan)

    def refresh(self, program: ConvexProgram, state: Descent) -> Descent:
        return jax.tree.map(np.asarray, super().refresh(program, state))


def make(**options: Any) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 3))
    y = np.maximum(X @ rng.standard_normal((3, 1)), 0)
    operator = GatedOperator(X, sample_patterns(X, 5, random_state=0).mask)
    return ConvexProgram(operator, y, 0.02, formulation="gated", **options)


@pytest.mark.parametrize("skip", [None, 0.1])
@pytest.mark.slow
def test_a_solver_of_ones_own(skip: float | None) -> None:
    program = make(skip=skip)
    expected = solve(program, ProximalGradient(tol=1e-6))
    result = solve(program, PlainProximalGradient())
    assert isinstance(result, Result)
    assert result.status is Status.CONVERGED
    assert result.objective == pytest.approx(expected.objective, rel=1e-3)
    assert isinstance(result.weights, Weights)
    assert (result.weights.linear is None) == (skip is None)
    assert float(program.evaluate(result.weights).objective) == pytest.approx(result.objective)
    # The parts that are optional.
    assert result.dual is None
    assert PlainProximalGradient().flops(program, result) is None
    assert PlainProximalGradient().accept(program) == PlainProximalGradient()
    again = solve(program, PlainProximalGradient(max_iter=1, check_every=1), start=result)
    assert again.status is Status.CONVERGED
    on_host = solve(program, HostDescent())
    # Without padding, whose rows and patterns this step size counts.
    assert on_host.status is Status.CONVERGED
    assert on_host.objective == pytest.approx(result.objective, rel=1e-3)


@pytest.mark.slow
def test_a_loss_and_a_penalty_of_ones_own() -> None:
    program = make(loss=PseudoHuber(), penalty=WeightedLasso())
    own, ours = solve(program, PlainProximalGradient()), solve(program, ProximalGradient(tol=1e-6))
    assert own.status is ours.status is Status.CONVERGED
    assert own.objective == pytest.approx(ours.objective, rel=1e-3)
    assert float(program.bound_of(ours.dual)) == pytest.approx(ours.dual_bound, rel=1e-9)
    # Twice the penalty is twice its strength; code compiled for one loss serves no other.
    twice = replace(program, penalty=NeuronGroupLasso(), alpha=0.04)
    assert solve(twice, ProximalGradient(tol=1e-6)).objective == pytest.approx(ours.objective)
    other = solve(replace(program, loss=SquaredLoss()), ProximalGradient(tol=1e-6))
    assert other.objective > ours.objective


def numbered(k: int) -> Solver[Any, Any]:
    """Make a solver that differs from others of another number in nothing that JAX compares."""

    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class Numbered(Solver[Any, Any]):
        tol: float = 0.0
        max_iter: int = 1
        check_every: int = 1

        def init(self, problem: Any, start: Start | None) -> Any:
            return jnp.full((), k)

        def step(self, problem: Any, state: Any) -> Any:
            return state

        def measure(self, problem: Any, state: Any) -> tuple[Any, Measurement]:
            return state, Measurement(jnp.asarray(float(k)), -jnp.inf, jnp.asarray(1.0))

        def weights(self, state: Any) -> Any:
            return state

    return Numbered()


@pytest.mark.slow
def test_code_of_one_solver_serves_no_other() -> None:
    results = [solve(np.zeros(2), numbered(k)) for k in range(40)]
    assert [int(result.weights) for result in results] == list(range(40))
    assert [result.objective for result in results] == list(range(40))


def test_what_a_solver_has_to_write() -> None:
    class Nothing(Solver[ConvexProgram, Descent]):
        pass

    with pytest.raises(TypeError, match=r"abstract methods? .*init.*measure.*step.*weights"):
        Nothing()  # type: ignore[abstract]
