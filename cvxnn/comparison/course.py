"""Course of a head's fit: time and held-out margin at each measurement of its solvers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.callback import FitCallback

from cvxnn.features.pairs import PairFeatures


class Course(FitCallback):
    """Callback of scikit-learn that follows a fit on held-out pairs.

    Parameters
    ----------
    test : PairFeatures
        Held-out pairs.

    Attributes
    ----------
    times : list of float
        Seconds since the fit began, without those of these measurements.
    margins : list of float
        Mean held-out margin at these times.
    spent : float
        Seconds of these measurements.
    """

    def __init__(self, test: PairFeatures) -> None:
        self.test = test
        self.times: list[float] = []
        self.margins: list[float] = []
        self.spent = 0.0
        self._began = time.perf_counter()

    def setup(self, estimator: Any, context: Any) -> None:
        """Start the clock.

        Parameters
        ----------
        estimator : estimator
            The head.
        context : CallbackContext
            Where in the fit it is.
        """
        self._began = time.perf_counter()

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, fitted_estimator: Any = None
    ) -> None:
        """Measure the present head.

        Parameters
        ----------
        estimator : estimator
            The head that is fitted.
        context : CallbackContext
            Where in the fit it is.
        fitted_estimator : estimator, optional
            The head as it is at present.
        """
        if context.task_name != "measurement" or fitted_estimator is None:
            return
        now = time.perf_counter()
        self.times.append(now - self._began - self.spent)
        chosen, rejected = (np.asarray(rows) for rows in (self.test.chosen, self.test.rejected))
        self.margins.append(float(np.mean(fitted_estimator.reward_margin(chosen, rejected))))
        self.spent += time.perf_counter() - now

    def columns(self, n: int) -> dict[str, list[float]]:
        """Return the last measurements as columns of a history.

        Parameters
        ----------
        n : int
            Number of measurements, of phase II.

        Returns
        -------
        dict of str to list of float
            ``seconds`` and ``eval_rewards/margins``; empty if there were fewer measurements.
        """
        if not 0 < n <= len(self.times):
            return {}
        return {"seconds": self.times[-n:], "eval_rewards/margins": self.margins[-n:]}
