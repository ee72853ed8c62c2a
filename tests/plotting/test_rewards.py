"""Reward margins: their course, and their distribution."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier
from cvxnn.plotting import RewardMarginDisplay
from cvxnn.plotting.rewards import smoothed


@pytest.fixture(scope="module")
def head():
    chosen, rejected = np.random.default_rng(0).standard_normal((2, 20, 3))
    return COALAPreferenceHead(n_patterns=8, random_state=0).fit_pairs(chosen + 1, rejected - 1)


def test_course_of_the_margins(head):
    display = RewardMarginDisplay.from_estimator(head)
    (line,) = display.ax_.lines
    history = head.phase2_history_
    np.testing.assert_array_equal(line.get_xdata(), history["iteration"])
    np.testing.assert_array_equal(line.get_ydata(), history["rewards/margins"])
    assert display.ax_.get_legend() is None


def test_distribution_of_the_margins(legend):
    margins = np.array([-1.0, 0.5, 0.5, 2.0])
    display = RewardMarginDisplay.from_predictions(margins)
    assert sum(bar.get_height() for bar in display.ax_.patches) == 4
    left = min(bar.get_x() for bar in display.ax_.patches)
    right = max(bar.get_x() + bar.get_width() for bar in display.ax_.patches)
    assert (left, right) == pytest.approx((-1, 2))
    assert legend(display) == ["75 % ranked correctly"]
    np.testing.assert_array_equal(display.ax_.lines[0].get_xdata(), [0, 0])
    named = RewardMarginDisplay.from_predictions(margins, label="held out")
    assert legend(named) == ["held out: 75 % ranked correctly"]


def test_margins_or_history():
    for arguments in ({}, {"margins": [1.0], "history": {}}):
        with pytest.raises(ValueError, match="give either margins or history"):
            RewardMarginDisplay(**arguments)
    for margins in ([], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match=r"margins has shape .* expected \(n_pairs,\)"):
            RewardMarginDisplay(margins)


def test_errors():
    with pytest.raises(NotFittedError, match="not fitted yet"):
        RewardMarginDisplay.from_estimator(COALAPreferenceHead())
    with pytest.raises(TypeError, match="ConvexReLUClassifier has no rewards; expected a COALA"):
        RewardMarginDisplay.from_estimator(ConvexReLUClassifier())


def test_the_moving_average_forgets_by_time_not_by_number() -> None:
    at, values = np.array([0.0, 1.0, 3.0, 3.5]), np.array([4.0, 0.0, 2.0, 1.0])
    expected = []
    for i, now in enumerate(at):
        weights = 0.5 ** ((now - at[: i + 1]) / 2.0)
        expected.append(weights @ values[: i + 1] / weights.sum())
    np.testing.assert_allclose(smoothed(at, values, 2.0), expected)
    history = {"seconds": at, "rewards/margins": values}
    display = RewardMarginDisplay(history=history, half_life=2.0).plot()
    faint, line = display.ax_.lines
    np.testing.assert_allclose(faint.get_ydata(), values)
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert display.ax_.get_xlabel() == "seconds of training"
