"""Exact Pareto front: comparison with CVXPY, certificates, and measures of distance."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cvxnn.joint.problem
from cvxnn.joint import (
    CandidateSets,
    JointProblem,
    balanced_optimum,
    dpo_objective,
    pareto_front,
    reference_front,
    sft_objective,
)

D = 4
BETA = 0.8


def data(seed: int = 0) -> dict[str, np.ndarray | list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {
        "sets": [rng.standard_normal((rng.integers(2, 5), D)) for _ in range(12)],
        "chosen": rng.standard_normal((15, D)),
        "rejected": rng.standard_normal((15, D)),
        "reference": rng.standard_normal(D),
    }


def problem_of(seed: int = 0, **constraints: float) -> JointProblem:
    given = data(seed)
    tol = constraints.pop("tol", 1e-8)
    return JointProblem(
        dpo=dpo_objective(
            given["chosen"],
            given["rejected"],
            reference=given["reference"],
            beta=BETA,
            **constraints,
        ),
        sft=sft_objective(CandidateSets.stack(given["sets"]), np.zeros(12, int), **constraints),
        tol=tol,
    )


def by_cvxpy(lam: float, *, ridge: float = 0.0, radius: float = np.inf) -> float:
    """Return the optimum of the mix, written from the equations of the paper."""
    given = data()
    theta = cp.Variable(D)
    sft = 0
    for features in given["sets"]:
        sft += (cp.log_sum_exp(features @ theta) - features[0] @ theta) / 12
    h = BETA * (given["chosen"] - given["rejected"]) @ (theta - given["reference"])
    dpo = cp.sum(cp.logistic(-h)) / 15
    objective = lam * dpo + (1 - lam) * sft + ridge / 2 * cp.sum_squares(theta)
    constraints = [cp.norm(theta) <= radius] if radius < np.inf else []
    return cp.Problem(cp.Minimize(objective), constraints).solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "constraints",
    [{"ridge": 0.01}, {"radius": 1.0}, {"radius": 20.0}, {"ridge": 0.3, "radius": 0.5}],
)
def test_optima_are_those_of_cvxpy(lam: float, constraints: dict[str, float]) -> None:
    found = problem_of(**constraints).optimum(lam)
    expected = by_cvxpy(lam, **constraints)
    assert found.objective == pytest.approx(expected, abs=1e-6)
    assert found.dual_bound <= expected + 1e-6
    assert found.objective - found.dual_bound <= 1e-8


def test_the_front_is_convex_certified_and_warm_started() -> None:
    problem = problem_of(ridge=0.01)
    front = pareto_front(problem)
    assert len(front.lambdas) == 21
    assert (front.objective - front.bound <= 1e-8).all()
    mixed = front.lambdas * front.dpo + (1 - front.lambdas) * front.sft
    np.testing.assert_allclose(mixed, front.objective)
    assert (np.diff(front.dpo) < 0).all()
    assert (np.diff(front.sft) > 0).all()
    slopes = np.diff(front.sft) / np.diff(front.dpo)
    assert (np.diff(slopes) <= 0).all()  # ever steeper, the lower DPO is
    warm = [problem.optimum(float(lam)).n_iter for lam in front.lambdas[1:]]
    cold = [problem_of(ridge=0.01).optimum(float(lam)).n_iter for lam in front.lambdas[1:]]
    assert sum(warm) < sum(cold)


@given(st.integers(0, 10**6), st.floats(0.01, 5))
@settings(max_examples=15)
def test_no_policy_is_below_the_front(seed: int, scale: float) -> None:
    problem = problem_of(seed, radius=3.0)
    front = pareto_front(problem, [0, 0.25, 0.5, 0.75, 1])
    theta = scale * np.random.default_rng(seed + 1).standard_normal((10, D))
    thetas = [problem.dpo.project(each) for each in theta]
    dpo, sft = problem.values(thetas)
    for lam in front.lambdas:
        assert (problem.gap(dpo, sft, lam) >= 0).all()
    assert (front.excess(dpo, sft) >= -1e-8).all()
    assert (problem.ideal_distance(dpo, sft) >= 0).all()
    np.testing.assert_allclose(front.excess(front.dpo, front.sft), 0, atol=1e-7)


def test_excess_is_the_scale_at_which_the_front_is_met() -> None:
    front = pareto_front(problem_of(ridge=0.01), np.linspace(0, 1, 201))
    scaled = front.excess(1.25 * front.dpo, 1.25 * front.sft)
    np.testing.assert_allclose(scaled, 0.25, atol=1e-7)


def test_distances_of_equations_6_and_13() -> None:
    problem = problem_of(ridge=0.01)
    best = problem.ideal()
    assert problem.gap(best[0] + 2, best[1] + 7, 1) == pytest.approx(2, abs=1e-7)
    assert problem.gap(best[0] + 2, best[1] + 7, 0) == pytest.approx(7, abs=1e-7)
    assert problem.ideal_distance(best[0] + 3, best[1] + 4) == pytest.approx(5)
    assert problem.max_gap(best[0] + 3, best[1] + 4, 0.25) == pytest.approx(3.0)
    dpo, sft = problem.values(np.zeros((2, D)))
    assert dpo.shape == (2,)
    assert sft[0] == pytest.approx(np.mean([np.log(len(each)) for each in data()["sets"]]))


@pytest.mark.parametrize("lam", [0.01, 0.5, 0.9])
def test_the_balanced_optimum_is_that_of_cvxpy(lam: float) -> None:
    problem = problem_of(radius=2.0)
    found = balanced_optimum(problem, lam)
    given, theta, level = data(), cp.Variable(D), cp.Variable()
    sft = 0
    for features in given["sets"]:
        sft += (cp.log_sum_exp(features @ theta) - features[0] @ theta) / 12
    h = BETA * (given["chosen"] - given["rejected"]) @ (theta - given["reference"])
    dpo = cp.sum(cp.logistic(-h)) / 15
    best = problem.ideal()
    limits = [lam * (dpo - best[0]) <= level, (1 - lam) * (sft - best[1]) <= level]
    expected = cp.Problem(cp.Minimize(level), [*limits, cp.norm(theta) <= 2]).solve(
        solver=cp.CLARABEL
    )
    assert found.objective == pytest.approx(expected, abs=2e-6)
    assert found.bound <= found.objective <= found.bound + 1e-6
    dpo, sft = problem.values(found.theta)
    assert problem.max_gap(dpo, sft, lam) == pytest.approx(found.objective)


def test_optima_are_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(ridge=0.01)
    first = problem.optimum(0.5)
    monkeypatch.setattr(cvxnn.joint.problem, "solve", None)
    assert problem.optimum(0.5) is first


@pytest.mark.slow
def test_many_features_are_left_to_accelerated_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = problem_of(ridge=0.05).optimum(0.5).objective
    monkeypatch.setattr(cvxnn.joint.problem, "_NEWTON_UP_TO", D - 1)
    found = problem_of(ridge=0.05).optimum(0.5)
    assert "n_restarts" in found.history
    assert found.objective == pytest.approx(expected, abs=1e-7)


def test_very_different_sizes() -> None:
    rng = np.random.default_rng(0)
    problem = JointProblem(
        dpo=dpo_objective(*rng.standard_normal((2, 2000, D)), ridge=1e-3),
        sft=sft_objective(CandidateSets.stack([rng.standard_normal((300, D))]), [0], ridge=1e-3),
    )
    assert problem.optimum(0.5).objective - problem.optimum(0.5).dual_bound <= 1e-8


def test_bad_problems() -> None:
    with pytest.raises(ValueError, match="neither ridge nor radius"):
        problem_of()
    good = problem_of(ridge=0.1)
    with pytest.raises(ValueError, match="differ in ridge"):
        JointProblem(good.dpo, problem_of(ridge=0.2).sft)
    for call in (good.optimum, good.mix):
        with pytest.raises(ValueError, match="lam=2"):
            call(2.0)
    with pytest.raises(ValueError, match="lambdas is empty"):
        pareto_front(good, [])
    with pytest.raises(ValueError, match="lam=0"):
        balanced_optimum(good, 0)
    with pytest.raises(RuntimeError, match="raise ridge, lower radius or raise tol"):
        problem_of(ridge=1e-9, tol=1e-30).optimum(0.5)


def test_front_of_measured_objectives_measures_as_the_exact_one() -> None:
    exact = pareto_front(problem_of(ridge=1e-3), [0.0, 0.3, 0.8, 1.0])
    order = [2, 0, 3, 1]
    front = reference_front(exact.lambdas[order], exact.dpo[order], exact.sft[order])
    for dpo, sft in ((0.7, 1.4), (float(exact.dpo[1]), float(exact.sft[1])), (0.4, 0.4)):
        by_hand = min(
            (lam * dpo + (1 - lam) * sft) / (lam * a + (1 - lam) * b) - 1
            for lam, a, b in zip(exact.lambdas, exact.dpo, exact.sft, strict=True)
        )
        assert front.excess(dpo, sft) == pytest.approx(by_hand, abs=1e-12)
    assert front.ideal == (exact.dpo.min(), exact.sft.min())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([], [], []), "at least 1"),
        (([0.5], [1.0, 2.0], [1.0]), "one length"),
        (([1.5], [1.0], [1.0]), "in \\[0, 1\\]"),
        (([0.5], [0.0], [1.0]), "above 0"),
        (([0.5], [float("nan")], [1.0]), "above 0"),
    ],
)
def test_front_of_what_are_no_objectives(given: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reference_front(*given)
