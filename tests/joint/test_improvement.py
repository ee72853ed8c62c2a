"""Improvements over a baseline, with the figures of the paper."""

import pytest

from cvxnn.joint import delta_m, percentage_increase


def test_relative_resources_and_delta_m() -> None:
    assert percentage_increase(3.0, 2.0) == pytest.approx(50)
    with pytest.raises(ValueError, match="baseline=0"):
        percentage_increase(1.0, 0)
    # Table 3, column II: the paper's figures for Mix, ALRIGHT and MAXRIGHT against Sequential.
    baseline = {"mmlu": 0.584, "hellaswag": 0.602, "sorry": 0.758, "xstest": 0.912}
    for scores, expected in (
        ((0.725, 0.619, 0.279, 0.852), 0.209),
        ((0.720, 0.617, 0.191, 0.832), 0.229),
        ((0.748, 0.616, 0.289, 0.820), 0.205),
    ):
        found = delta_m(dict(zip(baseline, scores, strict=True)), baseline, {"sorry"})
        assert found == pytest.approx(100 * expected, abs=0.1)
    with pytest.raises(ValueError, match="expected the same metrics"):
        delta_m({"a": 1.0}, {"b": 1.0})
    with pytest.raises(ValueError, match="is 0"):
        delta_m({"a": 1.0}, {"a": 0.0})
