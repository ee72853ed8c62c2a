"""What a preference head knows of its rewards: how exact they are, and how sure."""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from cvxnn.estimators._pair_certificate import PairCertified
from cvxnn.estimators.cautious_head import CautiousHead
from cvxnn.explanation import Curvature


class PairCurved(PairCertified):
    """Preference head of which the inverse Hessian is asked."""

    def curvature(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        pair_id: ArrayLike | None = None,
    ) -> Curvature:
        """Return the inverse Hessian of phase I: how exact and how sure rewards are.

        Rewards here are those of phase I, whose order is that of the head, and which asks for a
        difference of 1.

        Parameters
        ----------
        X, y, sample_weight, groups : array-like
            Data of the fit, as for :meth:`certificate`.
        pair_id : array-like, shape (n_samples,), optional
            As in ``fit``; it is not needed after ``fit_pairs``.

        Returns
        -------
        cvxnn.explanation.Curvature
            ``decided`` says which orders are the optimum's, ``deviation_between`` and
            ``deviation_among`` how little the pairs say of replies that compete.

        Raises
        ------
        ValueError
            If the data are not those of the fit.
        TypeError
            With ``formulation="relu"``, which has no such form.
        """
        held = self._as_it_is()
        return held._curvature(held._solved(X, y, sample_weight, groups, pair_id))

    def cautious(
        self,
        X: ArrayLike,
        y: ArrayLike,
        caution: float = 1.0,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        pair_id: ArrayLike | None = None,
    ) -> CautiousHead:
        r"""Return the head with rewards that are lower where its pairs say little.

        The logit of a response loses `caution` standard deviations,
        :math:`\kappa \sqrt{\varphi^T H^{-1} \varphi}`: a reply that the pairs say much of wins over
        one that only seems better. Choose `caution` on pairs of your own; none is best for all.

        Parameters
        ----------
        X, y, sample_weight, groups : array-like
            Data of the fit, as for :meth:`certificate`.
        caution : float, default=1.0
            Standard deviations that the logit of each response loses, at least 0.
        pair_id : array-like, shape (n_samples,), optional
            As in ``fit``; it is not needed after ``fit_pairs``.

        Returns
        -------
        cvxnn.estimators.cautious_head.CautiousHead
            With ``reward``, ``decision_function`` and ``embedding``, which is what guided decoding,
            ``choose_reply`` and a server of Python use. It has no ``reward_margin``, and cannot be
            saved or served from a terminal: save the head.

        Raises
        ------
        ValueError
            If the data are not those of the fit, ``caution`` is negative or not finite, or the head
            has no neurons.
        TypeError
            With ``formulation="relu"``, which has no such form, or if ``caution`` is no number.

        Notes
        -----
        A response takes ``n**2`` flops beside its kernel with the ``n`` pairs.
        """
        if not isinstance(caution, Real):
            raise TypeError(
                f"caution={caution!r}; expected a number, not a {type(caution).__name__}."
            )
        if not (np.isfinite(caution) and caution >= 0):
            raise ValueError(f"caution={caution!r}; expected a finite number that is at least 0.")
        held = self._as_it_is()
        curvature = held._curvature(held._solved(X, y, sample_weight, groups, pair_id))
        scale = float(held._scale_of_rewards()) * curvature.scale
        return CautiousHead(held, curvature, float(caution), scale)
