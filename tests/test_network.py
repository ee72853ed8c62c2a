"""Recovery of the network: the same predictions, the same objective."""

import tracemalloc
from dataclasses import fields
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn import network
from cvxnn.convex import GatedOperator, Weights, add_bias
from cvxnn.numerics.jax_import import precision


def weights(seed: int = 0, C: int = 2, P: int = 5, d: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((C, 2, P, d)) * rng.exponential(size=(C, 2, P, 1))
    U[rng.random((C, 2, P)) < 0.3] = 0
    return U


def naive_forward(net: network.TwoLayerNetwork, X: np.ndarray) -> np.ndarray:
    out = np.zeros((len(X), net.n_outputs))
    for k, c in np.ndindex(*out.shape):
        out[k, c] = net.output_bias[c]
        for j in range(net.n_neurons):
            score = sum(net.hidden_weights[j] * X[k]) + net.hidden_bias[j]
            is_open = score > 0
            if net.gate_weights is not None and net.gate_bias is not None:
                g = j if net.gate_index is None else net.gate_index[j]
                is_open = True
                for vector, offset in zip(
                    np.atleast_2d(net.gate_weights[g]), np.atleast_1d(net.gate_bias[g]), strict=True
                ):
                    is_open = is_open and sum(vector * X[k]) + offset >= 0
            fed = 0 if net.output_index is None else net.output_index[j]
            out[k, c] += is_open * score * net.output_weights[j] * (fed == c)
        if net.linear_weights is not None:
            out[k, c] += sum(net.linear_weights[:, c] * X[k])
    return out


def recovered(
    seed: int = 0, *, gated: int = False, skip: bool = False, bias: bool = True, P: int = 5
) -> tuple[network.TwoLayerNetwork, Weights, np.ndarray]:
    """A network of any kind, its weights in the program, and the gates of these.

    With ``gated=2``, a gate is a conjunction of two vectors.
    """
    rng = np.random.default_rng(seed + 1)
    U = weights(seed, P=P)[:, : 1 if gated else 2]
    linear = rng.standard_normal((len(U), U.shape[-1])) if skip else None
    gates = rng.standard_normal((P, *([gated] if gated > 1 else []), U.shape[-1]))
    net = network.recover(Weights(U, linear), bias=bias, gates=gates if gated else None)
    return net, Weights(U, linear), gates


KINDS = [(gated, skip) for gated in (False, True, 2) for skip in (False, True)]


@given(seed=st.integers(0, 10**6), bias=st.booleans())
def test_weight_decay_equals_the_sum_of_block_norms(seed: int, bias: bool) -> None:
    U = weights(seed)
    net = network.recover(Weights(U), bias=bias)
    parts = (net.hidden_weights, net.hidden_bias, net.output_weights)
    decay = sum((part**2).sum() for part in parts) / 2
    assert decay == pytest.approx(np.linalg.norm(U, axis=-1).sum())


def test_every_neuron_is_balanced_and_feeds_one_output() -> None:
    net = network.recover(Weights(weights()))
    first = np.sqrt((net.hidden_weights**2).sum(axis=1) + net.hidden_bias**2)
    np.testing.assert_allclose(first, np.abs(net.output_weights))
    assert net.output_index is not None
    assert (np.diff(net.output_index) >= 0).all()
    number = [block.stop - block.start for block in net.blocks]
    assert number == np.bincount(net.output_index, minlength=2).tolist()


@pytest.mark.parametrize("bias", [False, True])
def test_forward_is_the_operators_network(dtype: type, bias: bool) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((6, 4 - bias)).astype(dtype)
    U = weights().astype(dtype)
    wide = add_bias(X) if bias else X
    with precision(dtype):
        operator = GatedOperator(jnp.asarray(wide), jnp.zeros((6, 5), bool))
        expected = np.asarray(operator.network_forward(jnp.asarray(U)))
    net = network.recover(Weights(U), bias=bias)
    actual = net.forward(X)
    assert actual.dtype == dtype
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(actual, naive_forward(net, X), rtol=rtol, atol=rtol)


def test_zero_blocks_are_dropped() -> None:
    U = weights()
    net = network.recover(Weights(U))
    assert net.n_neurons == (np.linalg.norm(U, axis=-1) > 0).sum() < U[..., 0].size


def test_tol_drops_blocks_relative_to_the_largest() -> None:
    U = np.zeros((1, 2, 2, 3))
    U[0, 0, 0, 0], U[0, 0, 1, 0], U[0, 1, 0, 0] = 10, 1, 1.5
    assert network.recover(Weights(U), tol=0.1).n_neurons == 2
    assert network.recover(Weights(U), tol=0.0).n_neurons == 3


def test_zero_weights_give_a_network_without_neurons() -> None:
    net = network.recover(Weights(np.zeros((2, 2, 3, 4))))
    assert (net.n_neurons, net.n_outputs) == (0, 2)
    np.testing.assert_array_equal(net.forward(np.ones((5, 3))), np.zeros((5, 2)))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).standard_normal((11, 3))
    net = network.recover(Weights(weights()))
    products = net.hidden(X) * net.output_weights
    direct = np.stack([products[:, net.output_index == c].sum(axis=1) for c in (0, 1)], axis=1)
    np.testing.assert_allclose(net.forward(X), direct + net.output_bias, rtol=1e-13)
    sizes = []
    activations = network.TwoLayerNetwork._activations

    def spy(self: Any, rows: np.ndarray, *rest: Any) -> np.ndarray:
        sizes.append(len(rows))
        return activations(self, rows, *rest)

    monkeypatch.setattr(network.TwoLayerNetwork, "_activations", spy)
    widest = max(block.stop - block.start for block in net.blocks)
    monkeypatch.setattr(network, "_CHUNK_NUMBERS", 3 * widest)
    np.testing.assert_allclose(net.forward(X), direct + net.output_bias, rtol=1e-13)
    assert sizes == [3, 3, 3, 3, 3, 3, 2, 2]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("C", [1, 3, 200])
def test_predictions_cost_what_the_blocks_cost(gated: bool, C: int) -> None:
    P, d, n = 16, 5, 40
    rng = np.random.default_rng(0)
    blocks = rng.standard_normal((C, 1 if gated else 2, P, d + 1))
    gates = rng.standard_normal((P, d + 1)) if gated else None
    tracemalloc.start()
    net = network.recover(Weights(blocks), gates=gates)
    folded = network.fold_scaling(net, np.zeros(d), np.ones(d), np.zeros(C), np.ones(C))
    out = folded.forward(rng.standard_normal((n, d)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert out.shape == (n, C)
    # A few copies of the weights and the predictions, and no matrix of neurons by outputs.
    assert peak < 6 * blocks.nbytes + 8 * (n * (C + 8 * P) + 8 * P * d) + 2**16
    numbers = sum(
        getattr(net, part.name).size for part in fields(net) if getattr(net, part.name) is not None
    )
    assert numbers <= (P * (d + 1) if gated else 0) + blocks.size + 3 * len(net.hidden_bias) + C


def test_each_output_is_a_network_of_its_own() -> None:
    X = np.random.default_rng(0).standard_normal((9, 3))
    blocks = weights(3, C=4)
    blocks[1] = 0  # no neuron feeds it
    net = network.recover(Weights(blocks))
    alone = [network.recover(Weights(block[None])).forward(X)[:, 0] for block in blocks]
    np.testing.assert_allclose(net.forward(X), np.stack(alone, axis=1), atol=1e-12)


def test_forward_of_no_rows_is_empty() -> None:
    assert network.recover(Weights(weights())).forward(np.zeros((0, 3))).shape == (0, 2)


def test_hidden_does_not_change_its_input() -> None:
    X = np.random.default_rng(0).standard_normal((4, 3))
    before = X.copy()
    network.recover(Weights(weights())).forward(X)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("few_rows", [1, 64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("gated", "skip"), KINDS)
def test_every_kind_predicts_what_its_program_does(
    gated: int, skip: bool, bias: bool, few_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_FEW_ROWS", few_rows)
    net, (blocks, linear), gates = recovered(gated=gated, skip=skip, bias=bias)
    X = np.random.default_rng(1).standard_normal((7, 4 - bias))
    wide = add_bias(X) if bias else X
    mask = (np.einsum("ki,b...i->kb...", wide, gates) >= 0).reshape(7, 5, -1).all(axis=-1)
    scores = np.einsum("ki,cbji->kcbj", wide, blocks)
    if gated:
        expected = (scores[:, :, 0] * mask[:, None]).sum(axis=-1)
    else:
        hidden = np.maximum(scores, 0).sum(axis=-1)
        expected = hidden[..., 0] - hidden[..., 1]
    if skip:
        expected = expected + wide @ linear.T
    np.testing.assert_allclose(net.forward(X), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(net.forward(X), naive_forward(net, X), rtol=1e-12, atol=1e-12)
    assert (net.gate_weights is not None) == (net.gate_bias is not None) == bool(gated)
    assert (net.linear_weights is not None) == skip
    assert net.n_neurons == (np.linalg.norm(blocks, axis=-1) > 0).sum()


def test_gated_neurons_may_be_negative_and_relu_ones_not() -> None:
    X = np.random.default_rng(1).standard_normal((50, 3))
    assert recovered(gated=True)[0].hidden(X).min() < 0
    assert recovered()[0].hidden(X).min() == 0


def test_the_skip_connection_is_no_neuron() -> None:
    linear = np.random.default_rng(0).standard_normal((2, 4))
    net = network.recover(Weights(np.zeros((2, 2, 3, 4)), linear))
    assert net.n_neurons == 0
    X = np.random.default_rng(1).standard_normal((5, 3))
    expected = add_bias(X) @ linear.T
    np.testing.assert_allclose(net.forward(X), expected, rtol=1e-12)
    # Its weight on the column of ones is the output bias.
    np.testing.assert_allclose(net.forward(np.zeros((1, 3)))[0], net.output_bias)
    assert net.output_bias.all()


@pytest.mark.parametrize(("n_signs", "gates"), [(1, None), (2, np.ones((5, 4)))])
def test_gates_belong_to_one_sign(n_signs: int, gates: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match=rf"{n_signs} sign.*gates for the gated formulation"):
        network.recover(Weights(weights()[:, :n_signs]), gates=gates)


@pytest.mark.parametrize(("gated", "skip"), KINDS)
@given(seed=st.integers(0, 10**6))
def test_folding_the_scaling_keeps_predictions(gated: int, skip: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((6, 3))
    x_mean, x_scale = rng.standard_normal(3), rng.exponential(size=3) + 0.1
    y_mean, y_scale = rng.standard_normal(2), rng.exponential(size=2) + 0.1
    net = recovered(seed, gated=gated, skip=skip)[0]
    folded = network.fold_scaling(net, x_mean, x_scale, y_mean, y_scale)
    expected = net.forward((X - x_mean) / x_scale) * y_scale + y_mean
    np.testing.assert_allclose(folded.forward(X), expected, rtol=1e-9, atol=1e-9)


def test_weights_whose_squares_overflow() -> None:
    blocks = np.full((1, 2, 1, 3), 1e25, np.float32)
    net = network.recover(Weights(blocks), bias=False)
    np.testing.assert_allclose(
        net.hidden_weights * net.output_weights[:, None], [[1e25] * 3, [-1e25] * 3], rtol=1e-6
    )
