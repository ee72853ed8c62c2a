"""Trade-offs between the two objectives: the exact Pareto front and the balanced optimum."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.joint.problem import JointProblem


@dataclass(frozen=True, eq=False)
class ParetoFront:
    """Border of the pairs of values that both objectives can take together.

    Attributes
    ----------
    lambdas : ndarray, shape (n_points,)
        Trade-offs in increasing order, each in [0, 1].
    thetas : ndarray, shape (n_points, n_features)
        Policies that minimise the mix for each trade-off.
    dpo, sft : ndarray, shape (n_points,)
        The two objectives of the policies.
    objective, bound : ndarray, shape (n_points,)
        The mix, and the certified lower bound on it.
    ideal : (float, float)
        Optima of DPO and of SFT, each by itself.
    seconds : float
        Time that the computation took, in seconds.
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
        r"""Return an upper bound on the fraction by which both objectives exceed the front.

        .. math::

            \min_\lambda \; G_{Mix,\lambda} / f^*_{Mix,\lambda} ,

        With the minimum over all :math:`\lambda` it is the :math:`\epsilon` for which the point
        divided by :math:`1 + \epsilon` lies on the front; with the minimum over the trade-offs of
        this front it is an upper bound. It is 0 on the front and, unlike :math:`G_{Mix,\lambda}`,
        depends on no trade-off.

        Parameters
        ----------
        dpo, sft : array-like of one shape
            Values of the two objectives.

        Returns
        -------
        ndarray of the same shape
            The bound, at least 0 up to the tolerance of the optima.
        """
        a, b = (np.asarray(each, float)[..., None] for each in (dpo, sft))
        mixed = self.lambdas * a + (1 - self.lambdas) * b
        return (mixed / self.objective).min(axis=-1) - 1


def stop_at_front(
    problem: JointProblem, front: ParetoFront, excess: float = 0.01
) -> Callable[[int, NDArray[np.float64]], bool]:
    """Return a callback for `post_train` that ends a run once it is near a front.

    Appendix B.2 of the paper stops joint strategies at a reference front, which it estimates by
    ALRIGHT; `pareto_front` gives the exact one.

    Parameters
    ----------
    problem : JointProblem
        The two objectives.
    front : ParetoFront
        Front of the problem.
    excess : float, default=0.01
        Fraction by which both objectives may exceed the front, above 0; see `ParetoFront.excess`.

    Returns
    -------
    callable
        ``callback(step, theta)``, true near the front.

    Raises
    ------
    ValueError
        If `excess` is not above 0.

    Examples
    --------
    >>> from cvxnn.joint import pareto_front, post_train, stop_at_front   # doctest: +SKIP
    >>> stop = stop_at_front(problem, pareto_front(problem), 0.02)        # doctest: +SKIP
    >>> post_train(problem, "alright", callback=stop).status              # doctest: +SKIP
    'stopped'
    """
    if not excess > 0:
        raise ValueError(f"excess={excess!r}; expected a number above 0.")

    def near(step: int, theta: NDArray[np.float64]) -> bool:
        return bool(front.excess(*problem.values(theta)) <= excess)

    return near


def reference_front(lambdas: ArrayLike, dpo: ArrayLike, sft: ArrayLike) -> ParetoFront:
    """Return a front of objectives that were measured, such as those of earlier runs.

    Appendix B.2 of the paper stops strategies at a front that runs of ALRIGHT estimate. Of a
    language model there is no exact one; `ParetoFront.excess` of this one is below 0 for what is
    better than all of its points.

    Parameters
    ----------
    lambdas : array-like, shape (n_points,)
        Trade-off of each run, in [0, 1].
    dpo, sft : array-like, shape (n_points,)
        Where it ended: both objectives, above 0.

    Returns
    -------
    ParetoFront
        The points in the order of `lambdas`, with neither policies nor certified bounds.

    Raises
    ------
    ValueError
        If the arrays are empty, differ in length, or have values outside of their ranges.

    Examples
    --------
    >>> from cvxnn.joint import reference_front
    >>> front = reference_front([0.25, 0.75], dpo=[0.69, 0.6], sft=[1.2, 1.4])
    >>> float(front.excess(0.66, 1.25).round(3))
    0.009
    """
    trade_offs, a, b = (np.atleast_1d(np.asarray(each, float)) for each in (lambdas, dpo, sft))
    if not (trade_offs.ndim == 1 and trade_offs.size and trade_offs.shape == a.shape == b.shape):
        raise ValueError(
            f"lambdas, dpo and sft have the shapes {trade_offs.shape}, {a.shape} and {b.shape}; "
            "expected three lists of one length, at least 1"
        )
    if not (np.all((trade_offs >= 0) & (trade_offs <= 1)) and np.all((a > 0) & (b > 0))):
        raise ValueError("expected trade-offs in [0, 1] and objectives above 0")
    order = np.argsort(trade_offs, kind="stable")
    trade_offs, a, b = trade_offs[order], a[order], b[order]
    return ParetoFront(
        lambdas=trade_offs,
        thetas=np.empty((len(a), 0)),
        dpo=a,
        sft=b,
        objective=trade_offs * a + (1 - trade_offs) * b,
        bound=np.full(len(a), -np.inf),
        ideal=(float(a.min()), float(b.min())),
        seconds=0.0,
    )


def pareto_front(problem: JointProblem, lambdas: ArrayLike | None = None) -> ParetoFront:
    """Compute the Pareto front: minimise the mix for each trade-off, from the nearest solution.

    Parameters
    ----------
    problem : JointProblem
        The two objectives.
    lambdas : array-like, optional
        Trade-offs, each in [0, 1]; by default 21 equidistant ones.

    Returns
    -------
    ParetoFront
        Policies and objectives for each trade-off, with certificates.

    Raises
    ------
    ValueError
        If there are no trade-offs, or one is outside [0, 1].
    RuntimeError
        If an optimum does not reach the tolerance of the problem.
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
    """Minimiser of equation (13) with its certificate.

    Attributes
    ----------
    theta : ndarray, shape (n_features,)
        The policy.
    objective : float
        Larger one of the two weighted gaps at the policy.
    bound : float
        Certified lower bound on the optimum.
    """

    theta: NDArray[np.floating]
    objective: float
    bound: float


def balanced_optimum(problem: JointProblem, lam: float, *, tol: float = 1e-6) -> BalancedOptimum:
    r"""Minimise :math:`f_{Max,\lambda}` (equation 13), the goal of MAXRIGHT, exactly.

    By duality the optimum is the maximum over :math:`w` of the optimum of the mix
    :math:`w \lambda (f_{DPO} - f^*_{DPO}) + (1 - w)(1 - \lambda)(f_{SFT} - f^*_{SFT})`; each
    :math:`w` gives a lower bound. The two terms of the maximum are equal at the best :math:`w`,
    which bisection finds. The minimiser is therefore a point of the Pareto front, for another
    trade-off than :math:`\lambda`.

    Parameters
    ----------
    problem : JointProblem
        The two objectives.
    lam : float
        Trade-off :math:`\lambda`, in (0, 1).
    tol : float, default=1e-6
        Difference between objective and bound at which the bisection ends.

    Returns
    -------
    BalancedOptimum
        The policy, its objective and the lower bound.

    Raises
    ------
    ValueError
        If ``lam`` is out of range.
    RuntimeError
        If an optimum does not reach the tolerance of the problem.
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
