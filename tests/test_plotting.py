"""Displays draw the numbers they are given; matplotlib stays out until then."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from sklearn.exceptions import NotFittedError

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier
from cvxnn.plotting import ConvergenceDisplay, RewardMarginDisplay

HISTORY = {
    "iteration": [10, 20, 30],
    "time": [0.5, 0.7, 1.5],
    "objective": [3.0, 2.0, 1.9],
    "dual_bound": [-np.inf, 1.0, 1.8],
}


@pytest.fixture(autouse=True)
def no_window():
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    pyplot.close("all")
    matplotlib.use(before)


@pytest.fixture(scope="module")
def head():
    chosen, rejected = np.random.default_rng(0).standard_normal((2, 20, 3))
    return COALAPreferenceHead(n_patterns=8, random_state=0).fit_pairs(chosen + 1, rejected - 1)


def lines(display):
    return {line.get_label(): line.get_xydata().T for line in display.ax_.lines}


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


@pytest.mark.parametrize(("x", "label"), [("time", "time (s)"), ("iteration", "iteration")])
def test_convergence_draws_the_history(x, label):
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


def test_convergence_without_any_bound():
    display = ConvergenceDisplay(HISTORY | {"dual_bound": np.full(3, -np.inf)}).plot()
    assert lines(display)["certified lower bound"].size == 0
    display.figure_.canvas.draw()


def test_convergence_of_an_estimator(head):
    display = ConvergenceDisplay.from_estimator(head, x="iteration")
    np.testing.assert_array_equal(
        lines(display)["network objective"],
        [head.history_["iteration"], head.history_["objective"]],
    )
    display.figure_.canvas.draw()


def test_given_axes_are_used(head):
    figure, axes = pyplot.subplots(1, 3)
    displays = [
        ConvergenceDisplay.from_estimator(head, ax=axes[0]),
        RewardMarginDisplay.from_estimator(head, ax=axes[1]),
        RewardMarginDisplay.from_predictions([1.0, 2.0], ax=axes[2]),
    ]
    for display, ax in zip(displays, axes, strict=True):
        assert display.ax_ is ax
        assert display.figure_ is figure
        assert len(ax.lines) >= 1
    assert pyplot.get_fignums() == [figure.number]


def test_course_of_the_margins(head):
    display = RewardMarginDisplay.from_estimator(head)
    (line,) = display.ax_.lines
    history = head.phase2_history_
    np.testing.assert_array_equal(line.get_xdata(), history["iteration"])
    np.testing.assert_array_equal(line.get_ydata(), history["rewards/margins"])
    assert display.ax_.get_legend() is None


def test_distribution_of_the_margins():
    margins = np.array([-1.0, 0.5, 0.5, 2.0])
    display = RewardMarginDisplay.from_predictions(margins)
    assert sum(bar.get_height() for bar in display.ax_.patches) == 4
    left = min(bar.get_x() for bar in display.ax_.patches)
    right = max(bar.get_x() + bar.get_width() for bar in display.ax_.patches)
    assert (left, right) == pytest.approx((-1, 2))
    assert legend(display) == ["75 % ranked right"]
    np.testing.assert_array_equal(display.ax_.lines[0].get_xdata(), [0, 0])
    named = RewardMarginDisplay.from_predictions(margins, label="held out")
    assert legend(named) == ["held out: 75 % ranked right"]


def test_margins_or_history():
    for arguments in ({}, {"margins": [1.0], "history": HISTORY}):
        with pytest.raises(ValueError, match="give either margins or history"):
            RewardMarginDisplay(**arguments)
    for margins in ([], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match=r"margins has shape .* expected \(n_pairs,\)"):
            RewardMarginDisplay(margins)


def test_errors(head):
    with pytest.raises(ValueError, match="x='epoch'; expected 'time' or 'iteration'"):
        ConvergenceDisplay.from_estimator(head, x="epoch")
    with pytest.raises(NotFittedError, match="not fitted yet"):
        ConvergenceDisplay.from_estimator(ConvexReLUClassifier())
    with pytest.raises(NotFittedError, match="not fitted yet"):
        RewardMarginDisplay.from_estimator(COALAPreferenceHead())
    with pytest.raises(TypeError, match="ConvexReLUClassifier has no rewards; expected a COALA"):
        RewardMarginDisplay.from_estimator(ConvexReLUClassifier())
    assert pyplot.get_fignums() == []


def test_matplotlib_is_imported_when_something_is_drawn():
    code = (
        "import sys\n"
        "from cvxnn.plotting import RewardMarginDisplay\n"
        "display = RewardMarginDisplay([1.0])\n"
        "assert 'matplotlib' not in sys.modules\n"
        "display.plot()\n"
        "assert 'matplotlib' in sys.modules\n"
    )
    environment = {"MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "cvxnn\[plot\]"'):
        ConvergenceDisplay(HISTORY).plot()
