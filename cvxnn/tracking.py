"""Training logs of other tools: rows of a history, sent to trackio or to Weights & Biases.

Both have one interface: ``init`` gives a run with ``log`` and ``finish``. trackio keeps its runs in
a folder of this machine, ``TRACKIO_DIR``; ``trackio show`` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from cvxnn._extras import require

Tracker = Literal["trackio", "wandb"]

_NAMES = {"time": "seconds", "step": "at_step"}
# What a fit has proved, and what it took.
_PROVEN = ("objective", "dual_bound", "gap", "n_iter", "flops", "strength")


class RunLog:
    """A run of trackio or of Weights & Biases, which takes the rows of a history one by one.

    Pass it as ``callback`` of ``cvxnn.convex.solve``, or as ``progress`` of
    ``cvxnn.llm.fine_tune``; :func:`log_fit` sends the history of a fitted estimator. Use it as a
    context, which finishes the run.

    Parameters
    ----------
    project : str
        Name of the project.
    tracker : {"trackio", "wandb"}, default="trackio"
        The tool: an extra of that name installs it.
    config : mapping, optional
        What describes the run; values other than numbers, texts and None are kept as texts.
    **options : object
        Further arguments of the tool's ``init``, such as ``name="first"`` or, of Weights & Biases,
        ``mode="offline"``.

    Raises
    ------
    ImportError
        If the tool is missing; the message names the extra.
    ValueError
        If `tracker` is no such tool.

    Examples
    --------
    >>> from cvxnn.convex import Cronos, solve
    >>> from cvxnn.tracking import RunLog
    >>> with RunLog("relu", config={"alpha": 1e-3}) as log:                     # doctest: +SKIP
    ...     result = solve(program, Cronos(), callback=log)
    """

    def __init__(
        self,
        project: str,
        *,
        tracker: Tracker = "trackio",
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        plain = {name: _plain(value) for name, value in (config or {}).items()}
        if tracker not in get_args(Tracker):
            raise ValueError(f"tracker is {tracker!r}; expected one of {get_args(Tracker)}")
        of_wandb = tracker == "wandb"
        module = (
            require("wandb", extra="wandb") if of_wandb else require("trackio", extra="trackio")
        )
        self.run = module.init(project=project, config=plain, **options)

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the run, after an error too."""
        self.finish()

    def __call__(self, row: Mapping[str, float], *_: object) -> bool:
        """Send a row.

        Parameters
        ----------
        row : mapping from str to float
            Names and numbers; those that are not finite are left out. ``time`` and ``step``, which
            trackio keeps for itself, are sent as ``seconds`` and ``at_step``.
        *_ : object
            What else a callback gets; it has no effect.

        Returns
        -------
        bool
            False, by which a solver goes on.
        """
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        self.run.log({_NAMES.get(name, name): value for name, value in finite.items()})
        return False

    def history(self, columns: Mapping[str, Any], prefix: str = "") -> None:
        """Send all rows of a history.

        Parameters
        ----------
        columns : mapping from str to array of shape (n_rows,)
            A history as results and estimators have it.
        prefix : str, default=""
            What to put before the names.
        """
        for values in zip(*columns.values(), strict=True):
            row = zip(columns, map(float, values), strict=True)
            self({prefix + name: value for name, value in row})

    def finish(self) -> None:
        """End the run; what was sent is kept."""
        self.run.finish()


def log_fit(estimator: Any, project: str, **options: Any) -> None:
    """Send parameters, histories and certificate of a fitted estimator to a new run.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator of cvxnn with a ``history_``.
    project : str
        Name of the project.
    **options : object
        Further arguments of `RunLog`.

    Raises
    ------
    ImportError
        If the tool is missing; the message names the extra.
    TypeError
        If the estimator has no history: fit it first.
    """
    if not hasattr(estimator, "history_"):
        raise TypeError(f"{estimator!r} has no history_; fit an estimator of cvxnn that has one.")
    with RunLog(project, config=estimator.get_params(deep=False), **options) as log:
        log.history(estimator.history_)
        if hasattr(estimator, "phase2_history_"):
            log.history(estimator.phase2_history_, prefix="phase2/")
        proven = {name: getattr(estimator, f"{name}_", None) for name in _PROVEN}
        log({f"fit/{name}": float(value) for name, value in proven.items() if value is not None})


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
