"""Display of what changes with the strength of the penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from cvxnn.plotting._arguments import NamesConstructors, axes_or_new, check_choice

if TYPE_CHECKING:
    from cvxnn.convex.path import RegularizationPath

# Neurons below this fraction of the largest norm are zero but for the tolerance of the solver.
_ACTIVE = 1e-3


class RegularizationPathDisplay(metaclass=NamesConstructors):
    """Display of neurons and objective along a path of strengths, or of validation scores.

    The strength falls from left to right on a logarithmic axis, so that the network grows to the
    right. A strength of zero is left out.

    Parameters
    ----------
    strengths : array-like, shape (n_strengths,)
        Absolute strengths (``alpha`` of a program) or fractions of ``alpha_max_``, at least one of
        them above 0.
    norms : array-like, shape (n_strengths, n_neurons), optional
        Norms of the weight blocks of all neurons.
    objective : array-like, shape (n_strengths,), optional
        Objective of each solution.
    dual_bound : array-like, shape (n_strengths,), optional
        Certified lower bound of each objective.
    scores : array-like, shape (n_folds, n_strengths), optional
        Scores of held-out folds, of which larger ones are better.
    chosen : float, optional
        Strength to mark.
    label : str, default="strength"
        Label of the horizontal axis.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last drawing. Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Figure of these axes. Set by ``plot``.
    """

    def __init__(
        self,
        strengths: ArrayLike,
        *,
        norms: ArrayLike | None = None,
        objective: ArrayLike | None = None,
        dual_bound: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        chosen: float | None = None,
        label: str = "strength",
    ) -> None:
        self.strengths = np.asarray(strengths, float)
        if self.strengths.ndim != 1 or not np.any(self.strengths > 0):
            raise ValueError(
                f"strengths has shape {self.strengths.shape}; expected (n_strengths,) with at "
                "least one above 0."
            )
        n = len(self.strengths)
        self.norms = _column(norms, "norms", (n, None))
        self.objective = _column(objective, "objective", (n,))
        self.dual_bound = _column(dual_bound, "dual_bound", (n,))
        self.scores = _column(scores, "scores", (None, n))
        self.chosen, self.label = chosen, label

    @classmethod
    def from_path(
        cls,
        path: RegularizationPath,
        *,
        kind: Literal["norms", "active", "objective"] = "norms",
        ax: Axes | None = None,
    ) -> RegularizationPathDisplay:
        """Draw a path of solutions.

        Parameters
        ----------
        path : cvxnn.convex.RegularizationPath
            Solutions to draw.
        kind : {"norms", "active", "objective"}, default="norms"
            ``"norms"``: the norm of each neuron that is active anywhere, which means longer than
            a thousandth of the longest on the path. ``"active"``: the number of active neurons.
            ``"objective"``: the objective and the certified lower bound.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        RegularizationPathDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        weights = np.array([result.weights.blocks for result in path.results])
        return cls(
            path.alphas,
            norms=np.linalg.norm(weights, axis=-1).reshape(len(weights), -1),
            objective=[result.objective for result in path.results],
            dual_bound=[result.dual_bound for result in path.results],
            label="alpha",
        ).plot(kind=kind, ax=ax)

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None) -> RegularizationPathDisplay:
        """Draw the scores by which a cross-validated estimator chose its strength.

        Parameters
        ----------
        estimator : fitted estimator
            With ``strengths_`` (n_strengths,), ``cv_scores_`` (n_folds, n_strengths), and the
            chosen strength, ``best_strength_`` or ``strength_``.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        RegularizationPathDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        if not hasattr(estimator, "strengths_") or not hasattr(estimator, "cv_scores_"):
            check_is_fitted(estimator)
            raise TypeError(
                f"{type(estimator).__name__} has no strengths_ and cv_scores_; expected an "
                "estimator that chooses its strength by cross-validation."
            )
        chosen = float(getattr(estimator, "best_strength_", estimator.strength_))
        display = cls(estimator.strengths_, scores=estimator.cv_scores_, chosen=chosen)
        return display.plot(kind="score", ax=ax)

    def plot(
        self,
        *,
        kind: Literal["norms", "active", "objective", "score"] | None = None,
        ax: Axes | None = None,
    ) -> RegularizationPathDisplay:
        """Draw the path or the scores.

        Parameters
        ----------
        kind : {"norms", "active", "objective", "score"}, optional
            As in the class methods; ``"score"``: the mean over folds with a band of its standard
            error. By default the first kind for which there are data.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        RegularizationPathDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        data = {
            "norms": self.norms,
            "active": self.norms,
            "objective": self.objective,
            "score": self.scores,
        }
        there = tuple(name for name, values in data.items() if values is not None)
        if not there:
            raise ValueError("there is nothing to draw; give norms, objective or scores.")
        kind = kind or there[0]  # type: ignore[assignment]
        check_choice("kind", str(kind), there)
        ax = axes_or_new(ax)
        order = np.argsort(-self.strengths)
        order = order[self.strengths[order] > 0]
        getattr(self, f"_plot_{kind}")(ax, self.strengths[order], order)
        if self.chosen:
            ax.axvline(self.chosen, color="0.3", linestyle="--", label=f"chosen: {self.chosen:.2g}")
        ax.set_xscale("log")
        ax.set_xlabel(self.label)
        if not ax.xaxis_inverted():
            ax.invert_xaxis()
        if ax.get_legend_handles_labels()[1]:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _active(self) -> np.ndarray:
        assert self.norms is not None
        return self.norms > _ACTIVE * self.norms.max(initial=0)

    def _plot_norms(self, ax: Axes, strengths: np.ndarray, order: np.ndarray) -> None:
        assert self.norms is not None
        active = self._active()[order]
        ever = active.any(axis=0)
        # Neurons that enter the path early are dark, later ones light.
        entry = np.argsort(active[:, ever].argmax(axis=0), kind="stable")
        norms = self.norms[np.ix_(order, np.flatnonzero(ever)[entry])]
        colors = colormaps["viridis"](np.linspace(0, 0.9, len(entry)))
        for line, color in zip(ax.plot(strengths, norms, linewidth=1.2), colors, strict=True):
            line.set_color(color)
        ax.set_ylabel("norms of the neurons")

    def _plot_active(self, ax: Axes, strengths: np.ndarray, order: np.ndarray) -> None:
        ax.plot(strengths, self._active()[order].sum(axis=1), "o-", color="C2", markersize=4)
        ax.set_ylim(0, None)
        ax.set_ylabel("active neurons")

    def _plot_objective(self, ax: Axes, strengths: np.ndarray, order: np.ndarray) -> None:
        assert self.objective is not None
        ax.plot(strengths, self.objective[order], "o-", color="C0", markersize=4, label="objective")
        if self.dual_bound is not None:
            ax.plot(
                strengths, self.dual_bound[order], "--", color="C1", label="certified lower bound"
            )
        ax.set_ylabel("objective")

    def _plot_score(self, ax: Axes, strengths: np.ndarray, order: np.ndarray) -> None:
        assert self.scores is not None
        scores = self.scores[:, order]
        mean = scores.mean(axis=0)
        folds = f"{len(scores)} fold{'s' * (len(scores) > 1)}"
        ax.plot(strengths, mean, "o-", color="C0", markersize=4, label=f"mean of {folds}")
        if len(scores) > 1:
            error = scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
            ax.fill_between(
                strengths,
                mean - error,
                mean + error,
                color="C0",
                alpha=0.2,
                linewidth=0,
                label="± standard error",
            )
        ax.set_ylabel("score of held-out folds")


def _column(values: ArrayLike | None, name: str, shape: tuple[int | None, ...]) -> Any:
    if values is None:
        return None
    array = np.asarray(values, float)
    fits = array.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(array.shape, shape, strict=False)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} has shape {array.shape}; expected ({wanted}).")
    return array
