r"""Joint supervised and preference post-training: four strategies in one loop.

=============== =================================================== =================
strategy        objective that a step descends                      paper
=============== =================================================== =================
``sequential``  first one objective, then the other                 Algorithm 1
``mix``         both: the gradient of the mix                       equation 6
``alright``     DPO with probability :math:`\lambda`, otherwise SFT Algorithm 2
``maxright``    the objective with the larger weighted gap          Algorithms 2 and 3
=============== =================================================== =================

Every step is :math:`\theta_{t+1} = \Pi_\Theta(\theta_t - \alpha_t\, g)` with
:math:`\alpha_t = \alpha_0 / \sqrt T` and the gradient :math:`g` on a minibatch, or on all data. A
step computes only the gradients that it needs. Numbers of equations and algorithms are those of
"Understanding Forgetting in LLM Supervised Fine-Tuning and Preference Learning".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._messages import warn
from cvxnn._progress import Progress
from cvxnn.joint.candidates import as_vector
from cvxnn.joint.minibatches import MinibatchObjective, Vector
from cvxnn.joint.policy_objectives import check_lam
from cvxnn.joint.problem import JointProblem
from cvxnn.joint.strategies import Descent, Strategy, take_steps

TrajectoryStatus = Literal["finished", "threshold", "stopped", "diverged"]
TrajectoryCallback = Callable[[int, Vector], bool | None]

# Number of batches from which the size of gradients is estimated.
_PILOT = 20
# Number of points of a run at which the growth of the objective is checked.
_CHECKS = 10


@dataclass(frozen=True, eq=False)
class Trajectory:
    r"""Course of a run.

    Attributes
    ----------
    steps : ndarray of int, shape (n_records,)
        Numbers of updates, from 0; the last entry is the end of the run.
    thetas : ndarray, shape (n_records, n_features)
        Policies after these numbers of updates.
    dpo, sft : ndarray, shape (n_records,)
        The two objectives of the policies, over all data.
    n_dpo, n_sft : int
        Numbers of computed gradients of each objective.
    runtime, cpu_time : float
        Wall-clock time and processor time of the steps, in seconds, without the computation of the
        optima and of the recorded objectives.
    status : {"finished", "threshold", "stopped", "diverged"}
        Reason for which the run ended: all steps were made, both objectives (or the last stage)
        reached the threshold, the callback stopped the run, or the objective grew.
    step_size : float
        Length :math:`\alpha_0 / \sqrt T` of the steps.
    """

    steps: NDArray[np.intp]
    thetas: Vector
    dpo: Vector
    sft: Vector
    n_dpo: int
    n_sft: int
    runtime: float
    cpu_time: float
    status: TrajectoryStatus
    step_size: float

    @property
    def theta(self) -> Vector:
        """Last policy, which is the output of Algorithms 1 to 3, shape (n_features,)."""
        return self.thetas[-1]


def post_train(
    problem: JointProblem,
    strategy: Strategy = "alright",
    lam: float = 0.5,
    *,
    n_steps: int = 10_000,
    step: float | Literal["auto"] = "auto",
    batch_size: int | tuple[int, int] | None = 16,
    max_evaluation_steps: int = 1,
    order: Literal["dpo-sft", "sft-dpo"] = "dpo-sft",
    dpo_share: float | None = None,
    start: ArrayLike | None = None,
    weight_decay: float = 0.0,
    threshold: float | None = None,
    n_records: int = 100,
    seed: int | np.random.Generator | None = 0,
    progress: bool = False,
    callback: TrajectoryCallback | None = None,
) -> Trajectory:
    r"""Train a policy by projected stochastic gradient steps.

    Parameters
    ----------
    problem : JointProblem
        The two objectives.
    strategy : {"sequential", "mix", "alright", "maxright"}, default="alright"
        Choice of the objective that a step descends; the head of this module explains the
        strategies.
    lam : float, default=0.5
        Trade-off :math:`\lambda`, in [0, 1]: 1 is DPO only, 0 is SFT only.
    n_steps : int, default=10_000
        Number :math:`T` of updates, of both stages together for ``"sequential"``.
    step : float or "auto", default="auto"
        Numerator :math:`\alpha_0` of the step length :math:`\alpha_0 / \sqrt T`, above 0.
        ``"auto"`` takes the value that the theory recommends; see Notes.
    batch_size : int, (int, int) or None, default=16
        Number of examples drawn with replacement for each gradient, or those of DPO and of SFT;
        None uses all data, without sampling. Algorithms 1 and 2 as printed use 1.
    max_evaluation_steps : int, default=1
        Interval k, in steps, at which ``"maxright"`` evaluates both objectives: at the first step
        and at the steps k, 2k, 3k... (Algorithm 3). Between evaluations it uses the last known
        value of the objective that it does not descend.
    order : {"dpo-sft", "sft-dpo"}, default="dpo-sft"
        Order of the stages, for ``"sequential"``.
    dpo_share : float, optional
        Fraction of the steps that descend DPO, in [0, 1], for ``"sequential"``; by default ``lam``.
    start : array-like, shape (n_features,), optional
        First policy :math:`\theta_1`; by default zeros.
    weight_decay : float, default=0
        Multiple of ``theta``, at least 0, that is added to every gradient, but not to the
        objectives.
    threshold : float, optional
        An objective whose value on the batch is below the threshold is not descended: its stage
        ends (``"sequential"``), or its update is omitted (the other strategies).
    n_records : int, default=100
        Approximate number of points of the trajectory after the start.
    seed : int, Generator or None, default=0
        Seed of the batches. The same seed gives the same trajectory, and all strategies get the
        same batches of each objective in the same order.
    progress : bool, default=False
        Whether to say on stderr how many steps are done, and how long the rest will take.
    callback : callable, optional
        ``callback(step, theta)`` is called at each record; the run ends if it returns true.

    Returns
    -------
    Trajectory
        Policies and objectives along the run, and the reason for its end.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    RuntimeError
        If an optimum that the strategy or the automatic step needs does not reach its tolerance.

    Warns
    -----
    RuntimeWarning
        If the objective grows because the steps are too long. The run ends, and the message
        recommends a step.

    Notes
    -----
    Equation (46), with its first term corrected to :math:`\|\theta_1 - \theta^*\|^2 / (2 \alpha_0
    \sqrt T)`, is smallest at :math:`\alpha_0 = \|\theta_1 - \theta^*\| / (M \sqrt{2 + \log T})`
    with :math:`M^2` the second moment of the stochastic gradient. ``"auto"`` uses this value, with
    the certified optimum as :math:`\theta^*` and with :math:`M` estimated from gradients at the
    start; or, if that is shorter or nothing is sampled, the longest stable step, the inverse of
    the smoothness.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.joint import CandidateSets, JointProblem, dpo_objective, sft_objective
    >>> rng = np.random.default_rng(0)
    >>> answers = CandidateSets.stack(rng.standard_normal((20, 4, 3)))
    >>> problem = JointProblem(
    ...     dpo=dpo_objective(*rng.standard_normal((2, 30, 3)), beta=1.0, radius=5.0),
    ...     sft=sft_objective(answers, rng.integers(4, size=20), radius=5.0),
    ... )
    >>> run = post_train(problem, "alright", 0.5, n_steps=2000)
    >>> bool(problem.gap(run.dpo[-1], run.sft[-1], 0.5) < 0.01)
    True
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy={strategy!r}; expected one of {get_args(Strategy)}.")
    if order not in ("dpo-sft", "sft-dpo"):
        raise ValueError(f"order={order!r}; expected 'dpo-sft' or 'sft-dpo'.")
    check_lam(lam)
    share = lam if dpo_share is None else dpo_share
    if not 0 <= share <= 1:
        raise ValueError(f"dpo_share={share!r}; expected a number from 0 to 1.")
    sizes = batch_size if isinstance(batch_size, tuple | list) else (batch_size, batch_size)
    if len(sizes) != 2:
        raise ValueError(f"batch_size={batch_size!r}; expected one number, or two.")
    for name, count in (
        ("n_steps", n_steps),
        *(("batch_size", 1 if size is None else size) for size in sizes),
        ("max_evaluation_steps", max_evaluation_steps),
        ("n_records", n_records),
    ):
        if not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name}={count!r}; expected an integer of at least 1.")
    if not 0 <= weight_decay < np.inf:
        raise ValueError(f"weight_decay={weight_decay!r}; expected a number of at least 0.")

    theta = np.zeros(problem.n_features)
    if start is not None:
        theta = problem.dpo.project(as_vector("start", start, problem.n_features))
    entropy = int(np.random.default_rng(seed).integers(2**62))
    sources = tuple(
        MinibatchObjective(objective, sizes[1 - which], weight_decay, (entropy, which))
        for which, objective in enumerate((problem.sft, problem.dpo))
    )
    if step == "auto":
        step = _automatic_step(problem, sources, lam, theta, n_steps)
    if not (isinstance(step, Real) and 0 < step < np.inf):
        raise ValueError(f"step={step!r}; expected a number above 0, or 'auto'.")
    size = float(step) / math.sqrt(n_steps)
    first = order == "dpo-sft"
    boundary = round((share if first else 1 - share) * n_steps) if strategy == "sequential" else 0
    descent = Descent(sources, threshold, int(first), boundary, n_steps)
    direction = descent.direction(
        strategy, lam, ideal=problem.ideal, every=max_evaluation_steps, seed=(entropy, 2)
    )
    watch = _Watch(problem, strategy, lam, size, n_steps)

    every, stops = max(n_steps // n_records, 1), max(n_steps // _CHECKS, 1)
    steps, thetas = [0], [theta]
    t, spent = 0, np.zeros(2)
    status: TrajectoryStatus = "finished"
    watch.grew(descent.stage, theta)
    bar = Progress(strategy, n_steps, "steps", show=progress)
    while t < n_steps and status == "finished":
        until = min(t + every - t % every, n_steps)
        if t < boundary:
            until = min(until, boundary)
        began = _clocks()
        with np.errstate(all="ignore"):  # values that are not finite are reported below
            t, theta = take_steps(descent, direction, t, until, theta, size, problem.radius)
        spent += _clocks() - began
        steps.append(t)
        thetas.append(theta)
        bar.update(t - steps[-2])
        if descent.ended:
            status = "threshold"
        elif not np.isfinite(theta).all():
            status = "diverged"
        elif t in (boundary, n_steps) or t // stops > steps[-2] // stops:
            status = "diverged" if watch.grew(descent.stage, theta) else status
        if status == "finished" and callback is not None and callback(t, theta):
            status = "stopped"
    bar.close()
    if status == "diverged":
        warn(watch.remedy(t), RuntimeWarning)
    points = np.stack(thetas)
    with np.errstate(all="ignore"):
        dpo, sft = problem.values(points)
    n_sft, n_dpo = descent.counts
    return Trajectory(
        np.array(steps),
        points,
        dpo,
        sft,
        n_dpo,
        n_sft,
        float(spent[0]),
        float(spent[1]),
        status,
        size,
    )


def _clocks() -> Vector:
    return np.array([time.perf_counter(), time.process_time()])


class _Watch:
    """Check of a run for an objective that grows because the steps are too long."""

    def __init__(
        self, problem: JointProblem, strategy: Strategy, lam: float, size: float, n_steps: int
    ) -> None:
        self.problem, self.strategy, self.lam = problem, strategy, lam
        self.size, self.n_steps = size, n_steps
        self.first: dict[int, float] = {}
        self.last = math.nan
        self.smoothness: float | None = None

    def grew(self, stage: int, theta: Vector) -> bool:
        """Return True if the descended objective has grown and the steps are too long for it."""
        with np.errstate(all="ignore"):
            dpo, sft = (float(value) for value in self.problem.values(theta))
        if self.strategy == "sequential":
            self.last = dpo if stage else sft
        elif self.strategy == "maxright":
            self.last = float(self.problem.max_gap(dpo, sft, self.lam))
        else:
            self.last, stage = self.lam * dpo + (1 - self.lam) * sft, 0
        first = self.first.setdefault(stage, self.last)
        grew = not self.last <= 1.1 * abs(first)
        return grew and self.size * self._smoothness() > 2

    def remedy(self, t: int) -> str:
        """Return a message that says what happened and recommends a step."""
        good = math.sqrt(self.n_steps) / self._smoothness()
        return (
            f"the objective grew to {self.last:.3g} by step {t}: steps of {self.size:.3g} are too "
            f"long; use step={good:.2g} or less"
        )

    def _smoothness(self) -> float:
        if self.smoothness is None:
            parts = (self.problem.dpo, self.problem.sft)
            self.smoothness = max(float(part.smoothness()) for part in parts)
        return self.smoothness


def _automatic_step(
    problem: JointProblem,
    sources: tuple[MinibatchObjective, ...],
    lam: float,
    theta: Vector,
    n_steps: int,
) -> float:
    """Return the minimiser of the bound (46), or the longest stable step if that is shorter."""
    smoothness = max(float(part.smoothness()) for part in (problem.dpo, problem.sft))
    longest = math.sqrt(n_steps) / smoothness
    if sources[0].batch_size is None and sources[1].batch_size is None:
        return longest
    distance = float(np.linalg.norm(theta - problem.optimum(lam).weights))
    moment = 0.0
    for source, share in zip(sources, (1 - lam, lam), strict=True):
        for _ in range(_PILOT):
            _, odds, rows = source.forward(theta)
            moment += share * float(np.sum((odds @ rows) ** 2)) / _PILOT
        source.taken = 0
    if not (distance > 0 and moment > 0):
        return longest
    return min(distance / math.sqrt(moment * (2 + math.log(n_steps))), longest)
