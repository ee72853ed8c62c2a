"""What features contribute: to the outputs at a row, and to all neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.explanation.hyperplanes import checked_rows, refuse_estimators
from cvxnn.explanation.local_models import local_linear
from cvxnn.network import TwoLayerNetwork


class Contributions(NamedTuple):
    """The outputs as sums over features; ``pandas.DataFrame(parts.columns)`` is a table of them.

    Attributes
    ----------
    features : ndarray, shape (n_samples, n_outputs, n_features)
        Contribution of each feature, by its distance from the baseline.
    rest : ndarray, shape (n_samples, n_outputs)
        The row's piece at the baseline.
    feature_names : sequence of str, optional
        Names of the features; ``x0``, ``x1``, and so on in the table where it is None.
    output_names : sequence, optional
        Names of the outputs, such as classes; their numbers in the table where it is None.
    """

    features: NDArray[np.floating]
    rest: NDArray[np.floating]
    feature_names: Sequence[str] | None = None
    output_names: Sequence[Any] | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of a table with one line for each row and output.

        ``"row"`` and ``"output"`` name the line. Then each feature has a column, and these and
        ``"rest"`` add up to ``"sum"``, the output of the network.
        """
        n, C, d = self.features.shape
        names = [f"x{i}" for i in range(d)] if self.feature_names is None else self.feature_names
        outputs = range(C) if self.output_names is None else self.output_names
        lines = self.features.reshape(-1, d)
        return {
            "row": np.repeat(np.arange(n), C),
            "output": np.tile(np.asarray(outputs), n),
            **{str(name): column for name, column in zip(names, lines.T, strict=True)},
            "rest": self.rest.ravel(),
            "sum": lines.sum(axis=1) + self.rest.ravel(),
        }


def contributions(
    network: TwoLayerNetwork, X: ArrayLike, baseline: ArrayLike | None = None
) -> Contributions:
    r"""Split the outputs at each row into a sum over features.

    With the row's own piece :math:`f(x) = W x + c`, feature :math:`i` contributes
    :math:`W_i (x_i - b_i)`, and the rest is :math:`W b + c`. The sum is :math:`f(x)`, exactly.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated network.
    X : array-like, shape (n_samples, n_features)
        Finite raw features.
    baseline : array-like, shape (n_features,), optional
        Values that features are compared with, such as the mean of the training rows;
        zeros by default.

    Returns
    -------
    Contributions
        ``features.sum(axis=-1) + rest`` is ``network.forward(X)``, up to rounding.

    Raises
    ------
    TypeError
        If `network` is an estimator or a pipeline; pass its ``network_``.
    ValueError
        If ``X`` or ``baseline`` has another width than the network, or is not finite.

    Notes
    -----
    This is arithmetic of the model, no claim about causes. It is not SHAP: no feature is left out,
    nothing is averaged over other rows. The rest is the row's piece continued to the baseline, and
    equals :math:`f(b)` only where both lie on one piece, as they do when ``b`` is nearer than the
    row's ``radius``.
    """
    X = checked_rows(network, X)
    zero = np.zeros(X.shape[1], X.dtype)
    base = zero if baseline is None else np.asarray(baseline, np.float64)
    if base.shape != zero.shape or not np.isfinite(base).all():
        raise ValueError(
            f"baseline has shape {base.shape}; expected {zero.shape}, one finite number for each "
            "feature."
        )
    piece = local_linear(network, X)
    features = piece.weights * (X - base.astype(X.dtype))[:, None]
    return Contributions(features, piece.intercept + piece.weights @ base.astype(X.dtype))


def feature_importances(
    network: TwoLayerNetwork, scale: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    r"""Return the share of each feature in the slopes of all neurons.

    .. math::

        I_j \propto s_j \sqrt{\textstyle\sum_i \|\Theta_{2,i}\|^2 \, \Theta_{1,ij}^2
            + \|\Theta_{3,j}\|^2}, \qquad \sum_j I_j = 1 ,

    with the layers of ``TwoLayerNetwork`` and the scale :math:`s_j` of feature :math:`j`. Before
    they are brought to sum 1, these are the group norms of ``FeatureGroupLasso``, over all outputs.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated network.
    scale : ndarray, shape (n_features,), optional
        Units in which to count the features, such as their standard deviations; by default 1.

    Returns
    -------
    ndarray, shape (n_features,)
        At least 0, with sum 1; zeros where no weight differs from zero.

    Raises
    ------
    TypeError
        If `network` is an estimator or a pipeline; pass its ``network_``.
    """
    refuse_estimators(network)
    size = np.square(network.output_weights, dtype=np.float64)
    total = size @ np.square(network.hidden_weights, dtype=np.float64)
    if network.linear_weights is not None:
        total = total + np.square(network.linear_weights, dtype=np.float64).sum(axis=1)
    norms = np.sqrt(total) * (1 if scale is None else scale)
    return norms / (norms.sum() or 1)
