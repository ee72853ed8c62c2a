"""Gates on thresholds: chosen where rules on single features decide, and complete estimators."""

from pathlib import Path

import numpy as np
import pytest

import cvxnn
from cvxnn import ConvexReLUClassifier, ConvexReLURegressor


def rules(dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose target is a step of each of two features, and a rule on both of them."""
    X = np.random.default_rng(0).standard_normal((200, 8))
    y = 2.0 * (X[:, 0] > 0.3) - (X[:, 1] < -0.2) + 3 * ((X[:, 0] > 0) & (X[:, 1] > 0))
    return X.astype(dtype), y.astype(dtype)


def ridges() -> tuple[np.ndarray, np.ndarray]:
    """Rows whose target bends along a direction of all features."""
    X = np.random.default_rng(0).standard_normal((200, 8))
    return X, np.abs(X @ np.ones(8))


def model(**options: object) -> ConvexReLURegressor:
    return ConvexReLURegressor(**{"n_patterns": 64, "random_state": 0, **options})


def test_rows_left_out_choose_between_gates() -> None:
    for data, chosen in ((rules(), "thresholds"), (ridges(), "gaussian")):
        found, named = (model(patterns=p).fit(*data) for p in ("auto", chosen))
        np.testing.assert_array_equal(found.predict(data[0]), named.predict(data[0]))
    # Where nothing can judge, or no threshold can be, gates are Gaussian.
    for options in (
        {"fit_intercept": False},
        {"loss": "huber", "delta": 1.0},
        {"penalty": "neuron"},
    ):
        assert model(**options).fit(*rules()).network_.gate_weights.ndim == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thresholds_make_a_complete_estimator(dtype: type, tmp_path: Path) -> None:
    X, y = rules(dtype)
    found = model().fit(X, y)
    gates = found.network_.gate_weights
    assert gates.dtype == dtype
    assert gates.ndim == 3
    assert ((gates != 0).sum(axis=2) <= 1).all()  # rules on named features
    assert abs(found.gap_) < 1e-2
    program, weights, dual = found.certificate(X, y)
    assert float(program.bound_of(dual)) == pytest.approx(found.dual_bound_, rel=1e-3)
    assert float(program.evaluate(weights).objective) == pytest.approx(found.objective_, rel=1e-3)
    # The patterns of the program, whose rows are sorted, are those of the network of raw features.
    rows = (
        sorted(map(bytes, mask)) for mask in (found.network_.open_gates(X), program.operator.mask)
    )
    assert next(rows) == next(rows)
    order = np.random.default_rng(1).permutation(len(X))
    shuffled = model().fit(X[order], y[order])
    np.testing.assert_array_equal(shuffled.predict(X), found.predict(X))
    cvxnn.save(found, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(
        cvxnn.load(tmp_path / "model.safetensors").predict(X), found.predict(X)
    )
    weighted = model().fit(X, y, sample_weight=np.arange(len(X)) % 3)
    repeated = model().fit(*(np.repeat(part, np.arange(len(X)) % 3, axis=0) for part in (X, y)))
    np.testing.assert_array_equal(weighted.predict(X), repeated.predict(X))


def test_a_warm_start_keeps_the_thresholds_of_the_last_fit() -> None:
    X, y = rules()
    found = model(warm_start=True).fit(X[:150], y[:150])
    before = found.network_.gate_weights
    np.testing.assert_allclose(found.fit(X, y).network_.gate_weights, before, rtol=0.3)
    assert found.set_params(patterns="gaussian").fit(X, y).network_.gate_weights.ndim == 2


def test_thresholds_ask_for_gates_with_offsets() -> None:
    X, y = rules()
    for options in ({"formulation": "relu"}, {"fit_intercept": False}):
        with pytest.raises(ValueError, match="set formulation='gated' and fit_intercept=True"):
            ConvexReLUClassifier(patterns="thresholds", **options).fit(X, y > 1)
