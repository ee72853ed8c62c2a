"""Catalogue of objectives by name: their inputs, hyper-parameters and implied rewards."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cvxnn.preference.loss_functions import (
    AnyArray,
    bradley_terry,
    coala_pairwise,
    coala_pointwise,
    counts_like,
    dpo,
    orpo,
    r_dpo,
    rrhf,
    sft,
    simpo,
)


@dataclass(frozen=True)
class Objective:
    """Objective with its inputs, its hyper-parameters and the rewards that it implies.

    Attributes
    ----------
    function : callable
        Function that returns one loss for each row.
    parameters : mapping of str to float
        Hyper-parameters with their defaults.
    grid : mapping of str to tuple of float
        Values of the hyper-parameters that COALA tries (Table 8).
    score : callable or None
        ``score(log_probability, length, reference, **parameters)`` returns the reward of a reply
        that the objective implies: the quantity that the loss of a pair compares, without margins.
        None if the objective implies no reward.
    """

    function: Callable[..., AnyArray]
    parameters: Mapping[str, float] = field(default_factory=dict)
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    score: Callable[..., AnyArray] | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that `function` takes, in order."""
        signature = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in signature if p.kind is not p.KEYWORD_ONLY)

    @property
    def needs_reference(self) -> bool:
        """True if the loss depends on a reference model."""
        return "reference_chosen" in self.inputs

    def losses(self, arrays: Mapping[str, AnyArray], **parameters: float) -> AnyArray:
        """Return the losses of arrays that are given by name.

        Parameters
        ----------
        arrays : mapping of str to array of shape (n,)
            Arrays by name; those that are not in `inputs` are ignored.
        **parameters : float
            Hyper-parameters that differ from their defaults.

        Returns
        -------
        array of shape (n,)
            Loss of each row.
        """
        return self.function(*(arrays[name] for name in self.inputs), **parameters)

    def rewards(
        self, arrays: Mapping[str, AnyArray], **parameters: float
    ) -> tuple[AnyArray, AnyArray]:
        """Return the rewards that the objective implies.

        Parameters
        ----------
        arrays : mapping of str to array of shape (n,)
            Log-probabilities ``chosen`` and ``rejected`` and lengths ``chosen_length`` and
            ``rejected_length``; also ``reference_chosen`` and ``reference_rejected`` if the
            objective needs a reference.
        **parameters : float
            All hyper-parameters of the objective.

        Returns
        -------
        chosen, rejected : array of shape (n,)
            Rewards of the chosen and of the rejected replies.

        Raises
        ------
        TypeError
            If the objective implies no rewards.
        """
        if self.score is None:
            raise TypeError(
                f"{self.function.__name__} takes rewards or logits and implies no rewards; "
                "expected an objective with a score"
            )
        won, lost = (
            self.score(arrays[s], arrays[f"{s}_length"], arrays.get(f"reference_{s}"), **parameters)
            for s in ("chosen", "rejected")
        )
        return won, lost


def _per_token(log_probability: AnyArray, length: AnyArray, _: AnyArray, **__: Any) -> AnyArray:
    return log_probability / length


def _weighted(
    log_probability: AnyArray, length: AnyArray, _: AnyArray, *, weight: float
) -> AnyArray:
    return weight * (log_probability / length)  # as TRL reports the rewards of ORPO


def _scaled(
    log_probability: AnyArray, length: AnyArray, _: AnyArray, *, beta: float, gamma: float
) -> AnyArray:
    return beta * (log_probability / length)


def _log_ratio(
    log_probability: AnyArray,
    length: AnyArray,
    reference: AnyArray,
    *,
    beta: float,
    alpha: float = 0.0,
) -> AnyArray:
    return beta * (log_probability - reference) + alpha * counts_like(log_probability, length)


_BETAS = (0.01, 0.05, 0.1)

OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        "sft": Objective(sft, score=_per_token),
        "dpo": Objective(dpo, {"beta": 0.1}, {"beta": _BETAS}, _log_ratio),
        "r_dpo": Objective(
            r_dpo,
            {"beta": 0.1, "alpha": 0.05},
            {"beta": _BETAS, "alpha": (0.05, 0.1, 0.5, 1.0)},
            _log_ratio,
        ),
        "orpo": Objective(orpo, {"weight": 0.1}, {"weight": (0.1, 0.5, 1.0, 2.0)}, _weighted),
        "simpo": Objective(
            simpo,
            {"beta": 2.0, "gamma": 1.0},
            {"beta": (2.0, 2.5), "gamma": (0.3, 0.5, 1.0, 1.2, 1.4, 1.6)},
            _scaled,
        ),
        "rrhf": Objective(rrhf, {"weight": 1.0}, {"weight": (0.1, 0.5, 1.0, 10.0)}, _per_token),
        "bradley_terry": Objective(bradley_terry, {"margin": 0.0}),
        "coala_pointwise": Objective(coala_pointwise, {"beta": 1.0, "gamma": 0.0}),
        "coala_pairwise": Objective(coala_pairwise, {"beta": 1.0, "gamma": 0.0}),
    }
)
"""Objectives by name. Those with a `score` are functions of the log-probabilities of replies."""
