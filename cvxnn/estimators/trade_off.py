"""Heads on the exact front between several objectives of preference pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn import training  # names load when first used: JAX is for fits only
from cvxnn.estimators._rows import labels_of

if TYPE_CHECKING:
    from cvxnn.estimators._certified import Solved
    from cvxnn.estimators._certified_answers import CertifiedAnswers


@dataclass(frozen=True, repr=False)
class TradeOff:
    """The front between the objectives of a head's pairs; see ``COALAPreferenceHead.trade_off``.

    Attributes
    ----------
    objectives : cvxnn.training.Objectives
        Their losses, in the units of the program.
    """

    objectives: training.Objectives
    _head: Any
    _solved: Solved

    @classmethod
    def of(
        cls, head: CertifiedAnswers, solved: Solved, X: ArrayLike, objectives: ArrayLike
    ) -> TradeOff:
        """Split the pairs of a fit by the labels of their responses."""
        given = solved.given.fitted()
        names, codes = labels_of(objectives, len(np.asarray(X)), "objectives")
        of_pairs = codes[given.rows]
        differ = int((of_pairs[:, 0] != of_pairs[:, 1]).sum())
        if differ:
            raise ValueError(
                f"the responses of {differ} of {len(of_pairs)} pairs have different objectives, "
                "and a pair counts for one: give both its label."
            )
        codes = of_pairs[:, 0]
        used, codes = np.unique(codes, return_inverse=True)
        if len(used) < 2:
            raise ValueError(
                f"objectives of the pairs have {len(used)} label; expected at least two."
            )
        shares = np.zeros((len(codes), len(used)))
        shares[np.arange(len(codes)), codes] = given.weight
        own = training.Objectives.of(
            names[used],
            solved.certificate.program,
            *solved.look(X),
            given.rows,
            shares / shares.sum(axis=0),
        )
        return cls(own, head, solved)

    @property
    def names(self) -> NDArray[Any]:
        """Labels of the objectives, sorted: the order of weights, losses and prices."""
        return self.objectives.names

    def at(self, weights: Mapping[Any, float]) -> Any:
        """Return the head of some weights of the objectives.

        Parameters
        ----------
        weights : mapping of label to float
            One for each objective, not negative. Their sum is brought to 1, so that the penalty
            keeps its weight.

        Returns
        -------
        COALAPreferenceHead
            A fitted copy. ``losses_`` has the loss of each objective (half of the mean square of
            the distance of a margin from 1), ``prices_`` the weights; ``objective_``,
            ``dual_bound_`` and ``gap_`` prove that it is the optimum of the weighted losses and the
            penalty.

        Raises
        ------
        ValueError
            If a label is not known or missing, or weights are negative or all 0.
        TypeError
            If weights are no mapping.
        """
        own = self._ordered(weights, 0.0, "weights")
        if missing := [name for name in self.names.tolist() if name not in weights]:
            raise ValueError(
                f"weights has no weight of {missing[0]!r}; expected one for each of "
                f"{self.names.tolist()}: 0 leaves an objective out."
            )
        total = own.sum()
        proportions = own / total if 0 < total < np.inf else own
        return self._head_of(self.objectives.at(proportions))

    def within(self, first: Any, thresholds: Mapping[Any, float]) -> Any:
        """Return the head of least loss and penalty in one objective, under thresholds on others.

        Parameters
        ----------
        first : label
            The objective whose loss, with the penalty of the fit, is minimised.
        thresholds : mapping of label to float
            The largest loss of others, at least 1e-7, in the units of ``losses_``. A head that says
            nothing has a loss of 0.5.

        Returns
        -------
        COALAPreferenceHead
            A fitted copy as of :meth:`at`. ``prices_`` of the others say what the loss of the
            first, penalty included, falls by for each unit that a threshold gives way.

        Raises
        ------
        ValueError
            If a label is not known, no head keeps to the thresholds, or one is the least loss
            itself, whose price has no bound.
        TypeError
            If thresholds are no mapping.

        Warns
        -----
        UserWarning
            If a price is above 1e4: the threshold is near the least loss that any head reaches.
        """
        most = self._ordered(thresholds, np.inf, "thresholds")
        if first in thresholds:
            raise ValueError(f"{first!r} is minimised and has a threshold; expected only one.")
        place = int(self._ordered({first: 1.0}, 0.0, "first").argmax())
        return self._head_of(self.objectives.within(place, most))

    def __repr__(self) -> str:
        """Return the objectives and their numbers of pairs."""
        counts = (self.objectives.shares > 0).sum(axis=0).tolist()
        inside = ", ".join(f"{name}: {n}" for name, n in zip(self.names, counts, strict=True))
        return f"TradeOff({inside} pairs)"

    def _ordered(
        self, values: Mapping[Any, float], missing: float, called: str
    ) -> NDArray[np.floating]:
        """Return values in the order of the objectives."""
        known = self.names.tolist()
        if not isinstance(values, Mapping):
            raise TypeError(
                f"{called}={values!r}; expected a dict of {called} by objective, such as "
                f"{dict.fromkeys(known, 0.5)}."
            )
        if unknown := [name for name in values if name not in known]:
            raise ValueError(f"no objective {unknown[0]!r}; expected some of {known}.")
        return np.array([float(values.get(name, missing)) for name in known])

    def _head_of(self, point: training.Point) -> Any:
        """Return the head of a point."""
        head = self._head._with(
            self._solved, point.blocks[:, None], point.objective, point.dual_bound
        )
        head.prices_, head.losses_ = point.weights, point.losses
        return head
