"""Operations of CRONOS, and which way of finding ``u`` takes fewer."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Result

# What the cost model takes for granted: PCG iterations within an ADMM iteration, and how often
# balancing asks for new factors.
_PCG_ITERATIONS = 6
_FACTORINGS_PER_ITERATION = 0.03


def solve_flops(program: ConvexProgram, result: Result, kind: str, rank: int) -> float:
    """Return the flops of a solve, counting dense products and factorisations.

    Parameters
    ----------
    program : ConvexProgram
        The program that was solved.
    result : Result
        What CRONOS returned, with its history.
    kind : str
        How ``u`` was found; see ``Cronos.linear_solver``.
    rank : int
        Rank of the Nystrom sketches, where ``kind`` has them.
    """
    n, d = program.operator.X.shape
    P, C = program.operator.n_patterns, program.y.shape[1]
    product, small = 2.0 * n * d * P * C, 2.0 * d * d * P * C
    steps, checks = result.n_iter, len(result.history["iteration"])
    factorings = 1 + np.count_nonzero(np.diff(result.history["rho_weights"]))
    cg = result.history["cg_iterations"][-1]
    update = 2 * product + 3 * small if kind != "nystrom" else 6 * product
    if kind == "dual":
        # In single precision the inverse is applied in conjugate gradient only, which first finds
        # the residual.
        update += 2.0 * n * n * C if cg == 0 else 0.0
    per_cg = 2 * product + 2 * small if kind != "nystrom" else 6 * product
    if kind == "dual":
        per_cg += 2 * product + 2.0 * n * n * C
    factor = 2.0 * n * d * d + 2.5 * d**3
    if kind == "dual":
        factor += 2.0 * n * n * (d + P) + 2.5 * n**3
    if kind in ("nystrom", "block_nystrom"):
        factor += (6 if kind == "nystrom" else 2) * product * rank / C
    return (
        steps * (4 * product + update) + cg * per_cg + checks * 6 * product + (factorings * factor)
    )


def cheaper_solver(program: ConvexProgram) -> Literal["dual", "mean_field"]:
    """Compare flops of an iteration: n x n products and a share of the inverses, or PCG.

    Parameters
    ----------
    program : ConvexProgram
        The program to solve.
    """
    (n, d), P, C = program.operator.X.shape, program.operator.n_patterns, program.y.shape[1]
    factor = 2.0 * n * n * (d + P) + 3.0 * n**3
    exact = 2.0 * n * n * C + _FACTORINGS_PER_ITERATION * factor
    return "dual" if exact <= _PCG_ITERATIONS * 4.0 * n * d * P * C else "mean_field"
