"""The plane shows the predictions, the lines where neurons open, and the points."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from sklearn.exceptions import NotFittedError

from cvxnn import ConvexReLUClassifier, ConvexReLURegressor
from cvxnn.explanation import boundaries, open_neurons
from cvxnn.plotting import DecisionRegionDisplay
from cvxnn.plotting.regions import _within

# Features of very different units.
X = np.random.default_rng(0).standard_normal((60, 2)) * [1e-3, 1e4]
SIGN = np.sign(X[:, 0] * X[:, 1])


def classifier(y, **options):
    return ConvexReLUClassifier(n_patterns=8, random_state=0, **options).fit(X, y)


def test_two_classes(legend):
    y = np.where(SIGN > 0, "same", "other")
    model = classifier(y)
    display = DecisionRegionDisplay.from_estimator(model, X, y, grid_resolution=30, margin=0.2)
    fill = display.fill_
    grid = np.column_stack([fill.xx0.ravel(), fill.xx1.ravel()])
    expected = model.predict_proba(grid)[:, 1].reshape(30, 30)
    np.testing.assert_allclose(fill.response, expected)
    assert display.fill_.surface_.get_clim() == (0, 1)
    low, high = X[:, 0].min(), X[:, 0].max()
    room = 0.2 * (high - low)
    np.testing.assert_allclose(display.ax_.get_xlim(), [low - room, high + room])
    np.testing.assert_allclose(display.ax_.get_ylim(), [fill.xx1.min(), fill.xx1.max()])
    for points, name in zip(display.points_, ["other", "same"], strict=True):
        np.testing.assert_array_equal(points.get_offsets(), X[y == name])
    assert legend(display) == ["other", "same"]


@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_the_lines_are_where_neurons_open(formulation):
    model = classifier(SIGN, formulation=formulation)
    display = DecisionRegionDisplay.from_estimator(model, X, SIGN, grid_resolution=10)
    planes = boundaries(model.network_)
    spread = np.abs(planes.weights) @ X.std(axis=0)
    found = set()
    for line in display.lines_:
        ends = line.get_xydata()
        (j,) = np.flatnonzero(
            (np.abs(ends @ planes.weights.T + planes.bias) < 1e-9 * spread).all(axis=0)
        )
        found.add(j)
        # On the two sides of its middle, the neurons of this boundary differ.
        step = 1e-6 * planes.weights[j] * X.var(axis=0) / spread[j]
        sides = open_neurons(model.network_, ends.mean(axis=0) + np.array([step, -step]))
        assert (sides[0] != sides[1])[planes.of_neuron == j].all()
    # Every boundary that separates grid points has its line.
    fill = display.fill_
    grid = np.column_stack([fill.xx0.ravel(), fill.xx1.ravel()])
    above = grid @ planes.weights.T + planes.bias > 0
    assert set(np.flatnonzero(above.any(axis=0) & ~above.all(axis=0))) <= found


def test_more_classes(legend):
    y = np.digitize(X[:, 0], [-5e-4, 5e-4])
    model = classifier(y)
    display = DecisionRegionDisplay.from_estimator(model, X, y, grid_resolution=20)
    assert legend(display) == ["0", "1", "2"]
    colors = [tuple(points.get_facecolor()[0, :3]) for points in display.points_]
    # The points of a class have the colour of its region, at its fullest.
    surface = display.fill_.surface_
    if isinstance(surface, list):
        ends = [part.get_cmap()(1.0)[:3] for part in surface]
    else:  # scikit-learn 1.6
        ends = [surface.to_rgba(k)[:3] for k in range(3)]
    assert len(set(colors)) == 3
    np.testing.assert_allclose(colors, ends)


def test_regression_has_one_scale_for_points_and_plane():
    y = np.abs(X[:, 0]) * 1e3
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, y)
    display = DecisionRegionDisplay.from_estimator(model, X, y, grid_resolution=20)
    (points,) = display.points_
    np.testing.assert_array_equal(points.get_array(), y)
    values = np.concatenate([y, display.fill_.response.ravel()])
    assert points.get_clim() == display.fill_.surface_.get_clim() == (values.min(), values.max())
    assert len(display.figure_.axes) == 2  # the colour bar
    assert display.ax_.get_legend() is None


def test_data_frames_give_names_to_the_axes():
    frame = pd.DataFrame(X, columns=["width", "height"])
    model = ConvexReLUClassifier(n_patterns=8, random_state=0).fit(frame, SIGN)
    display = DecisionRegionDisplay.from_estimator(model, frame, SIGN, grid_resolution=10)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("width", "height")
    bare = DecisionRegionDisplay.from_estimator(classifier(SIGN), X, SIGN, grid_resolution=10)
    assert (bare.ax_.get_xlabel(), bare.ax_.get_ylabel()) == ("feature 0", "feature 1")


def test_many_lines_are_faint_and_quick():
    y = SIGN > 0
    displays = []
    for n_patterns in (8, 400):
        model = ConvexReLUClassifier(
            0.1, n_patterns=n_patterns, formulation="gated", random_state=0
        )
        displays.append(DecisionRegionDisplay.from_estimator(model.fit(X, y), X, y))
        displays[-1].figure_.canvas.draw()
    few, many = (display.lines_[0].get_alpha() for display in displays)
    assert len(displays[1].lines_) > 200
    assert 0.05 < many < few < 1


def test_one_class_may_win_everywhere():
    y = X[:, 1] > -9e3
    model = ConvexReLUClassifier(strength=9, n_patterns=4, formulation="relu", random_state=0)
    with pytest.warns(UserWarning, match="predicts the same for all rows"):
        model.fit(X, y)
    display = DecisionRegionDisplay.from_estimator(model, X, y, grid_resolution=10)
    assert display.fill_.response.min() > 0.5
    assert display.lines_ == []


def test_a_feature_may_be_constant():
    flat = X * [1, 0]
    y = X[:, 0] > 0
    model = ConvexReLUClassifier(n_patterns=8, random_state=0).fit(flat, y)
    display = DecisionRegionDisplay.from_estimator(model, flat, y, grid_resolution=10)
    low, high = display.ax_.get_ylim()
    assert low < 0 < high


@given(seed=st.integers(0, 10**6))
def test_lines_are_cut_at_the_box(seed):
    rng = np.random.default_rng(seed)
    weights, bias = rng.integers(-2, 3, size=(9, 2)).astype(float), rng.integers(-3, 4, size=9)
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 2.0])
    ends = _within(weights, bias, low, high)
    corners = np.array([[-1, 0], [-1, 2], [1, 0], [1, 2]])
    scores = corners @ weights.T + bias
    through = (scores.min(axis=0) < 0) & (scores.max(axis=0) > 0)
    touching = (scores.min(axis=0) <= 0) & (scores.max(axis=0) >= 0) & weights.any(axis=1)
    assert through.sum() <= len(ends) <= touching.sum()
    assert (ends >= low - 1e-12).all()
    assert (ends <= high + 1e-12).all()
    on = np.abs(np.einsum("ei,ji->ej", ends[:, 0], weights) + bias) < 1e-9
    on &= np.abs(np.einsum("ei,ji->ej", ends[:, 1], weights) + bias) < 1e-9
    assert on.any(axis=1).all()
    # Each line that runs through the inside is there, from edge to edge.
    for j in np.flatnonzero(through):
        own = ends[on[:, j]]
        assert (np.linalg.norm(own[:, 0] - own[:, 1], axis=1) > 0.1).any()


def test_errors():
    wide = np.column_stack([X, X[:, :1]])
    with pytest.raises(ValueError, match="X has 3 features; a plane has 2: fit on two columns"):
        DecisionRegionDisplay.from_estimator(ConvexReLUClassifier().fit(wide, SIGN), wide, SIGN)
    model = classifier(SIGN)
    with pytest.raises(ValueError, match=r"y has shape \(59,\); expected \(60,\)"):
        DecisionRegionDisplay.from_estimator(model, X, SIGN[1:])
    with pytest.raises(ValueError, match=r"y holds \[2.0\]; expected the classes \[-1.0, 1.0\]"):
        DecisionRegionDisplay.from_estimator(model, X, np.full(60, 2.0))
    with pytest.raises(ValueError, match=r"margin=-1; expected a number of at least 0"):
        DecisionRegionDisplay.from_estimator(model, X, SIGN, margin=-1)
    two = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, X)
    with pytest.raises(ValueError, match="the network has 2 targets; fit it on one"):
        DecisionRegionDisplay.from_estimator(two, X, X[:, 0])
    with pytest.raises(NotFittedError):
        DecisionRegionDisplay.from_estimator(ConvexReLUClassifier(), X, SIGN)
    assert pyplot.get_fignums() == []
