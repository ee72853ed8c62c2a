r"""Objectives of preference fine-tuning (the paper's Table 8) and the two convex ones of COALA.

**Of log-probabilities.** `sft`, `dpo`, `r_dpo`, `orpo`, `simpo` and `rrhf` are functions of
:math:`\log \pi_\theta(y \mid x)`, summed over the tokens of a reply; `bradley_terry` is one of
rewards. They take NumPy, JAX or torch arrays of shape (n,), return one loss a row in the same
library, and are differentiable in the last two. `OBJECTIVES` lists them.

**Of the last layer.** With hidden features ``h = (Theta_1 f(x))_+`` frozen:

* ``"pointwise"``, equation (9) of the paper, over labelled responses,
  :math:`\log(1 + \exp(-\beta y\, \theta^T h + \gamma))`;
* ``"pairwise"``, Bradley-Terry with an offset (equation 6) on the un-normalised log-likelihood
  :math:`\beta \theta^T h`, over pairs,
  :math:`\log(1 + \exp(-\beta\, \theta^T (h_w - h_l) + \gamma))`.

Equation (8), with ``log pi`` of both responses, is not convex and is not equation (9): the proof in
the paper replaces :math:`\pi(y_l|x)` by :math:`1 - \pi(y_w|x)`. The paper's objective is therefore
``"pointwise"``; ``"pairwise"`` is what equations (6) and (7) say when read literally.
`coala_pointwise` and `coala_pairwise` are the losses of a row; the problem is in
`CoalaObjective`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from cvxnn._arrays import namespace

AnyArray: TypeAlias = Any
"""An array of NumPy, JAX or torch."""


def bradley_terry(
    chosen_reward: AnyArray, rejected_reward: AnyArray, *, margin: float = 0.0
) -> AnyArray:
    r"""Reward modelling: :math:`-\log \sigma(r_w - r_l - m)`.

    Parameters
    ----------
    chosen_reward, rejected_reward : array of shape (n,)
    margin : float, default=0.0
        What the chosen reply's reward is asked to exceed the other's by.

    References
    ----------
    Bradley and Terry (1952), with the margin of Touvron et al., "Llama 2" (2023).
    """
    return _softplus(margin - (chosen_reward - rejected_reward))


def sft(chosen: AnyArray, chosen_length: AnyArray, *, per_token: bool = True) -> AnyArray:
    r"""Supervised fine-tuning: :math:`-\log \pi(y \mid x)`, by default divided by :math:`|y|`.

    Parameters
    ----------
    chosen : array of shape (n,)
        Log-probability of the reply, summed over its tokens.
    chosen_length : array of shape (n,)
        Tokens of the reply.
    per_token : bool, default=True
        False gives the sum, as equation (4) of Fernando et al., "Understanding Forgetting in LLM
        Supervised Fine-Tuning and Preference Learning" (2024), has it.
    """
    return -(chosen / chosen_length if per_token else chosen)


def dpo(
    chosen: AnyArray,
    rejected: AnyArray,
    reference_chosen: AnyArray,
    reference_rejected: AnyArray,
    *,
    beta: float = 0.1,
) -> AnyArray:
    r"""Direct preference optimisation.

    .. math:: -\log \sigma\Big(\beta \log \frac{\pi(y_w|x)}{\pi_{ref}(y_w|x)}
        - \beta \log \frac{\pi(y_l|x)}{\pi_{ref}(y_l|x)}\Big)

    Parameters
    ----------
    chosen, rejected, reference_chosen, reference_rejected : array of shape (n,)
        Summed log-probabilities under the policy and under the reference.
    beta : float, default=0.1
        Strength of the pull towards the reference, above 0.

    References
    ----------
    Rafailov et al., "Direct Preference Optimization" (2023), equation (7).
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return _softplus(-beta * margin)


def r_dpo(
    chosen: AnyArray,
    rejected: AnyArray,
    reference_chosen: AnyArray,
    reference_rejected: AnyArray,
    chosen_length: AnyArray,
    rejected_length: AnyArray,
    *,
    beta: float = 0.1,
    alpha: float = 0.05,
) -> AnyArray:
    r"""DPO with a price on length.

    .. math:: -\log \sigma\Big(\beta \log \frac{\pi(y_w|x)}{\pi_{ref}(y_w|x)}
        - \beta \log \frac{\pi(y_l|x)}{\pi_{ref}(y_l|x)} + \alpha |y_w| - \alpha |y_l|\Big)

    The sign: the policy that maximises :math:`E[r - \alpha |y|] - \beta KL(\pi \| \pi_{ref})` is
    :math:`\pi \propto \pi_{ref} \exp((r - \alpha |y|) / \beta)`, hence
    :math:`r = \beta \log(\pi / \pi_{ref}) + \alpha |y|` up to a function of the prompt, and that is
    what Bradley-Terry compares. Table 8 has it right: length explains part of a preference for
    a longer reply, so the policy has to move less for it.

    Parameters
    ----------
    chosen, rejected, reference_chosen, reference_rejected : array of shape (n,)
        Summed log-probabilities under the policy and under the reference.
    chosen_length, rejected_length : array of shape (n,)
        Tokens of the replies.
    beta : float, default=0.1
        Strength of the pull towards the reference, above 0.
    alpha : float, default=0.05
        Price of a token, at least 0; with 0 this is `dpo`.

    References
    ----------
    Park et al., "Disentangling Length from Quality in Direct Preference Optimization" (2024).
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    longer = _like(chosen, chosen_length - rejected_length)
    return _softplus(-(beta * margin + alpha * longer))


def orpo(
    chosen: AnyArray,
    rejected: AnyArray,
    chosen_length: AnyArray,
    rejected_length: AnyArray,
    *,
    weight: float = 0.1,
) -> AnyArray:
    r"""Odds-ratio preference optimisation, with :math:`p(y|x) = \exp(\log \pi(y|x) / |y|)`.

    .. math:: -\log p(y_w|x) - \lambda \log \sigma\Big(
        \log \frac{p(y_w|x)}{1 - p(y_w|x)} - \log \frac{p(y_l|x)}{1 - p(y_l|x)}\Big)

    Where ``p`` rounds to 1 its odds are those of the largest number below 1.

    Parameters
    ----------
    chosen, rejected : array of shape (n,)
        Summed log-probabilities.
    chosen_length, rejected_length : array of shape (n,)
        Tokens of the replies.
    weight : float, default=0.1
        :math:`\lambda`, at least 0 (TRL calls it ``beta``).

    References
    ----------
    Hong et al., "ORPO: Monolithic Preference Optimization without Reference Model" (2024),
    equations (6) and (7). TRL's first term also counts the tokens of the prompt.
    """
    won, lost = chosen / chosen_length, rejected / rejected_length
    return -won + weight * _softplus(_log_odds(lost) - _log_odds(won))


def simpo(
    chosen: AnyArray,
    rejected: AnyArray,
    chosen_length: AnyArray,
    rejected_length: AnyArray,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
) -> AnyArray:
    r"""Simple preference optimisation.

    .. math:: -\log \sigma\Big(\frac{\beta}{|y_w|} \log \pi(y_w|x)
        - \frac{\beta}{|y_l|} \log \pi(y_l|x) - \gamma\Big)

    Parameters
    ----------
    chosen, rejected : array of shape (n,)
        Summed log-probabilities.
    chosen_length, rejected_length : array of shape (n,)
        Tokens of the replies.
    beta : float, default=2.0
        Scale of the reward, above 0.
    gamma : float, default=1.0
        Margin in units of the reward (not relative to `beta`, as the ``gamma_beta_ratio`` of the
        authors' code is).

    References
    ----------
    Meng et al., "SimPO: Simple Preference Optimization with a Reference-Free Reward" (2024),
    equation (6).
    """
    return _softplus(gamma - beta * (chosen / chosen_length - rejected / rejected_length))


def rrhf(
    chosen: AnyArray,
    rejected: AnyArray,
    chosen_length: AnyArray,
    rejected_length: AnyArray,
    *,
    weight: float = 1.0,
) -> AnyArray:
    r"""Rank responses to align human feedback, for two replies.

    .. math:: \max\Big(0, \frac{\log \pi(y_l|x)}{|y_l|} - \frac{\log \pi(y_w|x)}{|y_w|}\Big)
        - \lambda \log \pi(y_w|x)

    Table 8 closes the bracket of the maximum after the last term. Then the supervised term would
    vanish for pairs that are ranked well; in the source it is added to the ranking loss.

    Parameters
    ----------
    chosen, rejected : array of shape (n,)
        Summed log-probabilities.
    chosen_length, rejected_length : array of shape (n,)
        Tokens of the replies.
    weight : float, default=1.0
        :math:`\lambda`, at least 0.

    References
    ----------
    Yuan et al., "RRHF: Rank Responses to Align Language Models with Human Feedback without tears"
    (2023), equations (2) to (4).
    """
    gap = rejected / rejected_length - chosen / chosen_length
    return _library(gap).clip(gap, 0, None) - weight * chosen


def coala_pointwise(
    logit: AnyArray, label: AnyArray, *, beta: float = 1.0, gamma: float = 0.0
) -> AnyArray:
    r"""Equation (9), :math:`\log(1 + \exp(-\beta y g + \gamma))`, of logits ``g`` and labels ±1.

    Parameters
    ----------
    logit : array of shape (n,)
        :math:`g = \theta^T h`.
    label : array of shape (n,)
        +1 for preferred responses, -1 for others.
    beta, gamma : float
        As in `CoalaObjective`.
    """
    return _softplus(gamma - beta * (label * logit))


def coala_pairwise(
    chosen_logit: AnyArray, rejected_logit: AnyArray, *, beta: float = 1.0, gamma: float = 0.0
) -> AnyArray:
    r"""Equations (6) and (7), :math:`\log(1 + \exp(-\beta (g_w - g_l) + \gamma))`, of logits.

    Parameters
    ----------
    chosen_logit, rejected_logit : array of shape (n,)
        :math:`g = \theta^T h`.
    beta, gamma : float
        As in `CoalaObjective`.
    """
    return _softplus(gamma - beta * (chosen_logit - rejected_logit))


@dataclass(frozen=True)
class Objective:
    """An objective with what a training loop has to know about it.

    Attributes
    ----------
    function : callable
        One loss a row.
    parameters : mapping from str to float
        Hyper-parameters and their defaults.
    grid : mapping from str to tuple of float
        The values that the paper tries (Table 8).
    score : callable
        ``score(log_probability, length, reference, **parameters)``: the reward of a reply that the
        objective implies, i.e. what the loss of a pair compares, apart from margins it asks for.
    """

    function: Callable[..., AnyArray]
    parameters: Mapping[str, float] = field(default_factory=dict)
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    score: Callable[..., AnyArray] | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that `function` takes."""
        signature = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in signature if p.kind is not p.KEYWORD_ONLY)

    @property
    def needs_reference(self) -> bool:
        """Whether the loss depends on a reference model."""
        return "reference_chosen" in self.inputs

    def losses(self, arrays: Mapping[str, AnyArray], **parameters: float) -> AnyArray:
        """Losses, shape (n,), of arrays given by name; arrays that are not needed may be there."""
        return self.function(*(arrays[name] for name in self.inputs), **parameters)

    def rewards(
        self, arrays: Mapping[str, AnyArray], **parameters: float
    ) -> tuple[AnyArray, AnyArray]:
        """Rewards of the chosen and of the rejected replies, each of shape (n,)."""
        if self.score is None:
            raise TypeError(f"{self.function.__name__} is given rewards; it does not imply any")
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
    return weight * (log_probability / length)  # as TRL reports ORPO


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
    return beta * (log_probability - reference) + alpha * _like(log_probability, length)


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
"""Objectives by name. Those with a `score` are functions of log-probabilities of replies."""


def _library(array: AnyArray) -> Any:
    """The module of an array's functions; torch is never imported for it."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.is_tensor(array) else namespace(array)


def _like(array: AnyArray, counts: AnyArray) -> AnyArray:
    """Whole numbers in the type of an array: times a float, torch would make them float32."""
    return _library(array).asarray(counts, dtype=array.dtype)


def _softplus(x: AnyArray) -> AnyArray:
    xp = _library(x)
    return xp.logaddexp(x, xp.zeros_like(x))


def _log_odds(log_p: AnyArray) -> AnyArray:
    """``log(p / (1 - p))`` from ``log p``, finite also where p rounds to 1."""
    xp = _library(log_p)
    log_p = xp.clip(log_p, None, -float(xp.finfo(log_p.dtype).eps))
    return log_p - xp.log(-xp.expm1(log_p))
