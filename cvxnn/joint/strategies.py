"""Strategies of joint post-training: which objective a step descends, and the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from cvxnn.joint.minibatches import MinibatchObjective, Vector

Strategy = Literal["sequential", "mix", "alright", "maxright"]


class PlannedRun(NamedTuple):
    """A run of a comparison of strategies.

    Attributes
    ----------
    label : str
        Name of the strategy, with the period if MAXRIGHT has several.
    strategy : str
        Strategy.
    lam : float
        Trade-off.
    period : int
        Steps between two evaluations of both objectives, which MAXRIGHT alone has.
    """

    label: str
    strategy: str
    lam: float
    period: int


def planned_runs(
    strategies: Sequence[str], trade_offs: Sequence[float], periods: Sequence[int]
) -> list[PlannedRun]:
    """Return the runs of a comparison; MAXRIGHT has those of each period (Algorithm 3's k).

    Parameters
    ----------
    strategies : sequence of str
        Names of strategies.
    trade_offs : sequence of float
        Trade-offs.
    periods : sequence of int
        Periods of MAXRIGHT, at least one.

    Returns
    -------
    list of PlannedRun
        In the order of the strategies, then of the periods, then of the trade-offs.
    """
    return [
        PlannedRun(f"{name}-k{k}" if len(own) > 1 else name, name, lam, k)
        for name in strategies
        for own in [periods if name == "maxright" else periods[:1]]
        for k in own
        for lam in trade_offs
    ]


class Descent:
    """Strategies of joint post-training, each a method that returns the direction of a step.

    Parameters
    ----------
    sources : (MinibatchObjective, MinibatchObjective)
        SFT (0) and DPO (1) on minibatches.
    threshold : float or None
        Value on the batch below which an objective is not descended.
    first : int
        Objective of the first stage of the sequential strategy.
    boundary : int
        Number of steps of the first stage; 0 for the other strategies.
    n_steps : int
        Number of steps in total.
    """

    def __init__(
        self,
        sources: tuple[MinibatchObjective, ...],
        threshold: float | None,
        first: int,
        boundary: int,
        n_steps: int,
    ) -> None:
        self.sources = sources
        self.threshold = -math.inf if threshold is None else threshold
        self.boundary, self.n_second, self.n_steps = boundary, n_steps - boundary, n_steps
        self.stages = (first, 1 - first)
        self.counts = [0, 0]
        self.below = [False, False]
        self.stage = first if boundary else 1 - first
        self.value = math.nan
        self.stale = [math.nan, math.nan]
        self.ended = False

    def direction(
        self,
        strategy: Strategy,
        lam: float,
        *,
        ideal: Callable[[], tuple[float, float]],
        every: int,
        seed: tuple[int, int],
    ) -> Callable[[int, Vector], Any]:
        """Return the method of a strategy as a function of the step and of ``theta``.

        Parameters
        ----------
        strategy : {"sequential", "mix", "alright", "maxright"}
            Its name.
        lam : float
            Weight of DPO.
        ideal : callable
            Gives the optima of DPO and of SFT, each alone.
        every : int
            Steps between two evaluations of both objectives by ``"maxright"``.
        seed : (int, int)
            Seed of the coins of ``"alright"``.
        """
        if strategy == "mix":
            return partial(self.mix, lam)
        if strategy == "alright":
            coins = np.random.default_rng(seed).random(self.n_steps) < lam
            return partial(self.alright, coins.astype(int).tolist())
        if strategy == "maxright":
            return partial(self.maxright, lam, ideal(), every)
        return self.sequential

    def sequential(self, t: int, theta: Vector) -> Any:
        """Follow Algorithm 1; a stage ends at its last step or at the threshold."""
        if t >= self.boundary + self.n_second:
            self.ended = True
            return 0.0
        self.stage = self.stages[t >= self.boundary]
        gradient = self._slope(self.stage, theta)
        if self.below[self.stage]:
            if t >= self.boundary:
                self.ended = True
                return 0.0
            self.boundary = t
            return self.sequential(t, theta)
        return gradient

    def mix(self, lam: float, t: int, theta: Vector) -> Any:
        """Mix both gradients (equation 6)."""
        sft, dpo = self._slope(0, theta), self._slope(1, theta)
        return lam * dpo + (1 - lam) * sft

    def alright(self, coins: list[int], t: int, theta: Vector) -> Any:
        """Follow Algorithm 2 (equation 10): descend the objective that the coin selects."""
        return self._slope(coins[t], theta)

    def maxright(
        self, lam: float, ideal: tuple[float, float], every: int, t: int, theta: Vector
    ) -> Any:
        """Follow Algorithm 2 with equation (14), or Algorithm 3 if ``every`` is above 1.

        Its steps count from 1, ``t`` from 0: both objectives are evaluated at the steps 1, k, 2k...
        """
        best, share = (ideal[1], ideal[0]), (1 - lam, lam)
        found: list[Any] = [None, None]
        if t == 0 or (t + 1) % every == 0:
            found = [source.forward(theta) for source in self.sources]
            self.stale = [share[i] * (found[i][0] - best[i]) for i in (0, 1)]
        which = int(self.stale[1] >= self.stale[0])
        gradient = self._slope(which, theta, found[which])
        self.stale[which] = share[which] * (self.value - best[which])
        return gradient

    def _slope(self, which: int, theta: Vector, found: Any = None) -> Any:
        """Return the gradient of one objective, or 0 below the threshold."""
        source = self.sources[which]
        self.value, odds, rows = found or source.forward(theta)
        if self.value < self.threshold:
            self.below[which] = True
            self.ended = all(self.below)
            return 0.0
        self.below = [False, False]
        self.counts[which] += 1
        return source.backward(odds, rows, theta)


def take_steps(
    descent: Descent,
    direction: Callable[[int, Vector], Any],
    t: int,
    until: int,
    theta: Vector,
    size: float,
    radius: float,
) -> tuple[int, Vector]:
    """Update ``theta`` from step ``t`` to ``until``, or to the end of the run."""
    bounded = radius < np.inf
    while t < until:
        gradient = direction(t, theta)
        if descent.ended:
            break
        theta = theta - size * gradient
        if bounded:
            norm = math.sqrt(theta @ theta)
            if norm > radius:
                theta = theta * (radius / norm)
        t += 1
    return t, theta
