"""Displays are tested without a window."""

import matplotlib
import pytest
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def no_window():
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    pyplot.close("all")
    matplotlib.use(before)


@pytest.fixture
def legend():
    """Texts of the legend of a display."""
    return lambda display: [text.get_text() for text in display.ax_.get_legend().get_texts()]
