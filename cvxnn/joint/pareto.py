r"""What joint post-training could reach at best: certified optima and the exact Pareto front.

For a softmax policy on frozen features both objectives are convex, and so is every mix of them,

.. math::

    f_{Mix,\lambda} = \lambda f_{DPO} + (1 - \lambda) f_{SFT}, \qquad
    G_{Mix,\lambda}(\theta) = f_{Mix,\lambda}(\theta) - \min_\Theta f_{Mix,\lambda}

(equation 6 of "Understanding Forgetting in LLM Supervised Fine-Tuning and Preference Learning").
So the optima that the papers estimate by long runs are solved for here, to a duality gap. The set
of what can be had, :math:`\{(a, b) : f_{DPO}(\theta) \le a, f_{SFT}(\theta) \le b\}`, is convex:
the minimisers for all :math:`\lambda` trace its whole border.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.convex.loop import Result, Status, solve
from cvxnn.convex.solvers.accelerated_gradient import AcceleratedGradient
from cvxnn.convex.solvers.trust_region import BallObjective, NewtonState, TrustRegionNewton
from cvxnn.joint.candidates import as_vector
from cvxnn.joint.choice_objective import ChoiceObjective, check_lam, mix_objective

# Beyond this dimension a Hessian costs more than it saves.
_NEWTON_UP_TO = 3000


@dataclass(frozen=True)
class _PathNewton(TrustRegionNewton):
    """Begins with the Hessians of both objectives where the last trade-off needed them.

    Mixed anew they are nearly the right one, and cost nothing.
    """

    parts: tuple[ChoiceObjective, ...] = ()
    lam: float = 0.5
    known: list[NDArray[np.float64]] = field(default_factory=list)

    def curvature(self, problem: BallObjective, state: NewtonState) -> NDArray[np.float64]:
        if state.n_hessians or not self.known:
            self.known[:] = [part.hessian(state.theta) for part in self.parts]
        return self.lam * self.known[0] + (1 - self.lam) * self.known[1]


@dataclass(frozen=True, eq=False)
class JointProblem:
    r"""Preference data and demonstrations for one policy.

    Attributes
    ----------
    dpo, sft : ChoiceObjective
        Over the same features, with the same ridge and the same radius, of which one is needed:
        without both, a minimiser may not exist.
    tol : float, default=1e-8
        Duality gap of every optimum, in units of the objective or 1, whichever is larger.

    Raises
    ------
    ValueError
        If the two objectives do not fit together, or have neither ridge nor ball.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.joint.candidates import CandidateSets
    >>> from cvxnn.joint.choice_objective import dpo_objective, sft_objective
    >>> rng = np.random.default_rng(0)
    >>> answers = CandidateSets.stack(rng.standard_normal((20, 4, 3)))
    >>> problem = JointProblem(
    ...     dpo=dpo_objective(*rng.standard_normal((2, 30, 3)), radius=5.0),
    ...     sft=sft_objective(answers, rng.integers(4, size=20), radius=5.0),
    ... )
    >>> problem.optimum(0.5).gap < 1e-7
    True
    """

    dpo: ChoiceObjective
    sft: ChoiceObjective
    tol: float = 1e-8
    _solved: dict[float, Result] = field(default_factory=dict, init=False, repr=False)
    _hessians: list[NDArray[np.float64]] = field(default_factory=list, init=False, repr=False)
    _mixed: list[ChoiceObjective] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._mixed.append(mix_objective(self.dpo, self.sft, 0.5))  # refuses what does not fit
        if not (self.ridge > 0 or self.radius < np.inf):
            raise ValueError(
                "the objectives have neither ridge nor radius, so that a minimiser may not exist; "
                "give both a ridge above 0, such as 1e-4, or a finite radius."
            )

    @property
    def n_features(self) -> int:
        """Length of ``theta``."""
        return self.dpo.n_features

    @property
    def ridge(self) -> float:
        """Ridge of both objectives, a part of them."""
        return float(self.dpo.ridge)

    @property
    def radius(self) -> float:
        r"""Radius of :math:`\Theta`."""
        return float(self.dpo.radius)

    def values(self, thetas: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both objectives at each of these points.

        Parameters
        ----------
        thetas : array-like, shape (n_points, n_features) or (n_features,)

        Returns
        -------
        dpo, sft : ndarray, shape (n_points,) or ()
        """
        points = np.asarray(thetas, dtype=np.float64)
        flat = np.atleast_2d(points)
        shape = points.shape[:-1]
        return self.dpo.values(flat).reshape(shape), self.sft.values(flat).reshape(shape)

    def mix(self, lam: float) -> ChoiceObjective:
        r""":math:`f_{Mix,\lambda}`, equation (6)."""
        check_lam(lam)
        half = self._mixed[0]  # rows are copied once for all
        weights = np.concatenate([lam * self.dpo.weights, (1 - lam) * self.sft.weights])
        return ChoiceObjective(
            half.rows, half.shifts, half.offsets, weights, half.ridge, half.radius
        )

    def optimum(self, lam: float) -> Result:
        """Minimiser of the mix with its certificate; solved once, from the nearest one known.

        Raises
        ------
        RuntimeError
            If the gap is not reached.
        """
        check_lam(lam)
        if lam not in self._solved:
            self._solved[lam] = self._solve(lam)
        return self._solved[lam]

    def _solve(self, lam: float) -> Result:
        start: NDArray[np.floating] = np.zeros(self.n_features)
        if self._solved:
            start = self._solved[min(self._solved, key=lambda known: abs(known - lam))].weights
        # At the ends one objective has no say: leave out its rows.
        problem = self.sft if lam == 0 else self.dpo if lam == 1 else self.mix(lam)
        if self.n_features <= _NEWTON_UP_TO:
            newton = _PathNewton(
                tol=self.tol, parts=(self.dpo, self.sft), lam=lam, known=self._hessians
            )
            result = solve(problem, newton, start=start)
        else:
            result = solve(
                problem, AcceleratedGradient(tol=self.tol, max_iter=100_000), start=start
            )
        gap = (result.objective - result.dual_bound) / max(abs(result.objective), 1.0)
        # Rounding may stop the solver just before the goal.
        if result.status is not Status.CONVERGED and not gap <= 100 * self.tol:
            raise RuntimeError(
                f"the optimum of lam={lam} was certified to a gap of {gap:.1e} only, not "
                f"{self.tol:.1e} ({result.status.value}); raise ridge, lower radius or raise tol."
            )
        return result

    def gap(self, dpo: ArrayLike, sft: ArrayLike, lam: float) -> NDArray[np.float64]:
        r""":math:`G_{Mix,\lambda}` (equation 6) of points of the objective space.

        The optimum is taken at its certified lower bound: the truth is less by ``tol`` at most.
        ``lam=1`` and ``lam=0`` give the optimality gaps of DPO and SFT.
        """
        mixed = lam * np.asarray(dpo, float) + (1 - lam) * np.asarray(sft, float)
        return mixed - self.optimum(lam).dual_bound

    def ideal(self) -> tuple[float, float]:
        r"""The ideal point :math:`(f^*_{DPO}, f^*_{SFT})`, which no policy need reach."""
        return self.optimum(1).objective, self.optimum(0).objective

    def ideal_distance(self, dpo: ArrayLike, sft: ArrayLike) -> NDArray[np.float64]:
        """Euclidean distance of points of the objective space from the ideal point."""
        best = self.ideal()
        return np.hypot(np.asarray(dpo, float) - best[0], np.asarray(sft, float) - best[1])

    def max_gap(self, dpo: ArrayLike, sft: ArrayLike, lam: float) -> NDArray[np.float64]:
        r""":math:`f_{Max,\lambda}`, equation (13): the larger of the two weighted gaps."""
        best = self.ideal()
        return np.maximum(
            lam * (np.asarray(dpo, float) - best[0]), (1 - lam) * (np.asarray(sft, float) - best[1])
        )


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


class Balanced(NamedTuple):
    """The minimiser of equation (13), and what proves it."""

    theta: NDArray[np.floating]
    objective: float
    bound: float


def balanced_optimum(problem: JointProblem, lam: float, *, tol: float = 1e-6) -> Balanced:
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
    Balanced
    """
    if not 0 < lam < 1:
        raise ValueError(f"lam={lam!r}; expected a number above 0 and below 1.")
    low, high = 0.0, 1.0
    best, bound = Balanced(problem.optimum(0).weights, np.inf, -np.inf), -np.inf
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
            best = Balanced(found.weights, value, bound)
        if best.objective - bound <= tol:
            break
        if lam * (dpo - best_dpo) > (1 - lam) * (sft - best_sft):
            low = w
        else:
            high = w
    return best._replace(bound=bound)


def percentage_increase(value: float, baseline: float) -> float:
    """Increase in per cent, of a runtime or of memory (Appendix B.5)."""
    if not baseline > 0:
        raise ValueError(f"baseline={baseline!r}; expected a number above 0.")
    return 100 * (value - baseline) / baseline


def delta_m(
    scores: Mapping[str, float],
    baseline: Mapping[str, float],
    lower_is_better: frozenset[str] | set[str] = frozenset(),
) -> float:
    r""":math:`\Delta m \%`, equation (52): mean improvement over a baseline in per cent.

    Parameters
    ----------
    scores, baseline : mapping of str to float
        The same metrics of both; those of the baseline not 0.
    lower_is_better : set of str
        Metrics of which less is better.
    """
    if not scores or scores.keys() != baseline.keys() or not lower_is_better <= scores.keys():
        raise ValueError(
            f"scores has {sorted(scores)}, baseline {sorted(baseline)} and lower_is_better "
            f"{sorted(lower_is_better)}; expected the same metrics."
        )
    if any(value == 0 for value in baseline.values()):
        raise ValueError("a metric of the baseline is 0; leave it out: nothing is relative to it.")
    signs = {name: -1.0 if name in lower_is_better else 1.0 for name in scores}
    names = list(scores)
    old = as_vector("baseline", [baseline[name] for name in names], len(names))
    new = as_vector("scores", [scores[name] for name in names], len(names))
    return float(100 * np.mean([signs[name] for name in names] * (new - old) / old))
