r"""Losses of preference fine-tuning (Table 8 of COALA), and the two convex losses of COALA.

**Of log-probabilities.** `sft`, `dpo`, `r_dpo`, `orpo`, `simpo` and `rrhf` are functions of
:math:`\log \pi_\theta(y \mid x)`, summed over the tokens of a reply; `bradley_terry` is a function
of rewards. They take arrays of NumPy, JAX or torch of shape (n,), return one loss for each row in
the same library, and are differentiable in JAX and torch. `OBJECTIVES` lists them with their
parameters.

**Of the last layer.** With hidden features ``h = (Theta_1 f(x))_+`` frozen:

* ``"pointwise"``, equation (9) of the paper, over labelled responses,
  :math:`\log(1 + \exp(-\beta y\, \theta^T h + \gamma))`;
* ``"pairwise"``, Bradley-Terry with an offset (equation 6) on the un-normalised log-likelihood
  :math:`\beta \theta^T h`, over pairs,
  :math:`\log(1 + \exp(-\beta\, \theta^T (h_w - h_l) + \gamma))`.

Equation (8), with ``log pi`` of both responses, is not convex and differs from equation (9): the
proof in the paper replaces :math:`\pi(y_l|x)` by :math:`1 - \pi(y_w|x)`. The objective of the paper
is therefore ``"pointwise"``; ``"pairwise"`` follows equations (6) and (7) literally.
`coala_pointwise` and `coala_pairwise` are the losses of one row; `CoalaObjective` is their mean
with a ridge.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

from cvxnn.numerics.arrays import namespace

AnyArray: TypeAlias = Any
"""Array of NumPy, JAX or torch."""


def bradley_terry(
    chosen_reward: AnyArray, rejected_reward: AnyArray, *, margin: float = 0.0
) -> AnyArray:
    r"""Return the loss of reward modelling, :math:`-\log \sigma(r_w - r_l - m)`.

    Parameters
    ----------
    chosen_reward, rejected_reward : array of shape (n,)
        Rewards of the preferred and of the other replies.
    margin : float, default=0.0
        Amount m by which the reward of the preferred reply should exceed the other.

    Returns
    -------
    array of shape (n,)
        Loss of each pair.

    References
    ----------
    Bradley and Terry (1952), with the margin of Touvron et al., "Llama 2" (2023).
    """
    return _softplus(margin - (chosen_reward - rejected_reward))


def sft(chosen: AnyArray, chosen_length: AnyArray, *, per_token: bool = True) -> AnyArray:
    r"""Return the loss of supervised fine-tuning, :math:`-\log \pi(y \mid x)`.

    By default it is divided by the number of tokens :math:`|y|`.

    Parameters
    ----------
    chosen : array of shape (n,)
        Log-probability of the reply, summed over its tokens.
    chosen_length : array of shape (n,)
        Number of tokens of the reply.
    per_token : bool, default=True
        Divide by the number of tokens. False gives the sum, as in equation (4) of Fernando et al.,
        "Understanding Forgetting in LLM Supervised Fine-Tuning and Preference Learning" (2024).

    Returns
    -------
    array of shape (n,)
        Loss of each reply.
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
    r"""Return the loss of direct preference optimisation.

    .. math:: -\log \sigma\Big(\beta \log \frac{\pi(y_w|x)}{\pi_{ref}(y_w|x)}
        - \beta \log \frac{\pi(y_l|x)}{\pi_{ref}(y_l|x)}\Big)

    Parameters
    ----------
    chosen, rejected, reference_chosen, reference_rejected : array of shape (n,)
        Log-probabilities of the replies, summed over their tokens, under the policy and under the
        reference.
    beta : float, default=0.1
        Strength of the pull towards the reference, above 0.

    Returns
    -------
    array of shape (n,)
        Loss of each pair.

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
    r"""Return the loss of DPO with a price on length.

    .. math:: -\log \sigma\Big(\beta \log \frac{\pi(y_w|x)}{\pi_{ref}(y_w|x)}
        - \beta \log \frac{\pi(y_l|x)}{\pi_{ref}(y_l|x)} + \alpha |y_w| - \alpha |y_l|\Big)

    The sign: the policy that maximises :math:`E[r - \alpha |y|] - \beta KL(\pi \| \pi_{ref})` is
    :math:`\pi \propto \pi_{ref} \exp((r - \alpha |y|) / \beta)`, hence
    :math:`r = \beta \log(\pi / \pi_{ref}) + \alpha |y|` up to a function of the prompt, and that is
    what Bradley-Terry compares. The sign in Table 8 is therefore correct: length explains part of a
    preference for a longer reply, so the policy has to move less for it.

    Parameters
    ----------
    chosen, rejected, reference_chosen, reference_rejected : array of shape (n,)
        Log-probabilities of the replies, summed over their tokens, under the policy and under the
        reference.
    chosen_length, rejected_length : array of shape (n,)
        Numbers of tokens of the replies.
    beta : float, default=0.1
        Strength of the pull towards the reference, above 0.
    alpha : float, default=0.05
        Price of a token, at least 0; with 0 the loss is that of `dpo`.

    Returns
    -------
    array of shape (n,)
        Loss of each pair.

    References
    ----------
    Park et al., "Disentangling Length from Quality in Direct Preference Optimization" (2024).
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    longer = counts_like(chosen, chosen_length - rejected_length)
    return _softplus(-(beta * margin + alpha * longer))


def orpo(
    chosen: AnyArray,
    rejected: AnyArray,
    chosen_length: AnyArray,
    rejected_length: AnyArray,
    *,
    weight: float = 0.1,
) -> AnyArray:
    r"""Return the loss of odds-ratio preference optimisation.

    .. math:: -\log p(y_w|x) - \lambda \log \sigma\Big(
        \log \frac{p(y_w|x)}{1 - p(y_w|x)} - \log \frac{p(y_l|x)}{1 - p(y_l|x)}\Big) ,
        \qquad p(y|x) = \exp(\log \pi(y|x) / |y|)

    If ``p`` is rounded to 1, its odds are those of the largest number below 1.

    Parameters
    ----------
    chosen, rejected : array of shape (n,)
        Log-probabilities of the replies, summed over their tokens.
    chosen_length, rejected_length : array of shape (n,)
        Numbers of tokens of the replies.
    weight : float, default=0.1
        Weight :math:`\lambda` of the odds ratio, at least 0 (TRL calls it ``beta``).

    Returns
    -------
    array of shape (n,)
        Loss of each pair.

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
    r"""Return the loss of simple preference optimisation.

    .. math:: -\log \sigma\Big(\frac{\beta}{|y_w|} \log \pi(y_w|x)
        - \frac{\beta}{|y_l|} \log \pi(y_l|x) - \gamma\Big)

    Parameters
    ----------
    chosen, rejected : array of shape (n,)
        Log-probabilities of the replies, summed over their tokens.
    chosen_length, rejected_length : array of shape (n,)
        Numbers of tokens of the replies.
    beta : float, default=2.0
        Scale of the reward, above 0.
    gamma : float, default=1.0
        Margin in units of the reward; the ``gamma_beta_ratio`` of the authors' code is relative to
        `beta`.

    Returns
    -------
    array of shape (n,)
        Loss of each pair.

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
    r"""Return the loss of RRHF, "rank responses to align human feedback", for two replies.

    .. math:: \max\Big(0, \frac{\log \pi(y_l|x)}{|y_l|} - \frac{\log \pi(y_w|x)}{|y_w|}\Big)
        - \lambda \log \pi(y_w|x)

    Table 8 of COALA closes the bracket of the maximum after the last term. Then the supervised term
    would vanish for pairs that are ranked well; in the source it is added to the ranking loss.

    Parameters
    ----------
    chosen, rejected : array of shape (n,)
        Log-probabilities of the replies, summed over their tokens.
    chosen_length, rejected_length : array of shape (n,)
        Numbers of tokens of the replies.
    weight : float, default=1.0
        Weight :math:`\lambda` of the supervised term, at least 0.

    Returns
    -------
    array of shape (n,)
        Loss of each pair.

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
    r"""Return equation (9) of COALA, :math:`\log(1 + \exp(-\beta y g + \gamma))`.

    Parameters
    ----------
    logit : array of shape (n,)
        Logits :math:`g = \theta^T h`.
    label : array of shape (n,)
        Labels :math:`y`: +1 for preferred replies, -1 for others.
    beta : float, default=1.0
        Inverse temperature, above 0.
    gamma : float, default=0.0
        Offset, at least 0.

    Returns
    -------
    array of shape (n,)
        Loss of each reply.
    """
    return _softplus(gamma - beta * (label * logit))


def coala_pairwise(
    chosen_logit: AnyArray, rejected_logit: AnyArray, *, beta: float = 1.0, gamma: float = 0.0
) -> AnyArray:
    r"""Return equations (6) and (7) of COALA, :math:`\log(1 + \exp(-\beta (g_w - g_l) + \gamma))`.

    Parameters
    ----------
    chosen_logit, rejected_logit : array of shape (n,)
        Logits :math:`g = \theta^T h` of the preferred and of the other replies.
    beta : float, default=1.0
        Inverse temperature, above 0.
    gamma : float, default=0.0
        Offset, at least 0.

    Returns
    -------
    array of shape (n,)
        Loss of each pair.
    """
    return _softplus(gamma - beta * (chosen_logit - rejected_logit))


def _library(array: AnyArray) -> Any:
    """Return the module with the functions of an array, without importing torch."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.is_tensor(array) else namespace(array)


def counts_like(array: AnyArray, counts: AnyArray) -> AnyArray:
    """Return integers in the type of an array, because torch would make their product float32.

    Parameters
    ----------
    array : array
        Array whose library and type count.
    counts : array
        Integers.
    """
    return _library(array).asarray(counts, dtype=array.dtype)


def _softplus(x: AnyArray) -> AnyArray:
    xp = _library(x)
    return xp.logaddexp(x, xp.zeros_like(x))


def _log_odds(log_p: AnyArray) -> AnyArray:
    """Return ``log(p / (1 - p))`` from ``log p``; it is finite even if p is rounded to 1."""
    xp = _library(log_p)
    log_p = xp.clip(log_p, None, -float(xp.finfo(log_p.dtype).eps))
    return log_p - xp.log(-xp.expm1(log_p))
