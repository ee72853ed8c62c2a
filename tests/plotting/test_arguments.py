"""All displays take axes, and nothing is imported that a display does not need."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import pyplot

import cvxnn.plotting
from cvxnn import ConvexReLUClassifier
from cvxnn.plotting import (
    ActivationPatternDisplay,
    ConvergenceDisplay,
    DecisionRegionDisplay,
    RegularizationPathDisplay,
    RewardMarginDisplay,
)


def test_displays_draw_on_given_axes_and_make_no_other_figure():
    figure, axes = pyplot.subplots(1, 7)
    X = np.random.default_rng(0).standard_normal((20, 2))
    y = X[:, 0] > 0
    model = ConvexReLUClassifier(n_patterns=4, random_state=0).fit(X, y)
    displays = [
        ConvergenceDisplay.from_estimator(model, ax=axes[0]),
        ConvergenceDisplay.from_estimator(model, kind="gap", ax=axes[1]),
        RewardMarginDisplay(history={"iteration": [1], "rewards/margins": [2]}).plot(ax=axes[2]),
        RewardMarginDisplay.from_predictions([1.0, 2.0], ax=axes[3]),
        ActivationPatternDisplay.from_estimator(model, X, y, ax=axes[4]),
        DecisionRegionDisplay.from_estimator(model, X, y, grid_resolution=5, ax=axes[5]),
        RegularizationPathDisplay([1.0], objective=[2.0]).plot(ax=axes[6]),
    ]
    for display, ax in zip(displays, axes, strict=True):
        assert display.ax_ is ax
        assert display.figure_ is figure
        assert ax.has_data()
    assert pyplot.get_fignums() == [figure.number]


@pytest.mark.slow
def test_displays_load_one_by_one_and_without_jax():
    code = (
        "import sys\n"
        "import cvxnn.plotting\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "cvxnn.plotting.RewardMarginDisplay([1.0]).plot()\n"
        "assert 'matplotlib.pyplot' in sys.modules\n"
        "assert 'cvxnn.plotting.strengths' not in sys.modules\n"
        "assert 'jax' not in sys.modules\n"
    )
    environment = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "cvxnn\[plot\]"'):
        importlib.reload(cvxnn.plotting)


@pytest.mark.parametrize(
    "name", [name for name in cvxnn.plotting.__all__ if name.endswith("Display")]
)
def test_a_guessed_constructor_is_answered_with_those_that_exist(name):
    display = getattr(cvxnn.plotting, name)
    with pytest.raises(AttributeError, match=rf"use {name}.from_\w+\(\w+\) or .*plot\(\)"):
        _ = display.from_result
    with pytest.raises(AttributeError, match=f"{name} has no 'something'$"):
        _ = display.something
