"""The course of a solve: the curves are those of the history."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from cvxnn import ConvexReLUClassifier
from cvxnn.plotting import ConvergenceDisplay

HISTORY = {
    "iteration": [10, 20, 30],
    "time": [0.5, 0.7, 1.5],
    "objective": [3.0, 2.0, 1.9],
    "dual_bound": [-np.inf, 1.0, 1.8],
}


class Fitted(BaseEstimator):
    """As much of a fitted estimator as is needed."""

    history_ = HISTORY

    def fit(self):
        raise AssertionError("a display fits nothing")

    def __sklearn_is_fitted__(self):
        return True


def lines(display):
    return {line.get_label(): line.get_xydata().T for line in display.ax_.lines}


@pytest.mark.parametrize(("x", "label"), [("time", "time (s)"), ("iteration", "iteration")])
def test_the_history_is_drawn(x, label, legend):
    display = ConvergenceDisplay(HISTORY).plot(x=x)
    drawn = lines(display)
    np.testing.assert_array_equal(drawn["network objective"], [HISTORY[x], HISTORY["objective"]])
    # Where no bound was known yet, none is drawn.
    np.testing.assert_array_equal(
        drawn["certified lower bound"], [HISTORY[x][1:], HISTORY["dual_bound"][1:]]
    )
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == (label, "objective")
    assert legend(display) == ["network objective", "certified lower bound"]
    (band,) = display.ax_.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == 1.0
    assert corners[:, 1].max() == 2.0


def test_without_any_bound():
    history = HISTORY | {"dual_bound": np.full(3, -np.inf)}
    display = ConvergenceDisplay(history).plot()
    assert lines(display)["certified lower bound"].size == 0
    display.figure_.canvas.draw()
    display = ConvergenceDisplay(history).plot(kind="gap")
    assert lines(display)["relative duality gap"].size == 0
    display.figure_.canvas.draw()


def test_a_single_measurement_is_seen():
    history = {name: column[-1:] for name, column in HISTORY.items()}
    for points, expected in ((history, "o"), (HISTORY, "None")):
        display = ConvergenceDisplay(points).plot()
        assert [line.get_marker() for line in display.ax_.lines] == [expected, expected]
        assert [line.get_linestyle() for line in display.ax_.lines] == ["-", "-"]


def test_an_estimator_has_its_own_history_drawn():
    X = np.random.default_rng(0).standard_normal((20, 3))
    model = ConvexReLUClassifier(n_patterns=4, random_state=0).fit(X, X[:, 0] > 0)
    display = ConvergenceDisplay.from_estimator(model, x="iteration")
    np.testing.assert_array_equal(
        lines(display)["network objective"],
        [model.history_["iteration"], model.history_["objective"]],
    )
    display.figure_.canvas.draw()


@pytest.mark.parametrize("x", ["time", "iteration"])
def test_the_gap_is_relative_and_on_a_logarithmic_axis(x, legend):
    display = ConvergenceDisplay.from_estimator(Fitted(), x=x, kind="gap")
    assert display.ax_.get_yscale() == "log"
    assert display.ax_.get_ylabel() == "relative duality gap"
    expected = [HISTORY[x][1:], [1 / 2, 0.1 / 1.9]]
    np.testing.assert_allclose(lines(display)["relative duality gap"], expected)
    assert legend(display) == ["relative duality gap"]


def test_a_gap_that_is_not_positive_is_marked_at_the_edge(legend):
    history = HISTORY | {"dual_bound": [1.0, 2.0, 2.5]}
    display = ConvergenceDisplay(history).plot(kind="gap")
    drawn = lines(display)
    np.testing.assert_allclose(drawn["relative duality gap"][1], [2 / 3, np.nan, np.nan])
    np.testing.assert_array_equal(drawn["at or below the bound"][0], [0.7, 1.5])
    (_, marks) = display.ax_.lines
    height = marks.get_transform().transform(marks.get_xydata())[:, 1]
    bottom, top = display.ax_.get_window_extent().intervaly
    assert ((bottom < height) & (height < bottom + 0.1 * (top - bottom))).all()
    assert legend(display) == ["relative duality gap", "at or below the bound"]


def test_errors():
    for kind in ("objective", "gap"):
        with pytest.raises(ValueError, match="x='epoch'; expected 'time' or 'iteration'"):
            ConvergenceDisplay.from_estimator(Fitted(), x="epoch", kind=kind)
    with pytest.raises(ValueError, match="kind='loss'; expected 'objective' or 'gap'"):
        ConvergenceDisplay(HISTORY).plot(kind="loss")
    with pytest.raises(NotFittedError, match="not fitted yet"):
        ConvergenceDisplay.from_estimator(ConvexReLUClassifier())
