"""Trade-offs between the two objectives: the exact Pareto front and the balanced optimum."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.joint.problem import JointProblem


@dataclass(frozen=True, eq=False)
class ParetoFront:
    """The border of what both objectives can be at once.

    Attributes
    ----------
    lambdas : ndarray, shape (n_points,)
        Increasing.
    thetas : ndarray, shape (n_points, n_features)
        The policies.
    dpo, sft : ndarray, shape (n_points,)
        Their objectives.
    objective, bound : ndarray, shape (n_points,)
        The mix, and the certified lower bound on it.
    ideal : (float, float)
        Optimum of each objective alone.
    seconds : float
        What it took.
    """

    lambdas: NDArray[np.float64]
    thetas: NDArray[np.float64]
    dpo: NDArray[np.float64]
    sft: NDArray[np.float64]
    objective: NDArray[np.float64]
    bound: NDArray[np.float64]
    ideal: tuple[float, float]
    seconds: float

    def excess(self, dpo: ArrayLike, sft: ArrayLike) -> NDArray[np.float64]:
        r"""By which part both objectives could be lower at once, at most.

        .. math::

            \min_\lambda \; G_{Mix,\lambda} / f^*_{Mix,\lambda} ,

        the :math:`\epsilon` for which the point divided by :math:`1 + \epsilon` lies on the front,
        if the minimum is over all :math:`\lambda`; over those of this front it is an upper bound.
        Zero on the front; unlike :math:`G_{Mix,\lambda}` it asks for no particular trade-off.
        """
        a, b = (np.asarray(each, float)[..., None] for each in (dpo, sft))
        mixed = self.lambdas * a + (1 - self.lambdas) * b
        return (mixed / self.objective).min(axis=-1) - 1


def pareto_front(problem: JointProblem, lambdas: ArrayLike | None = None) -> ParetoFront:
    """Solve the mix for each trade-off, each from the one before.

    Parameters
    ----------
    problem : JointProblem
    lambdas : array-like, optional
        Trade-offs in [0, 1]; 21 of equal distance by default.

    Returns
    -------
    ParetoFront
    """
    began = time.perf_counter()
    grid = np.linspace(0, 1, 21) if lambdas is None else np.unique(np.asarray(lambdas, float))
    if grid.ndim != 1 or grid.size == 0:
        raise ValueError("lambdas is empty; expected at least one number in [0, 1].")
    found = [problem.optimum(float(lam)) for lam in grid]
    thetas = np.stack([each.weights for each in found])
    dpo, sft = problem.values(thetas)
    return ParetoFront(
        lambdas=grid,
        thetas=thetas,
        dpo=dpo,
        sft=sft,
        objective=np.array([each.objective for each in found]),
        bound=np.array([each.dual_bound for each in found]),
        ideal=problem.ideal(),
        seconds=time.perf_counter() - began,
    )


class BalancedOptimum(NamedTuple):
    """The minimiser of equation (13), and what proves it."""

    theta: NDArray[np.floating]
    objective: float
    bound: float


def balanced_optimum(problem: JointProblem, lam: float, *, tol: float = 1e-6) -> BalancedOptimum:
    r"""Minimise :math:`f_{Max,\lambda}` (equation 13), what MAXRIGHT strives for, exactly.

    By duality its optimum is the largest over :math:`w` of the optimum of
    :math:`w \lambda (f_{DPO} - f^*_{DPO}) + (1 - w)(1 - \lambda)(f_{SFT} - f^*_{SFT})`, a mix; each
    :math:`w` gives a lower bound. The two terms of the maximum are equal at the best one, which
    bisection finds. So it is a point of the Pareto front, but of another trade-off than
    :math:`\lambda`.

    Parameters
    ----------
    problem : JointProblem
    lam : float
        Above 0 and below 1.
    tol : float, default=1e-6
        Difference between objective and bound to reach.

    Returns
    -------
    BalancedOptimum
    """
    if not 0 < lam < 1:
        raise ValueError(f"lam={lam!r}; expected a number above 0 and below 1.")
    low, high = 0.0, 1.0
    best, bound = BalancedOptimum(problem.optimum(0).weights, np.inf, -np.inf), -np.inf
    for _ in range(60):
        w = (low + high) / 2
        total = w * lam + (1 - w) * (1 - lam)
        trade_off = w * lam / total
        found = problem.optimum(trade_off)
        dpo, sft = problem.values(found.weights)
        best_dpo, best_sft = problem.ideal()
        floor = found.dual_bound - trade_off * best_dpo - (1 - trade_off) * best_sft
        bound = max(bound, total * floor)
        value = float(problem.max_gap(dpo, sft, lam))
        if value < best.objective:
            best = BalancedOptimum(found.weights, value, bound)
        if best.objective - bound <= tol:
            break
        if lam * (dpo - best_dpo) > (1 - lam) * (sft - best_sft):
            low = w
        else:
            high = w
    return best._replace(bound=bound)
