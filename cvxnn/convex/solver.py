"""Interface of solvers: ``Solver``, ``Start``, ``Measurement``, ``Result`` and ``Status``."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cvxnn.numerics.arrays import Array

if TYPE_CHECKING:  # it imports JAX, which predictions do without
    from jax.sharding import Mesh

    from cvxnn.convex.dual_point import DualPoint


Problem = TypeVar("Problem")
State = TypeVar("State")


class Status(enum.Enum):
    """Reason why a solver stopped; ``remedy`` says what to do about it."""

    CONVERGED = "converged"
    MAX_ITER = "max_iter"
    TIME_LIMIT = "time_limit"
    STALLED = "stalled"
    STOPPED = "stopped"
    NON_FINITE = "non_finite"

    @property
    def remedy(self) -> str:
        """One sentence of advice; empty if the solver converged."""
        return _REMEDIES[self]


_REMEDIES = {
    Status.CONVERGED: "",
    Status.MAX_ITER: "Increase max_iter, raise tol, or strengthen the penalty.",
    Status.TIME_LIMIT: "Raise the time limit, or raise tol.",
    Status.STALLED: "Rounding stops progress: raise tol, standardise X, or use float64.",
    Status.STOPPED: "A callback asked for it.",
    Status.NON_FINITE: "The data hold NaN, or a value overflowed: standardise X, use float64, or "
    "strengthen the penalty.",
}


class Start(NamedTuple):
    """Point at which a solver starts.

    Attributes
    ----------
    weights : Array
        The point: all weights of a program stacked in one array (see ``GatedOperator``), or the
        vector of a smooth objective.
    dual : DualPoint or None
        Residual and multipliers of a similar program's result, stacked too; None if unknown.
    rho : Array, shape (2,), or None
        Penalty parameters with which an ADMM solver ended; None if unknown.
    """

    weights: Any
    dual: DualPoint | None = None
    rho: Any = None


class Measurement(NamedTuple):
    """Report of a solver on its state; all entries are scalars.

    Attributes
    ----------
    objective : Array
        Objective of the point that would be returned now.
    dual_bound : Array
        Largest lower bound on the optimum so far; minus infinity if there is none.
    stopping : Array
        The number that is compared with ``tol``; not finite if the iteration broke down.
    refresh : Array or bool, default=False
        Whether parameters changed such that ``Solver.refresh`` has to run.
    details : dict of Array, default={}
        Further columns of the history, the same names at each measurement.
    stalled : Array or bool, default=False
        Whether further iterations would gain nothing.
    """

    objective: Array
    dual_bound: Array
    stopping: Array
    refresh: Array | bool = False
    details: dict[str, Array] = {}  # noqa: RUF012
    stalled: Array | bool = False


class Solver(ABC, Generic[Problem, State]):
    """Base of all solvers: a frozen bundle of options, whose work is done by pure functions.

    Derive a frozen dataclass with the fields ``tol``, ``max_iter`` and ``check_every`` and any
    options of your own, and write :meth:`init`, :meth:`step`, :meth:`measure` and :meth:`weights`;
    the other methods have defaults. ``solve(problem, solver)`` then does the rest: it checks the
    options, prepares the problem, counts iterations, keeps the history, and stops.

    A solver with ``on_host = False`` is compiled by JAX: decorate it with
    :func:`register_pytree`, write its methods with ``jax.numpy``, and let states be
    pytrees (NamedTuples of arrays, for example). Fields that are strings or choose between
    branches of Python need ``field(metadata={"static": True})``. One with ``on_host = True`` is
    called as plain Python with NumPy arrays in float64.

    A ``ConvexProgram`` arrives prepared, with all weights stacked in one array of shape
    ``program.stacked_shape`` (see ``GatedOperator``), and, unless ``on_host``, with a few rows and
    patterns more, which change nothing.

    Attributes
    ----------
    tol : float
        Target of ``Measurement.stopping``.
    max_iter : int
        Most iterations, at least 1.
    check_every : int
        Iterations between two measurements, at least 1.
    on_host : bool, default=False
        Whether it works on NumPy arrays in float64 instead of compiled JAX; set on the class.
    takes_sparse : bool, default=False
        Whether the ``X`` of a ``ConvexProgram`` may be sparse, for solvers ``on_host``; set on the
        class. ``solve`` refuses it otherwise.
    takes_pairs : bool, default=False
        Whether the operator may be a ``PairedOperator``, likewise.

    Notes
    -----
    The methods take

    problem : ConvexProgram or an objective
        As ``solve`` prepares it.
    state : State
        What an iteration carries.
    result : Result
        What ``solve`` returned.
    """

    on_host: ClassVar[bool] = False
    takes_sparse: ClassVar[bool] = False
    takes_pairs: ClassVar[bool] = False

    tol: float
    max_iter: int
    check_every: int

    def across_devices(self) -> Solver[Any, Any]:
        """Return the solver for rows that several devices share; ``solve`` calls this first.

        Returns
        -------
        Solver
            By default the solver itself, if it is compiled.

        Raises
        ------
        TypeError
            If the method is not for several devices.
        ValueError
            If an option is for one device only.
        """
        if self.on_host:
            raise TypeError(
                f"mesh is for solvers that are compiled, or become so: Cronos, ProximalGradient, "
                f"Ridge, AcceleratedGradient; got {type(self).__name__}."
            )
        return self

    def gains_from_devices(self, problem: Any, /) -> bool:
        """Return whether devices of ``on_mesh`` are to share rows, where ``mesh=`` names none.

        Parameters
        ----------
        problem : ConvexProgram or an objective
            What ``solve`` was called with.

        Returns
        -------
        bool
            By default, whether the solver is compiled.
        """
        return not self.on_host

    def streams_rows(self, problem: Any, /) -> bool:
        """Return whether the rows of a program may stay on the disk where devices share them.

        Parameters
        ----------
        problem : ConvexProgram
            What ``solve`` was called with.

        Returns
        -------
        bool
            Whether the solver multiplies the rows by matrices and does nothing else with them; by
            default False, and they are read into memory.
        """
        return False

    def accelerator(self, problem: Any, /) -> Mesh | None:
        """Return the accelerator on which a solver ``on_host`` had better share rows, if any.

        Compiled solvers run on JAX's default device as they are.

        Parameters
        ----------
        problem : ConvexProgram or an objective
            What ``solve`` was called with.

        Returns
        -------
        jax.sharding.Mesh or None
            By default None.
        """
        return None

    def accept(self, problem: Any, /) -> Self:
        """Return the solver with all options resolved for a problem.

        Parameters
        ----------
        problem : ConvexProgram or an objective
            What ``solve`` was called with.

        Returns
        -------
        Solver
            By default the solver itself.

        Raises
        ------
        TypeError
            If the method cannot solve the problem; the message names solvers that can.
        ValueError
            If an option is out of range.
        """
        return self

    @abstractmethod
    def init(self, problem: Problem, start: Start | None, /) -> State:
        """Return the first state, which :meth:`refresh` completes.

        Parameters
        ----------
        problem : ConvexProgram or an objective
            As prepared by ``solve``.
        start : Start or None
            Where to start; None to let the solver choose.

        Returns
        -------
        State
            What an iteration carries.
        """

    def refresh(self, problem: Problem, state: State, /) -> State:
        """Return the state with what outlasts many iterations: factorisations and step sizes.

        It runs before the first step and after each measurement that asks for it, and is not
        compiled as a whole. By default nothing changes.
        """
        return state

    @abstractmethod
    def step(self, problem: Problem, state: State, /) -> State:
        """Return the state after one iteration."""

    @abstractmethod
    def measure(self, problem: Problem, state: State, /) -> tuple[State, Measurement]:
        """Return the state, perhaps with the best point or new parameters, and its measurement."""

    def conclude(self, problem: Problem, state: State, /) -> tuple[State, Measurement] | None:
        """Measure the last state again, where :meth:`measure` is coarse before convergence.

        ``solve`` calls it, not compiled, where it stops short of the tolerance with finite values,
        and reports what it returns.

        Returns
        -------
        tuple or None
            As of :meth:`measure`; None, the default, if the last measurement stands.
        """
        return None

    @abstractmethod
    def weights(self, state: State, /) -> Array:
        """Return the point to report: stacked weights, or the vector of an objective."""

    def dual_point(self, state: State, /) -> DualPoint | None:
        """Return what proves the bound reported for a ``ConvexProgram``; by default None."""
        return None

    def flops(self, problem: Problem, result: Result, /) -> float | None:
        """Return the floating-point operations of a solve; None, the default, if unknown."""
        return None


class Result(NamedTuple):
    """Result of ``solve``, on the host.

    Attributes
    ----------
    weights : Weights, or ndarray
        The best point seen: :class:`Weights` of a ``ConvexProgram``, in float64 where the solver
        works ``on_host``, or the vector of an objective.
    objective : float
        Objective of exactly these weights.
    dual_bound : float
        No point of the program has a lower objective (``-inf`` if no bound is known).
    gap : float
        Relative duality gap ``(objective - dual_bound) / |objective|``. A negative gap is good
        news: the recovered network lies outside the sampled patterns and beats every one inside.
        One that is mere rounding (:meth:`ConvexProgram.rounding`) is reported as 0.
    status : Status
        Why the solver stopped.
    n_iter : int
        Iterations run.
    history : dict of ndarray
        One entry per measurement: ``iteration``, ``time`` (seconds), ``objective``,
        ``dual_bound``, ``stopping`` and columns of the solver's own.
    dual : DualPoint or None
        What proves ``dual_bound``: ``program.bound_of(result.dual)`` recomputes it.
    """

    weights: Any
    objective: float
    dual_bound: float
    gap: float
    status: Status
    n_iter: int
    history: dict[str, NDArray[np.floating]]
    dual: DualPoint | None = None


Callback = Callable[[dict[str, float], Callable[[], Any]], bool | None]
"""Function of the newest row of the history and of a function that returns the weights."""


def relative_gap(objective: float, bound: float, rounding: float = 0.0) -> float:
    """Return the duality gap in units of the objective; infinite if there is no bound.

    Parameters
    ----------
    objective, bound : float
        Objective of a point, and lower bound on the optimum.
    rounding : float, default=0.0
        Error of both: the unit of the gap where the objective is smaller, as that of a perfect
        fit. Where the bound lies above the objective by no more, the gap is 0.

    Returns
    -------
    float
        ``(objective - bound) / max(|objective|, rounding)``.
    """
    if not np.isfinite(objective - bound):
        return float("inf")
    if 0 < bound - objective <= rounding:
        return 0.0
    return (objective - bound) / max(abs(objective), rounding, np.finfo(np.float64).tiny)
