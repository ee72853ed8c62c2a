"""Choice of a solver for a program, by cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cvxnn.convex._checks import number, refuse_sparse_program
from cvxnn.convex.losses import LogisticLoss, MultinomialLoss
from cvxnn.convex.penalties import NeuronGroupLasso, SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Solver
from cvxnn.convex.solvers.interior_point.interior_point import InteriorPoint, cost
from cvxnn.convex.solvers.ridge.closed_form import takes
from cvxnn.convex.solvers.ridge.ridge import Ridge

# Beyond this many flops, interior point is expected to take longer than a first-order solver needs
# to compile and to find its way to a gap of 1 %. With the losses of classes and cones, that takes
# hundreds of iterations, not dozens.
_INTERIOR_POINT_FLOPS, _OF_CLASSES = 3e11, 5e12
INTERIOR_POINT_ITERATIONS = 25


def automatic(program: ConvexProgram, *, tol: float, max_iter: int | None = None) -> Solver:
    """Choose a solver for a program.

    It is the closed form if there is one; the interior-point method if it takes the program and
    the program is small enough; else CRONOS for the ReLU formulation and accelerated proximal
    gradient for the gated one.

    Parameters
    ----------
    program : ConvexProgram
        Program to be solved.
    tol : float
        Relative duality gap to reach.
    max_iter : int, optional
        Most iterations; the solver's own default otherwise.

    Returns
    -------
    Solver
        With this tolerance and limit.

    Raises
    ------
    TypeError, ValueError
        If the program is none (:meth:`ConvexProgram.check`), has sparse rows but no closed form,
        or an option is out of range.
    """
    if not isinstance(program, ConvexProgram):
        raise TypeError(f"automatic takes a ConvexProgram, not a {type(program).__name__}.")
    program.check()
    number("tol", tol)
    if max_iter is not None and not max_iter >= 1:
        raise ValueError(f"max_iter={max_iter!r}; expected None or at least 1.")
    positive = bool(np.all(np.asarray(program.alpha) > 0))
    if positive and takes(program):
        return _limited(Ridge(tol=tol), max_iter)
    refuse_sparse_program(program, "any other solver than Ridge")
    classes = type(program.loss) in (LogisticLoss, MultinomialLoss)
    norms = type(program.penalty) in (NeuronGroupLasso, SquaredL2)
    taken = norms and (classes or not program.loss.coupled)
    most = _OF_CLASSES if classes and program.formulation == "relu" else _INTERIOR_POINT_FLOPS
    small = INTERIOR_POINT_ITERATIONS * cost(program) <= most
    if taken and small and positive:
        return _limited(InteriorPoint(tol=tol), max_iter)
    if program.formulation == "gated":
        from cvxnn.convex.solvers.proximal_gradient import ProximalGradient

        return _limited(ProximalGradient(tol=tol), max_iter)
    from cvxnn.convex.solvers.cronos.cronos import Cronos

    return _limited(Cronos(tol=tol), max_iter)


def _limited(solver: Any, max_iter: int | None) -> Any:
    return solver if max_iter is None else replace(solver, max_iter=max_iter)
