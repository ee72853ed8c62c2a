"""Reward margins: their course, and their distribution."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier
from cvxnn.plotting import RewardMarginDisplay


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
