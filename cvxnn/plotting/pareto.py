"""Displays of trade-offs between two objectives: the exact front, and the path of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from cvxnn.plotting._arguments import NamesConstructors, axes_or_new, check_choice

if TYPE_CHECKING:  # they import JAX, and a display needs none
    from cvxnn.joint.post_training import Trajectory
    from cvxnn.joint.problem import JointProblem
    from cvxnn.joint.trade_offs import ParetoFront


class ParetoFrontDisplay(metaclass=NamesConstructors):
    """Display of the certified front of two objectives, and of other policies beside it.

    Parameters
    ----------
    front : ParetoFront
        Front to draw, as ``cvxnn.joint.pareto_front`` returns it.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last drawing. Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Figure of these axes. Set by ``plot``.
    """

    def __init__(self, front: ParetoFront) -> None:
        self.front = front

    @classmethod
    def from_front(
        cls,
        front: ParetoFront,
        *,
        points: dict[str, tuple[ArrayLike, ArrayLike]] | None = None,
        ax: Axes | None = None,
    ) -> ParetoFrontDisplay:
        """Draw a front.

        Parameters
        ----------
        front : ParetoFront
            Front to draw.
        points : dict of str to (dpo, sft), optional
            Objectives of further policies, by their entry in the legend.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        ParetoFrontDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        return cls(front).plot(points=points, ax=ax)

    def plot(
        self,
        *,
        points: dict[str, tuple[ArrayLike, ArrayLike]] | None = None,
        ax: Axes | None = None,
    ) -> ParetoFrontDisplay:
        """Draw the front.

        Parameters
        ----------
        points : dict of str to (dpo, sft), optional
            Objectives of further policies, by their entry in the legend.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        ParetoFrontDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        ax, front = axes_or_new(ax), self.front
        ax.plot(front.dpo, front.sft, ".-", color="0.2", zorder=2, label="exact front")
        ax.plot(*front.ideal, "*", color="0.2", markersize=10, label="ideal point")
        for label, (dpo, sft) in (points or {}).items():
            ax.plot(np.atleast_1d(dpo), np.atleast_1d(sft), "o", alpha=0.8, zorder=3, label=label)
        ax.set_xlabel("DPO objective")
        ax.set_ylabel("SFT objective")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


class ObjectiveTrajectoryDisplay(metaclass=NamesConstructors):
    """Display of the path of a run through the space of its objectives or of its parameters.

    Parameters
    ----------
    trajectory : Trajectory
        Run to draw.
    problem : JointProblem, optional
        Problem of the run, to draw its ideal point in the space of objectives, and the level lines
        of both objectives in the space of parameters (within the limits of the axes, if set).

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last drawing. Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Figure of these axes. Set by ``plot``.
    """

    def __init__(self, trajectory: Trajectory, problem: JointProblem | None = None) -> None:
        self.trajectory, self.problem = trajectory, problem

    @classmethod
    def from_trajectory(
        cls,
        trajectory: Trajectory,
        problem: JointProblem | None = None,
        *,
        space: Literal["objective", "parameter"] = "objective",
        label: str | None = None,
        ax: Axes | None = None,
    ) -> ObjectiveTrajectoryDisplay:
        """Draw a run.

        Parameters
        ----------
        trajectory : Trajectory
            Run to draw.
        problem : JointProblem, optional
            Problem of the run, to draw its ideal point or its level lines.
        space : {"objective", "parameter"}, default="objective"
            ``"objective"``: both objectives. ``"parameter"``: both parameters of a policy with two
            features.
        label : str, optional
            Entry in the legend.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        ObjectiveTrajectoryDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        return cls(trajectory, problem).plot(space=space, label=label, ax=ax)

    def plot(
        self,
        *,
        space: Literal["objective", "parameter"] = "objective",
        label: str | None = None,
        ax: Axes | None = None,
    ) -> ObjectiveTrajectoryDisplay:
        """Draw the run.

        Parameters
        ----------
        space : {"objective", "parameter"}, default="objective"
            ``"objective"``: both objectives. ``"parameter"``: both parameters of a policy with two
            features.
        label : str, optional
            Entry in the legend.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        ObjectiveTrajectoryDisplay
            The display, with ``ax_`` and ``figure_``.

        Raises
        ------
        ValueError
            If ``space="parameter"`` and the policy does not have two parameters.
        """
        check_choice("space", space, ("objective", "parameter"))
        run = self.trajectory
        if space == "parameter" and run.thetas.shape[1] != 2:
            raise ValueError(
                f"the policy has {run.thetas.shape[1]} parameters; expected 2 for "
                "space='parameter'. Use space='objective'."
            )
        ax = axes_or_new(ax)
        x, y = (run.dpo, run.sft) if space == "objective" else run.thetas.T
        (line,) = ax.plot(x, y, "-", linewidth=1.5, zorder=3, label=label)
        color = line.get_color()
        ax.plot(x[0], y[0], "o", color=color, markerfacecolor="white", zorder=4)
        ax.plot(x[-1], y[-1], "o", color=color, zorder=4)
        if self.problem is not None:
            if space == "objective":
                ax.plot(*self.problem.ideal(), "*", color="0.2", markersize=10, zorder=4)
            else:
                _levels(ax, self.problem)
        names = (
            ("DPO objective", "SFT objective")
            if space == "objective"
            else (r"$\theta_1$", r"$\theta_2$")
        )
        ax.set_xlabel(names[0])
        ax.set_ylabel(names[1])
        if label is not None:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _levels(ax: Axes, problem: JointProblem) -> None:
    """Draw level lines of both objectives around a run: solid for DPO, dashed for SFT."""
    sides = np.array([ax.get_xlim(), ax.get_ylim()])
    if ax.get_autoscalex_on():
        sides += 0.3 * np.ptp(sides, axis=1).max() * np.array([-1, 1])
    first, second = (np.linspace(low, high, 80) for low, high in sides)
    grid = np.stack(np.meshgrid(first, second), axis=-1)
    dpo, sft = problem.values(grid.reshape(-1, 2))
    for values, color, style in ((dpo, "C0", "solid"), (sft, "C3", "dashed")):
        levels = np.geomspace(max(values.min(), 1e-3 * values.max()), values.max(), 9)[1:-1]
        ax.contour(
            first,
            second,
            values.reshape(80, 80),
            levels=np.unique(levels),
            colors=color,
            linestyles=style,
            linewidths=0.7,
            alpha=0.5,
        )
