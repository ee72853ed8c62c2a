"""Export to JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cvxnn.export._fitted import FIXED, TRAINED, copies, fitted_network


def to_jax(estimator: Any) -> tuple[Callable[[dict[str, Any], Any], Any], dict[str, Any]]:
    """Return the network of a fitted estimator as a pure function for JAX.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, ConvexReLURegressor or a preference head
        Fitted estimator, or the CV class of one. Of a pipeline, take the last step.

    Returns
    -------
    function : callable
        ``function(parameters, X)`` returns the outputs of the network, shape (..., n_outputs), for
        raw features, shape (..., n_features). They are the scores of ``decision_function`` or the
        predictions of the regressor, always with the last axis. The function can be compiled,
        mapped and differentiated in both arguments. Gates are constants in it. Products have full
        precision on every device.
    parameters : dict of ndarray
        Copies of weights and biases, with the names of ``TwoLayerNetwork``. JAX computes in
        float64 only if ``jax_enable_x64`` is set, otherwise in float32.

    Raises
    ------
    TypeError
        If the estimator is of another class; of a pipeline, export the last step.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted; call ``fit`` first.
    """
    network = fitted_network(estimator)
    parameters = copies(network, TRAINED)
    gates, blocks = copies(network, FIXED), network.blocks

    def function(parameters: dict[str, Any], X: Any) -> Any:
        def times(A: Any, B: Any) -> Any:
            return jnp.matmul(A, B, precision="highest")

        first, bias, last = (
            parameters[name] for name in ("hidden_weights", "hidden_bias", "output_weights")
        )
        if gates:
            vectors, offsets = gates["gate_weights"], gates["gate_bias"]
            is_open = times(X, vectors.reshape(-1, vectors.shape[-1]).T) + offsets.ravel() >= 0
            if offsets.ndim == 2:  # conjunctions
                is_open = is_open.reshape(*X.shape[:-1], *offsets.shape).all(axis=-1)
        outputs = []
        for neurons in blocks:
            hidden = times(X, first[neurons].T) + bias[neurons]
            if gates:
                hidden = jnp.where(is_open[..., gates["gate_index"][neurons]], hidden, 0)
            else:
                hidden = jax.nn.relu(hidden)
            outputs.append(times(hidden, last[neurons]))
        out = jnp.stack(outputs, axis=-1) + parameters["output_bias"]
        if "linear_weights" in parameters:
            out += times(X, parameters["linear_weights"])
        return out

    return function, parameters
