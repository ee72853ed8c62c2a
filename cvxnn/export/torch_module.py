"""Export to torch; needs the extra ``llm``."""

from __future__ import annotations

from typing import Any

from cvxnn._extras import require
from cvxnn.export._fitted import FIXED, TRAINED, fitted_network
from cvxnn.network import TwoLayerNetwork

torch: Any = require("torch", extra="llm")


class TorchNetwork(torch.nn.Module):
    """Torch module that computes what a ``TwoLayerNetwork`` computes.

    Parameters
    ----------
    network : TwoLayerNetwork
        Network whose arrays are copied.
    """

    def __init__(self, network: TwoLayerNetwork) -> None:
        super().__init__()
        for name in TRAINED:
            array = getattr(network, name)
            value = None if array is None else torch.nn.Parameter(torch.tensor(array))
            self.register_parameter(name, value)
        self.blocks = network.blocks
        for name in FIXED:
            array = getattr(network, name)
            self.register_buffer(name, None if array is None else torch.tensor(array))

    def forward(self, X: Any) -> Any:
        """Return the outputs of the network.

        Parameters
        ----------
        X : torch.Tensor of shape (..., n_features)
            Raw features, of the dtype of the network.

        Returns
        -------
        torch.Tensor of shape (..., n_outputs)
            Outputs.
        """
        is_open = None if self.gate_index is None else self._open_gates(X)
        outputs = []
        for neurons in self.blocks:
            hidden = X @ self.hidden_weights[neurons].T + self.hidden_bias[neurons]
            if is_open is None:
                hidden = torch.relu(hidden)
            else:
                hidden = torch.where(is_open[..., self.gate_index[neurons]], hidden, 0)
            outputs.append(hidden @ self.output_weights[neurons])
        out = torch.stack(outputs, dim=-1) + self.output_bias
        return out if self.linear_weights is None else out + X @ self.linear_weights

    def _open_gates(self, X: Any) -> Any:
        flat = self.gate_weights.flatten(0, -2), self.gate_bias.flatten()
        is_open = X @ flat[0].T + flat[1] >= 0
        conjunctions = self.gate_bias.ndim == 2
        return is_open.unflatten(-1, self.gate_bias.shape).all(-1) if conjunctions else is_open


def to_torch(estimator: Any) -> Any:
    """Return the network of a fitted estimator as a torch module.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, ConvexReLURegressor or COALAPreferenceHead
        Fitted estimator, or the CV class of one. Of a pipeline, take the last step.

    Returns
    -------
    TorchNetwork
        ``module(X)`` returns the outputs of the network, shape (..., n_outputs), for a tensor of
        raw features, shape (..., n_features), of the dtype of the network. They are the scores of
        ``decision_function`` or the predictions of the regressor, always with the last axis.
        Weights and biases are parameters with the names of ``TwoLayerNetwork``. They are copies:
        training them does not change the estimator. Gates are buffers. The module is on the CPU;
        move it with ``to``.

    Raises
    ------
    TypeError
        If the estimator is of another class; of a pipeline, export the last step.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted; call ``fit`` first.
    """
    return TorchNetwork(fitted_network(estimator))
