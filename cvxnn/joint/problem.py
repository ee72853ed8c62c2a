r"""Certified optima of two objectives, the best that joint post-training can reach.

For a softmax policy on frozen features both objectives are convex, and so is every mix of them,

.. math::

    f_{Mix,\lambda} = \lambda f_{DPO} + (1 - \lambda) f_{SFT}, \qquad
    G_{Mix,\lambda}(\theta) = f_{Mix,\lambda}(\theta) - \min_\Theta f_{Mix,\lambda}

(equation 6 of "Understanding Forgetting in LLM Supervised Fine-Tuning and Preference Learning").
The papers estimate the optima by long runs; here they are computed, to a duality gap. The set of
attainable values, :math:`\{(a, b) : f_{DPO}(\theta) \le a, f_{SFT}(\theta) \le b\}`, is convex, so
the minimisers for all :math:`\lambda` trace its whole border.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.convex.loop import solve
from cvxnn.convex.objectives import BallObjective
from cvxnn.convex.solver import Result, Status
from cvxnn.convex.solvers.accelerated_gradient import AcceleratedGradient
from cvxnn.convex.solvers.trust_region import NewtonState, TrustRegionNewton
from cvxnn.joint.choice_objective import ChoiceObjective
from cvxnn.joint.policy_objectives import check_lam, mix_objective

# In higher dimensions, a Hessian costs more time than it saves.
_NEWTON_UP_TO = 3000


@dataclass(frozen=True)
class _PathNewton(TrustRegionNewton):
    """Newton's method that begins with the Hessians of both objectives at the last trade-off.

    Their mix is close to the right Hessian, and needs no computation.
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
    r"""Two objectives of one policy: DPO on preferences, SFT on demonstrations.

    Attributes
    ----------
    dpo, sft : ChoiceObjective
        The objectives, with equal features, ridge and radius. A ridge above 0 or a finite radius is
        needed, because otherwise a minimiser may not exist.
    tol : float, default=1e-8
        Duality gap of every optimum, relative to the objective or to 1, whichever is larger.

    Raises
    ------
    ValueError
        If the objectives differ in features, ridge or radius, or have neither ridge nor radius.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.joint import CandidateSets, JointProblem, dpo_objective, sft_objective
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
        # This raises an error if the objectives do not fit together.
        self._mixed.append(mix_objective(self.dpo, self.sft, 0.5))
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
        """Ridge, which is a part of both objectives."""
        return float(self.dpo.ridge)

    @property
    def radius(self) -> float:
        r"""Radius of the ball :math:`\Theta` of policies."""
        return float(self.dpo.radius)

    def values(self, thetas: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return both objectives at each of several points.

        Parameters
        ----------
        thetas : array-like, shape (n_points, n_features) or (n_features,)
            One policy or several.

        Returns
        -------
        dpo, sft : ndarray, shape (n_points,) or ()
            Values of the two objectives.
        """
        points = np.asarray(thetas, dtype=np.float64)
        flat = np.atleast_2d(points)
        shape = points.shape[:-1]
        return self.dpo.values(flat).reshape(shape), self.sft.values(flat).reshape(shape)

    def mix(self, lam: float) -> ChoiceObjective:
        r"""Return the mix :math:`f_{Mix,\lambda}` (equation 6).

        Parameters
        ----------
        lam : float
            Trade-off :math:`\lambda`, in [0, 1].

        Returns
        -------
        ChoiceObjective
            The mix, whose rows are shared by all trade-offs.

        Raises
        ------
        ValueError
            If ``lam`` is out of range.
        """
        check_lam(lam)
        half = self._mixed[0]  # its rows are shared by all trade-offs
        weights = np.concatenate([lam * self.dpo.weights, (1 - lam) * self.sft.weights])
        return ChoiceObjective(
            half.rows, half.shifts, half.offsets, weights, half.ridge, half.radius
        )

    def optimum(self, lam: float) -> Result:
        """Return the minimiser of the mix with its certificate.

        Each trade-off is solved once, from the solution for the nearest trade-off.

        Parameters
        ----------
        lam : float
            Trade-off, in [0, 1]: 1 is DPO only, 0 is SFT only.

        Returns
        -------
        Result
            Weights, objective, lower bound and history of the solver.

        Raises
        ------
        ValueError
            If ``lam`` is out of range.
        RuntimeError
            If the gap stays above 100 times the tolerance, which rounding errors may leave up to
            there; raise ``ridge``, lower ``radius``, or raise ``tol``.
        """
        check_lam(lam)
        if lam not in self._solved:
            self._solved[lam] = self._solve(lam)
        return self._solved[lam]

    def _solve(self, lam: float) -> Result:
        start: NDArray[np.floating] = np.zeros(self.n_features)
        if self._solved:
            start = self._solved[min(self._solved, key=lambda known: abs(known - lam))].weights
        # At the ends, one objective has the weight 0, so its rows are left out.
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
        # Rounding errors may stop the solver shortly before the tolerance is reached.
        if result.status is not Status.CONVERGED and not gap <= 100 * self.tol:
            raise RuntimeError(
                f"the optimum of lam={lam} was certified to a gap of {gap:.1e} only, not "
                f"{self.tol:.1e} ({result.status.value}); raise ridge, lower radius or raise tol."
            )
        return result

    def gap(self, dpo: ArrayLike, sft: ArrayLike, lam: float) -> NDArray[np.float64]:
        r"""Return :math:`G_{Mix,\lambda}` (equation 6) of points of the objective space.

        The optimum is replaced by its certified lower bound, so the gap is too large by at most the
        tolerance.

        Parameters
        ----------
        dpo, sft : array-like of one shape
            Values of the two objectives.
        lam : float
            Trade-off, in [0, 1]; 1 and 0 give the optimality gaps of DPO and SFT.

        Returns
        -------
        ndarray of the same shape
            The gaps.
        """
        mixed = lam * np.asarray(dpo, float) + (1 - lam) * np.asarray(sft, float)
        return mixed - self.optimum(lam).dual_bound

    def ideal(self) -> tuple[float, float]:
        r"""Return the ideal point :math:`(f^*_{DPO}, f^*_{SFT})`, which may be unattainable."""
        return self.optimum(1).objective, self.optimum(0).objective

    def ideal_distance(self, dpo: ArrayLike, sft: ArrayLike) -> NDArray[np.float64]:
        """Return the Euclidean distances of points of the objective space from the ideal point.

        Parameters
        ----------
        dpo, sft : array-like of one shape
            Values of the two objectives.

        Returns
        -------
        ndarray of the same shape
            The distances.
        """
        best = self.ideal()
        return np.hypot(np.asarray(dpo, float) - best[0], np.asarray(sft, float) - best[1])

    def max_gap(self, dpo: ArrayLike, sft: ArrayLike, lam: float) -> NDArray[np.float64]:
        r"""Return :math:`f_{Max,\lambda}` (equation 13), the larger one of the two weighted gaps.

        Parameters
        ----------
        dpo, sft : array-like of one shape
            Values of the two objectives.
        lam : float
            Trade-off, in [0, 1].

        Returns
        -------
        ndarray of the same shape
            The larger gaps.
        """
        best = self.ideal()
        return np.maximum(
            lam * (np.asarray(dpo, float) - best[0]), (1 - lam) * (np.asarray(sft, float) - best[1])
        )
