"""From the data of an estimator to the inverse Hessian of its fit, on raw rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.estimators._certified import Solved
from cvxnn.estimators._certified_answers import CertifiedAnswers
from cvxnn.estimators._given_rows import GivenRows, Look, on_rows
from cvxnn.estimators._scaling import Scaling
from cvxnn.explanation import Curvature

Floats = NDArray[np.floating]


class Curved(CertifiedAnswers):
    """Estimator of which the inverse Hessian is asked."""

    def curvature(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Curvature:
        r"""Return the inverse Hessian of the fit: how exact and how sure predictions are.

        Parameters
        ----------
        X, y, sample_weight, groups : array-like
            Data of the fit, as for :meth:`certificate`.

        Returns
        -------
        cvxnn.explanation.Curvature
            ``error_on(X)`` bounds the distance to predictions of the exact optimum, ``decided``
            says which orders are the optimum's, and ``deviation_on(X)`` how little the data say.

        Raises
        ------
        ValueError
            If the data are not those of the fit, or there are several outputs.
        TypeError
            Unless ``formulation="gated"``, ``penalty="l2"`` and ``loss="squared"``.

        Notes
        -----
        With ``n`` distinct rows it takes ``n**3 / 3`` flops and two kernels of ``8 n**2`` bytes
        (:mod:`cvxnn.training.inverse_hessian` has the equations).
        """
        held = self._as_it_is()
        return held._curvature(held._solved(X, y, sample_weight, groups))

    def _curvature(self, solved: Solved) -> Curvature:
        """Return the inverse Hessian of a solution."""
        found = curvature_of(
            solved.certificate,
            solved.given,
            solved.scaling,
            solved.look,
            self._outputs,
            gap=max(self.objective_ - self.dual_bound_, 0.0),
        )
        self._require_units(solved)
        return found


def curvature_of(
    certificate: convex.Certificate,
    given: GivenRows,
    scaling: Scaling,
    look: Look,
    scores: Callable[[Any], Floats],
    *,
    gap: float,
) -> Curvature:
    """Return the inverse Hessian of a fit.

    Parameters
    ----------
    certificate : Certificate
        Of the fit.
    given : GivenRows
        Rows or pairs.
    scaling : Scaling
        Units of the program.
    look : callable
        Takes raw rows to rows of the program and the gates that are open on them.
    scores : callable
        Takes raw rows to predictions by the fit.
    gap : float
        Absolute duality gap.

    Returns
    -------
    Curvature
        In raw units.
    """
    if not isinstance(certificate.program.loss, convex.SquaredLoss):
        raise TypeError(
            "curvature needs loss='squared', whose Hessian is the same everywhere, not "
            f"{type(certificate.program.loss).__name__}."
        )
    inverse = training.InverseHessian.of(certificate)
    scale = float(scaling.y_scale[0])

    return Curvature(
        gap,
        float(given.fitted().weight.sum()),
        scale,
        partial(on_rows, inverse.variances, look, 1.0),
        partial(_between, inverse, look),
        partial(on_rows, inverse.covariance, look, 1.0),
        partial(_first_output, scores),
    )


def _between(inverse: training.InverseHessian, look: Look, first: Any, second: Any) -> Floats:
    """Return the variances of differences of predictions."""
    rows = [look(part) for part in (first, second)]
    X, mask = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    n = len(rows[0][0])
    if len(X) != 2 * n:
        raise ValueError(
            f"there are {n} first rows and {len(X) - n} second ones; expected as many of each."
        )
    return inverse.variances(X, mask, np.column_stack([np.arange(n), np.arange(n) + n]))


def _first_output(scores: Callable[[Any], Floats], X: Any) -> Floats:
    """Return the predictions of a network of one output."""
    return scores(X)[:, 0]
