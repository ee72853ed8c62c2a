"""Objectives of a softmax policy: SFT, DPO, the model of Bradley and Terry, and their mix.

The head of `cvxnn.joint.choice_objective` explains the policy and the form that they share.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.joint.candidates import CandidateSets, as_matrix, as_vector
from cvxnn.joint.choice_objective import ChoiceObjective


def sft_objective(
    candidates: CandidateSets, targets: ArrayLike, *, ridge: float = 0.0, radius: float = np.inf
) -> ChoiceObjective:
    r"""Return the objective of supervised fine-tuning (equation 4).

    .. math:: -\frac1N \sum \log \pi_\theta(y \mid x)

    Parameters
    ----------
    candidates : CandidateSets
        Candidates of the prompts, at least two for each.
    targets : array-like of int, shape (n_prompts,)
        Position of the wanted reply among the candidates of its prompt, from 0.
    ridge : float, default=0
        Strength of the ridge, at least 0.
    radius : float, default=inf
        Radius of the ball in which ``theta`` lies, above 0.

    Returns
    -------
    ChoiceObjective
        The objective, in which each prompt is a choice.

    Raises
    ------
    ValueError
        If a prompt has only one candidate, a target is not among its candidates, or ``ridge`` or
        ``radius`` is out of range.
    """
    picked, sizes = np.asarray(targets), candidates.sizes
    if picked.shape != sizes.shape or not np.issubdtype(picked.dtype, np.integer):
        raise ValueError(
            f"targets has shape {picked.shape} and dtype {picked.dtype}; expected {sizes.shape} "
            "integers, one for each prompt."
        )
    if (sizes < 2).any():
        alone = int(np.argmax(sizes < 2))
        raise ValueError(
            f"prompt {alone} has one candidate, whose probability is always 1; give it a second "
            "one, such as the reply to another prompt, or leave the prompt out."
        )
    outside = (picked < 0) | (picked >= sizes)
    if outside.any():
        k = int(np.argmax(outside))
        raise ValueError(
            f"the target of prompt {k} is {picked[k]}, not among its {sizes[k]} candidates; "
            f"expected 0 to {sizes[k] - 1}. Add the target to the candidates."
        )
    target = candidates.offsets[:-1] + picked
    rival = np.ones(len(candidates.features), bool)
    rival[target] = False
    rows = candidates.features - np.repeat(candidates.features[target], sizes, axis=0)
    offsets = np.concatenate([[0], np.cumsum(sizes - 1)])
    return _objective(rows[rival], np.zeros(int(rival.sum())), offsets, ridge, radius)


def dpo_objective(
    chosen: ArrayLike,
    rejected: ArrayLike,
    *,
    reference: ArrayLike | None = None,
    beta: float = 0.1,
    lengths: tuple[ArrayLike, ArrayLike] | None = None,
    alpha: float = 0.0,
    ridge: float = 0.0,
    radius: float = np.inf,
) -> ChoiceObjective:
    r"""Return the objective of direct preference optimisation (equation 1).

    .. math::

        -\frac1N \sum \log \sigma\big(\beta (\theta - \theta_{ref})^T (\phi_w - \phi_l)
            + \alpha |y_w| - \alpha |y_l| \big)

    Parameters
    ----------
    chosen, rejected : array-like, shape (n_pairs, n_features)
        Features of the preferred and of the other replies.
    reference : array-like, shape (n_features,), optional
        Reference policy. Without it, all replies are equally likely under the reference, and with
        ``beta=1`` the objective is Bradley and Terry's.
    beta : float, default=0.1
        Strength of the pull towards the reference, above 0.
    lengths : (array-like, array-like) of shape (n_pairs,), optional
        Lengths of the chosen and of the rejected replies, for R-DPO (Table 8 of COALA).
    alpha : float, default=0
        Price of a unit of length; it needs ``lengths`` unless it is 0.
    ridge : float, default=0
        Strength of the ridge, at least 0.
    radius : float, default=inf
        Radius of the ball in which ``theta`` lies, above 0.

    Returns
    -------
    ChoiceObjective
        The objective, in which each pair is a choice.

    Raises
    ------
    ValueError
        If an array has the wrong shape or is not finite, or a parameter is out of range.
    """
    won, lost = as_matrix("chosen", chosen), as_matrix("rejected", rejected)
    if won.shape != lost.shape:
        raise ValueError(
            f"chosen has shape {won.shape} and rejected {lost.shape}; expected one row of each for "
            "every pair."
        )
    if not (np.isfinite(beta) and beta > 0):
        raise ValueError(f"beta={beta!r}; expected a number above 0.")
    if not np.isfinite(alpha) or (alpha != 0 and lengths is None):
        raise ValueError(f"alpha={alpha!r}; expected a finite number, with lengths unless 0.")
    margins = won - lost
    shifts = np.zeros(len(margins))
    if reference is not None:
        shifts = beta * (margins @ as_vector("reference", reference, margins.shape[1]))
    if lengths is not None:
        longer = np.subtract(*(as_vector("lengths", each, len(margins)) for each in lengths))
        shifts = shifts - alpha * longer
    return _objective(-beta * margins, shifts, np.arange(len(margins) + 1), ridge, radius)


def bradley_terry_objective(
    chosen: ArrayLike, rejected: ArrayLike, *, ridge: float = 0.0, radius: float = np.inf
) -> ChoiceObjective:
    """Return the objective of Bradley and Terry's model of pairs (section 3.1, equation 29).

    Its minimiser is the reference policy of the paper. It equals ``sft_objective`` of two
    candidates, of which the chosen one is the target.

    Parameters
    ----------
    chosen, rejected : array-like, shape (n_pairs, n_features)
        Features of the preferred and of the other replies.
    ridge : float, default=0
        Strength of the ridge, at least 0.
    radius : float, default=inf
        Radius of the ball in which ``theta`` lies, above 0.

    Returns
    -------
    ChoiceObjective
        The objective, in which each pair is a choice.

    Raises
    ------
    ValueError
        If an array has the wrong shape or is not finite, or a parameter is out of range.
    """
    return dpo_objective(chosen, rejected, beta=1.0, ridge=ridge, radius=radius)


def orpo_objectives(
    chosen: ArrayLike, rejected: ArrayLike, *, ridge: float = 0.0, radius: float = np.inf
) -> tuple[ChoiceObjective, ChoiceObjective]:
    r"""Return the two parts of ORPO (Table 8 of COALA), where the responses of a pair are all.

    With :math:`p = \pi_\theta(y_w | x)` and :math:`1 - p = \pi_\theta(y_l | x)`, they are

    .. math::

        -\frac1N \sum \log \sigma\Big(\log \frac{p}{1 - p} - \log \frac{1 - p}{p}\Big)
        \quad\text{and}\quad -\frac1N \sum \log p,

    both convex, since the logarithm of the odds is :math:`\theta^T (\phi_w - \phi_l)`. ORPO with
    the weight :math:`w` is their mix with :math:`\lambda = w / (1 + w)`, times :math:`1 + w`. It
    needs neither demonstrations nor a reference.

    Parameters
    ----------
    chosen, rejected : array-like, shape (n_pairs, n_features)
        Features of the preferred and of the other replies.
    ridge : float, default=0
        Strength of the ridge, at least 0.
    radius : float, default=inf
        Radius of the ball in which ``theta`` lies, above 0.

    Returns
    -------
    odds, likelihood : ChoiceObjective
        The objectives of the odds ratio and of the chosen replies, for `mix_objective`.

    Raises
    ------
    ValueError
        If an array has the wrong shape or is not finite, or a parameter is out of range.
    """
    odds = dpo_objective(chosen, rejected, beta=2.0, ridge=ridge, radius=radius)
    return odds, bradley_terry_objective(chosen, rejected, ridge=ridge, radius=radius)


def mix_objective(dpo: ChoiceObjective, sft: ChoiceObjective, lam: float) -> ChoiceObjective:
    r"""Return the mix :math:`\lambda f_{DPO} + (1 - \lambda) f_{SFT}` (equation 6).

    Parameters
    ----------
    dpo, sft : ChoiceObjective
        The two objectives, with equal features, ridge and radius.
    lam : float
        Trade-off :math:`\lambda`, in [0, 1].

    Returns
    -------
    ChoiceObjective
        The mix, with the same ridge and radius.

    Raises
    ------
    ValueError
        If ``lam`` is out of range, or the objectives differ in features, ridge or radius.
    """
    check_lam(lam)
    if dpo.n_features != sft.n_features:
        raise ValueError(
            f"the preference data has {dpo.n_features} features and the SFT data "
            f"{sft.n_features}; expected the same features for both."
        )
    if dpo.ridge != sft.ridge or dpo.radius != sft.radius:
        raise ValueError("the two objectives differ in ridge or radius; expected equal ones.")
    return ChoiceObjective(
        rows=np.concatenate([dpo.rows, sft.rows]),
        shifts=np.concatenate([dpo.shifts, sft.shifts]),
        offsets=np.concatenate([dpo.offsets, dpo.offsets[-1] + sft.offsets[1:]]),
        weights=np.concatenate([lam * dpo.weights, (1 - lam) * sft.weights]),
        ridge=dpo.ridge,
        radius=dpo.radius,
    )


def check_lam(lam: float) -> None:
    """Raise ValueError unless ``lam`` is a number in [0, 1]."""
    if not (isinstance(lam, Real) and 0 <= lam <= 1):
        raise ValueError(f"lam={lam!r}; expected a number from 0 (SFT only) to 1 (DPO only).")


def _objective(
    rows: NDArray[np.float64],
    shifts: NDArray[np.float64],
    offsets: NDArray[np.integer[Any]],
    ridge: float,
    radius: float,
) -> ChoiceObjective:
    if not 0 <= ridge < np.inf:
        raise ValueError(f"ridge={ridge!r}; expected a finite number of at least 0.")
    if not radius > 0:
        raise ValueError(f"radius={radius!r}; expected a number above 0, or inf for no ball.")
    n = len(offsets) - 1
    # Ridge and radius are arrays, so that all leaves of the pytree have one dtype.
    return ChoiceObjective(
        rows, shifts, offsets, np.full(n, 1 / n), np.float64(ridge), np.float64(radius)
    )
