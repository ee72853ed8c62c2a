"""The image shows each row's open neurons, sorted as it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from sklearn.linear_model import LinearRegression

from cvxnn import ConvexReLUClassifier, ConvexReLURegressor
from cvxnn.explanation import boundaries, open_neurons
from cvxnn.plotting import ActivationPatternDisplay

X = np.random.default_rng(0).standard_normal((40, 3))
LABELS = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")


@pytest.fixture(scope="module")
def classifier():
    model = ConvexReLUClassifier(0.01, n_patterns=8, formulation="relu", random_state=0)
    return model.fit(X, LABELS)


def test_the_image_holds_the_open_neurons(classifier):
    display = ActivationPatternDisplay.from_estimator(classifier, X, LABELS)
    network = classifier.network_
    active = open_neurons(network, X)
    image = display.image_.get_array()
    np.testing.assert_array_equal(image, active[np.ix_(display.rows_, display.columns_)])
    # A column of largest norm stands first, in standard units of the features.
    norm = np.linalg.norm(network.hidden_weights * X.std(axis=0), axis=1)
    norm *= np.abs(network.output_weights)
    assert (np.diff(norm[display.columns_]) <= 0).all()
    # Rows of one class stand together, and carry its name; a line divides the classes.
    n_other = int((LABELS == "other").sum())
    assert set(LABELS[display.rows_[:n_other]]) == {"other"}
    assert [tick.get_text() for tick in display.ax_.get_yticklabels()] == ["other", "same"]
    np.testing.assert_allclose(display.ax_.get_yticks(), [(n_other - 1) / 2, (39 + n_other) / 2])
    (lines,) = display.ax_.collections
    assert lines.get_segments()[0][0, 1] == n_other - 0.5
    n_regions = len({tuple(row) for row in active.tolist()})
    m = network.n_neurons
    title = f"{m} neurons, {n_regions} distinct regions on 40 rows"
    assert display.ax_.get_title() == title
    assert display.ax_.get_xlabel() == "neurons, by falling norm (dark: open)"


@pytest.mark.slow
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30), m=st.integers(1, 5))
def test_rows_are_sorted_by_target_then_pattern(seed, n, m):
    rng = np.random.default_rng(seed)
    active, y = rng.random((n, m)) < 0.5, rng.integers(3, size=n)
    display = ActivationPatternDisplay(active, y=y, norm=rng.random(m)).plot()
    pyplot.close(display.figure_)
    assert sorted(display.rows_) == list(range(n))
    assert (np.diff(y[display.rows_]) >= 0).all()
    shown = [tuple(row) for row in display.image_.get_array().tolist()]
    for label in range(3):
        of_label = [row for row, k in zip(shown, display.rows_, strict=True) if y[k] == label]
        # Open before closed in the first column, then in the second: equal patterns are adjacent.
        assert of_label == sorted(of_label, reverse=True)


def test_without_targets_and_norms_nothing_is_named():
    active = np.array([[False, True], [True, False]])
    display = ActivationPatternDisplay(active).plot()
    np.testing.assert_array_equal(display.columns_, [0, 1])
    np.testing.assert_array_equal(display.image_.get_array(), active[::-1])
    assert display.ax_.get_xlabel() == "neurons (dark: open)"
    assert display.ax_.get_ylabel() == "rows"
    assert not display.ax_.collections


def test_many_target_values_are_not_groups():
    model = ConvexReLURegressor(0.1, n_patterns=6, random_state=0).fit(X, X[:, 0])
    display = ActivationPatternDisplay.from_estimator(model, X, X[:, 0])
    np.testing.assert_array_equal(display.rows_, np.argsort(X[:, 0]))
    assert display.ax_.get_ylabel() == "rows, by rising target"
    assert not display.ax_.collections


def test_neurons_that_share_a_gate_share_a_column():
    y = np.column_stack([np.abs(X[:, 0]), X[:, 1]])
    model = ConvexReLURegressor(0.01, n_patterns=6, formulation="gated", random_state=0).fit(X, y)
    display = ActivationPatternDisplay.from_estimator(model, X)
    planes = boundaries(model.network_)
    assert len(planes.bias) < model.network_.n_neurons
    is_open = X @ planes.weights.T + planes.bias >= 0
    shown = display.image_.get_array()
    np.testing.assert_array_equal(shown, is_open[np.ix_(display.rows_, display.columns_)])
    assert display.ax_.get_title().startswith(f"{len(planes.bias)} gates, ")


def test_errors(classifier):
    with pytest.raises(TypeError, match=r"LinearRegression has no network_.*pipeline\[-1\]"):
        ActivationPatternDisplay.from_estimator(LinearRegression().fit(X, X[:, 0]), X)
    with pytest.raises(ValueError, match=r"y has shape \(39,\); expected \(40,\)"):
        ActivationPatternDisplay.from_estimator(classifier, X, LABELS[1:])
    with pytest.raises(ValueError, match="X has 2 features"):
        ActivationPatternDisplay.from_estimator(classifier, X[:, :2])
    with pytest.raises(ValueError, match=r"norm has shape \(3,\); expected \(2,\)"):
        ActivationPatternDisplay(np.ones((4, 2)), norm=np.ones(3))
    for active in (np.ones(3), np.ones((3, 0)), np.ones((0, 3))):
        with pytest.raises(ValueError, match="a network without neurons has no patterns"):
            ActivationPatternDisplay(active)
    assert pyplot.get_fignums() == []
