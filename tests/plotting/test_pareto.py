"""Fronts and ways: what is drawn is what was found."""

import numpy as np
import pytest

from cvxnn.joint import (
    CandidateSets,
    JointProblem,
    dpo_objective,
    pareto_front,
    post_train,
    sft_objective,
)
from cvxnn.plotting.pareto import ObjectiveTrajectoryDisplay, ParetoFrontDisplay


def make_problem(d=2):
    rng = np.random.default_rng(0)
    return JointProblem(
        dpo=dpo_objective(*rng.standard_normal((2, 10, d)), beta=1.0, radius=3.0),
        sft=sft_objective(
            CandidateSets.stack(list(rng.standard_normal((8, 3, d)))), [0] * 8, radius=3.0
        ),
    )


PROBLEM = make_problem()
FRONT = pareto_front(PROBLEM, np.linspace(0, 1, 5))
RUN = post_train(PROBLEM, "alright", n_steps=50, n_records=10)


def test_the_front_is_drawn_with_its_ideal_point_and_others(legend):
    display = ParetoFrontDisplay.from_front(FRONT, points={"mine": ([1.0, 2.0], [3.0, 4.0])})
    line, star, mine = (each.get_xydata() for each in display.ax_.lines)
    np.testing.assert_array_equal(line, np.column_stack([FRONT.dpo, FRONT.sft]))
    np.testing.assert_array_equal(star, [PROBLEM.ideal()])
    np.testing.assert_array_equal(mine, [[1, 3], [2, 4]])
    assert legend(display) == ["exact front", "ideal point", "mine"]
    assert display.ax_.get_xlabel() == "DPO objective"
    assert display.figure_ is display.ax_.figure


def test_a_run_through_the_objective_space(legend):
    display = ObjectiveTrajectoryDisplay.from_trajectory(RUN, PROBLEM, label="run")
    way, start, end, star = (each.get_xydata() for each in display.ax_.lines)
    np.testing.assert_array_equal(way, np.column_stack([RUN.dpo, RUN.sft]))
    np.testing.assert_array_equal(start, way[:1])
    np.testing.assert_array_equal(end, way[-1:])
    np.testing.assert_array_equal(star, [PROBLEM.ideal()])
    assert legend(display) == ["run"]


def test_a_run_through_the_parameters():
    display = ObjectiveTrajectoryDisplay.from_trajectory(RUN, PROBLEM, space="parameter")
    np.testing.assert_array_equal(display.ax_.lines[0].get_xydata(), RUN.thetas)
    assert len(display.ax_.collections) == 2  # level lines of both objectives
    assert display.ax_.get_legend() is None


def test_without_a_problem_nothing_is_added_and_axes_may_be_given():
    ax = ParetoFrontDisplay(FRONT).plot().ax_
    before = len(ax.lines)
    display = ObjectiveTrajectoryDisplay(RUN).plot(ax=ax)
    assert display.ax_ is ax
    assert len(ax.lines) == before + 3


def test_bad_input():
    with pytest.raises(ValueError, match="space='time'"):
        ObjectiveTrajectoryDisplay(RUN).plot(space="time")
    wide = make_problem(d=3)
    run = post_train(wide, n_steps=5, n_records=2)
    with pytest.raises(ValueError, match="has 3 parameters; expected 2"):
        ObjectiveTrajectoryDisplay(run).plot(space="parameter")
