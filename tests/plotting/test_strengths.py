"""Paths and scores against the strength: the lines hold the numbers they are given."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot
from sklearn.exceptions import NotFittedError

from cvxnn import ConvexReLUClassifier
from cvxnn.convex import (
    ConvexProgram,
    GatedOperator,
    RegularizationPath,
    Weights,
    add_bias,
    regularization_path,
    sample_patterns,
)
from cvxnn.plotting import RegularizationPathDisplay


def make_path(alphas, norms, **columns):
    """Path of one-feature blocks with given norms (n_alphas, n_patterns)."""
    results = [
        SimpleNamespace(
            weights=Weights(-np.array(row, float)[None, None, :, None]),
            objective=a + 1,
            dual_bound=a,
        )
        for a, row in zip(alphas, norms, strict=True)
    ]
    return RegularizationPath(np.array(alphas, float), results)


ALPHAS = [1.0, 0.1, 0.01]
PATH = make_path(ALPHAS, [[0, 0, 0], [2, 0, 1e-9], [3, 1, 1e-9]])


def test_norms_of_the_neurons_that_are_ever_active():
    display = RegularizationPathDisplay.from_path(PATH)
    first, second = display.ax_.lines
    np.testing.assert_array_equal(first.get_xydata().T, [ALPHAS, [0, 2, 3]])
    np.testing.assert_array_equal(second.get_ydata(), [0, 0, 1])
    assert tuple(first.get_color()) != tuple(second.get_color())
    assert display.ax_.get_ylabel() == "norms of the neurons"


def test_number_of_active_neurons():
    display = RegularizationPathDisplay.from_path(PATH, kind="active")
    (line,) = display.ax_.lines
    np.testing.assert_array_equal(line.get_ydata(), [0, 1, 2])


def test_objective_and_bound(legend):
    display = RegularizationPathDisplay.from_path(PATH, kind="objective")
    objective, bound = display.ax_.lines
    np.testing.assert_allclose(objective.get_ydata(), [2, 1.1, 1.01])
    np.testing.assert_array_equal(bound.get_ydata(), ALPHAS)
    assert legend(display) == ["objective", "certified lower bound"]


def test_the_strength_falls_to_the_right_and_zero_is_left_out():
    path = make_path([0.0, 0.1, 1.0], [[5], [2], [0]])
    for kind in ("norms", "active", "objective"):
        display = RegularizationPathDisplay.from_path(path, kind=kind)
        ax = display.ax_
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1.0, 0.1])
        assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "alpha")
        assert ax.xaxis_inverted()
    # A second display on the same axes does not turn them back.
    assert RegularizationPathDisplay.from_path(path, ax=ax).ax_.xaxis_inverted()


def test_a_real_path_with_a_skip_connection():
    rng = np.random.default_rng(0)
    X = add_bias(rng.standard_normal((30, 2)))
    found = sample_patterns(X, 4, random_state=0)
    program = ConvexProgram(GatedOperator(X, found.mask), np.abs(X[:, :1]), 1.0, skip=0.1)
    path = regularization_path(program, n_alphas=3, eps=0.1)
    display = RegularizationPathDisplay.from_path(path)
    blocks = np.array([result.weights.blocks for result in path.results])
    assert display.norms.shape == (3, 2 * len(found))
    np.testing.assert_allclose(
        display.norms.sum(axis=1), np.sqrt((blocks**2).sum(-1)).sum((1, 2, 3))
    )


def test_scores_of_a_cross_validation(legend):
    scores = np.array([[0.1, 0.5, 0.3], [0.3, 0.7, 0.4]])
    model = SimpleNamespace(strengths_=[0.01, 1.0, 0.1], cv_scores_=scores, strength_=1.0)
    display = RegularizationPathDisplay.from_estimator(model)
    mean, chosen = display.ax_.lines
    np.testing.assert_allclose(mean.get_xydata().T, [[1.0, 0.1, 0.01], [0.6, 0.35, 0.2]])
    np.testing.assert_array_equal(chosen.get_xdata(), [1.0, 1.0])
    (band,) = display.ax_.collections
    corners = band.get_paths()[0].vertices
    # The standard error of two numbers is half their distance.
    assert corners[:, 1].max() == pytest.approx(0.7)
    assert corners[:, 1].min() == pytest.approx(0.1)
    assert legend(display) == ["mean of 2 folds", "± standard error", "chosen: 1"]


def test_one_fold_has_no_standard_error(legend):
    model = SimpleNamespace(strengths_=[1.0, 0.1], cv_scores_=np.array([[0.1, 0.2]]), strength_=0.1)
    display = RegularizationPathDisplay.from_estimator(model)
    assert legend(display) == ["mean of 1 fold", "chosen: 0.1"]


def test_plot_draws_what_there_is():
    display = RegularizationPathDisplay([1.0, 0.1], objective=[2.0, 1.0]).plot()
    assert display.ax_.get_ylabel() == "objective"
    assert len(display.ax_.lines) == 1


def test_errors():
    with pytest.raises(NotFittedError):
        RegularizationPathDisplay.from_estimator(ConvexReLUClassifier())
    X = np.arange(8.0).reshape(4, 2)
    with pytest.warns(UserWarning, match="was fitted to 4 rows"):
        model = ConvexReLUClassifier(n_patterns=2, random_state=0).fit(X, [0, 1, 0, 1])
    with pytest.raises(TypeError, match="ConvexReLUClassifier has no strengths_ and cv_scores_"):
        RegularizationPathDisplay.from_estimator(model)
    with pytest.raises(ValueError, match="kind='score'; expected 'norms' or 'active' or"):
        RegularizationPathDisplay.from_path(PATH, kind="score")
    with pytest.raises(ValueError, match="there is nothing to draw"):
        RegularizationPathDisplay([1.0]).plot()
    with pytest.raises(ValueError, match=r"scores has shape \(3, 2\); expected \(any, 3\)"):
        RegularizationPathDisplay(ALPHAS, scores=np.zeros((3, 2)))
    for strengths in ([], [0.0], [[1.0]]):
        with pytest.raises(ValueError, match=r"strengths has shape .*; expected \(n_strengths,\)"):
            RegularizationPathDisplay(strengths, objective=strengths)
    assert pyplot.get_fignums() == []
