"""Arguments of ``solve``: what is refused, where a solver starts, and how much work a step is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex._checks import refuse_sparse_program
from cvxnn.convex.checkpoint import RHO, Checkpoint
from cvxnn.convex.objectives import WithRows
from cvxnn.convex.operators import PairedOperator, Weights
from cvxnn.convex.penalties import SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Result, Solver, Start
from cvxnn.numerics.arrays import leaves_of, map_leaves
from cvxnn.numerics.threads import SHARED_FACTOR, SHARED_PRODUCT


def check_arguments(problem: Any, solver: Any, time_limit: float | None) -> None:
    """Refuse options and programs with which no solver can work."""
    if not isinstance(solver, Solver):
        raise TypeError(
            f"solver={solver!r}; expected an instance of a Solver, such as Cronos(), or what "
            "automatic(program, tol=1e-3) returns."
        )
    if not solver.on_host and any(leaf is solver for leaf in leaves_of(solver)):
        raise TypeError(
            f"{type(solver).__name__} is no pytree, so that nothing compiles it; write "
            "@register_pytree (of cvxnn.convex) above @dataclass(frozen=True), or set on_host."
        )
    for name in ("max_iter", "check_every"):
        if not getattr(solver, name) >= 1:
            value = getattr(solver, name)
            raise ValueError(f"{type(solver).__name__}: {name}={value!r}; expected at least 1.")
    if np.isnan(solver.tol):
        raise ValueError(f"{type(solver).__name__}: tol is nan; expected a number.")
    if time_limit is not None and not time_limit >= 0:
        raise ValueError(f"time_limit={time_limit!r}; expected None or seconds, at least 0.")
    if isinstance(problem, ConvexProgram):
        problem.check()
        if not solver.takes_sparse:
            refuse_sparse_program(problem, type(solver).__name__)
        if isinstance(problem.operator, PairedOperator) and not solver.takes_pairs:
            raise TypeError(
                f"{type(solver).__name__} takes no PairedOperator; use Ridge, with SquaredLoss, "
                "SquaredL2 and alpha above 0."
            )
    elif not any(hasattr(leaf, "dtype") for leaf in leaves_of(problem)):
        raise TypeError(
            f"problem={problem!r}; expected a ConvexProgram, or an objective that is registered "
            "as a pytree with its arrays as leaves."
        )


def start_of(start: Any, problem: Any, dtype: Any) -> Start | None:
    """Return copies in the solver's layout, since the state is donated and may alias the start."""
    if start is None:
        return None

    def arrays(weights: Any) -> NDArray[np.floating]:
        if isinstance(weights, Weights):
            weights = problem.stack(weights)
        return np.array(weights, dtype)

    if not isinstance(start, Result):
        return Start(arrays(start))
    rho = [start.history[name][-1] for name in RHO if name in start.history]
    dual = start.dual
    if dual is not None:
        dual = map_leaves(lambda part: np.array(part, dtype), dual.stacked(problem.operator))
    return Start(arrays(start.weights), dual, np.array(rho, dtype) if rho else None)


def checkpoint_of(path: Any, problem: Any, solver: Any) -> Checkpoint:
    """Return the file of a point, where the solver goes on from one."""
    if not isinstance(problem, ConvexProgram) or solver.on_host:
        raise TypeError(
            f"checkpoint is for a ConvexProgram and for solvers that are compiled: Cronos, "
            f"ProximalGradient; got {type(problem).__name__} and {type(solver).__name__}."
        )
    return Checkpoint(path, problem, type(solver).__name__)


def across_devices(problem: Any, solver: Any) -> Any:
    """Return the solver for rows on several devices, where the problem has some."""
    if not isinstance(problem, ConvexProgram | WithRows):
        raise TypeError(
            "mesh is for the rows of a ConvexProgram, or of an objective with by_rows, such as "
            f"CoalaObjective; got {type(problem).__name__}."
        )
    if isinstance(problem, ConvexProgram):
        refuse_sparse_program(problem, "mesh")
    return solver.across_devices()


def step_flops(problem: Any) -> float:
    """Return the operations of an iteration, which has two products with the data or more."""
    if not isinstance(problem, ConvexProgram):
        return 4.0 * sum(np.size(leaf) for leaf in leaves_of(problem))
    product = 2.0 * problem.operator.X.size * problem.operator.n_patterns * problem.y.shape[1]
    # The ReLU formulation has two signs, and conjugate gradient in each step.
    return 2 * product * (4 if problem.formulation == "relu" else 1)


def shared_work(problem: Any) -> float:
    """Return the work that threads of BLAS may share, in units from which on it pays."""
    if not isinstance(problem, ConvexProgram):
        sizes = (np.size(leaf) for leaf in leaves_of(problem))
        return 2.0 * sum(sizes) / SHARED_PRODUCT
    X, P = problem.operator.X, problem.operator.n_patterns
    product = 2.0 * X.size * P * problem.y.shape[1] / SHARED_PRODUCT
    if not isinstance(problem.penalty, SquaredL2):
        return product
    n, d = X.shape
    return max(product, float(n) * min(n, d * P) ** 2 / SHARED_FACTOR)
