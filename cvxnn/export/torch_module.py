"""Export to torch; needs the extra ``llm``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cvxnn._extras import require
from cvxnn.export._fitted import FIXED, HEADS, TRAINED, fitted_network
from cvxnn.export.carried import check_same, read_description
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


class TorchHead(TorchNetwork):
    """Network of a preference head, which carries the description of its embeddings.

    The description is a part of the state: ``load_state_dict`` refuses that of another one, before
    it changes anything.

    Parameters
    ----------
    network : TwoLayerNetwork
        Network whose arrays are copied.
    embedding : Description or None
        Description of the embeddings that the head was fitted to.

    Attributes
    ----------
    embedding : dict or None
        The description.
    """

    def __init__(self, network: TwoLayerNetwork, embedding: Mapping[str, Any] | None) -> None:
        super().__init__(network)
        self.embedding = None if embedding is None else dict(embedding)

    def get_extra_state(self) -> Any:
        """Return what the state has beside the weights.

        Returns
        -------
        torch.Tensor of shape (n_bytes,), uint8
            The description as JSON: every format of weights holds tensors.
        """
        return torch.tensor([*json.dumps(self.embedding).encode()], dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Take the description of a state that was not refused.

        Parameters
        ----------
        state : torch.Tensor of shape (n_bytes,), uint8
            What `get_extra_state` gave.
        """
        self.embedding = _description_in(state)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state = state_dict.get(f"{prefix}_extra_state")
        if state is not None and self.embedding is not None:
            check_same(self.embedding, _description_in(state))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _description_in(state: Any) -> Any:
    return read_description(bytes(state.tolist()).decode())


def to_torch(estimator: Any) -> Any:
    """Return the network of a fitted estimator as a torch module.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, ConvexReLURegressor or a preference head
        Fitted estimator, or the CV class of one. Of a pipeline, take the last step.

    Returns
    -------
    TorchNetwork or TorchHead
        ``module(X)`` returns the outputs of the network, shape (..., n_outputs), for a tensor of
        raw features, shape (..., n_features), of the dtype of the network. They are the scores of
        ``decision_function`` or the predictions of the regressor, always with the last axis.
        Weights and biases are parameters with the names of ``TwoLayerNetwork``. They are copies:
        training them does not change the estimator. Gates are buffers. The module of a head carries
        the description of its embeddings. The module is on the CPU; move it with ``to``.

    Raises
    ------
    TypeError
        If the estimator is of another class; of a pipeline, export the last step.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted; call ``fit`` first.
    """
    network = fitted_network(estimator)
    if isinstance(estimator, HEADS):
        return TorchHead(network, estimator.embedding)
    return TorchNetwork(network)
