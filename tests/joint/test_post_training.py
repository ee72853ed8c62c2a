"""Strategies of joint training: algorithms, theorems and example of the paper, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from cvxnn.joint import (
    CandidateSets,
    ChoiceObjective,
    JointProblem,
    Trajectory,
    dpo_objective,
    pareto_front,
    post_train,
    sft_objective,
    stop_at_front,
)
from cvxnn.joint.minibatches import MinibatchObjective

D = 4


def make_problem(seed: int = 0, n: int = 40, **constraints: float) -> JointProblem:
    rng = np.random.default_rng(seed)
    sets = [rng.standard_normal((rng.integers(2, 6), D)) for _ in range(n)]
    constraints = constraints or {"radius": 3.0}
    return JointProblem(
        dpo=dpo_objective(*rng.standard_normal((2, n, D)), beta=1.0, **constraints),
        sft=sft_objective(CandidateSets.stack(sets), np.zeros(n, int), **constraints),
    )


def one_by_one(objective: ChoiceObjective, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return value and gradient of each example by a loop."""
    values, gradients = [], []
    for low, high in zip(objective.offsets[:-1], objective.offsets[1:], strict=True):
        rows, shifts = objective.rows[low:high], objective.shifts[low:high]
        odds = np.exp(rows @ theta + shifts)
        values.append(np.log(1 + odds.sum()))
        gradients.append((odds / (1 + odds.sum())) @ rows)
    ridge = float(objective.ridge)
    return np.array(values) + ridge / 2 * theta @ theta, np.array(gradients) + ridge * theta


@pytest.mark.parametrize("batch_size", [1, 5])
def test_gradients_are_those_of_sampled_examples(batch_size: int) -> None:
    """Value and gradient are means over the drawn batch, and every example is drawn."""
    objective = make_problem(ridge=0.1).sft
    theta = np.array([0.3, -1.0, 0.5, 2.0])
    values, gradients = one_by_one(objective, theta)
    source = MinibatchObjective(objective, batch_size, 0.0, (1, 2))
    drawn = []
    for t in (0, 7, 499, 500, 1234, 3):
        source.taken = t
        value, odds, rows = source.forward(theta)
        assert source.taken == t + 1
        chunk, k = divmod(t, 500)
        rng = np.random.default_rng((1, 2, chunk))
        batch = rng.integers(objective.n_choices, size=(500, batch_size))[k]
        drawn.append(batch)
        assert value == pytest.approx(values[batch].mean())
        np.testing.assert_allclose(
            source.backward(odds, rows, theta), gradients[batch].mean(axis=0), atol=1e-12
        )
    assert len(np.unique(drawn)) > 3


def by_hand(
    problem: JointProblem, strategy: str, lam: float, n_steps: int, size: float, every: int = 1
) -> np.ndarray:
    """Follow Algorithms 1 to 3 as printed, with full batches and given coins and optima."""
    theta, radius = np.zeros(D), problem.radius
    coins = np.random.default_rng((int(np.random.default_rng(0).integers(2**62)), 2))
    tosses = coins.random(n_steps) < lam
    f_dpo, f_sft = problem.ideal()
    stale = {}
    for t in range(1, n_steps + 1):
        if strategy == "sequential":
            i = 1 if t <= round(lam * n_steps) else 0
        elif strategy == "alright":
            i = int(tosses[t - 1])
        elif strategy == "maxright":
            if t % every == 0 or t == 1:
                stale[1] = lam * (problem.dpo.value(theta) - f_dpo)
                stale[0] = (1 - lam) * (problem.sft.value(theta) - f_sft)
            i = 1 if stale[1] >= stale[0] else 0
            if i == 1:
                stale[1] = lam * (problem.dpo.value(theta) - f_dpo)
            else:
                stale[0] = (1 - lam) * (problem.sft.value(theta) - f_sft)
        if strategy == "mix":
            g = lam * problem.dpo.gradient(theta) + (1 - lam) * problem.sft.gradient(theta)
        else:
            g = (problem.dpo if i == 1 else problem.sft).gradient(theta)
        theta = theta - size * g
        norm = np.linalg.norm(theta)
        if norm > radius:
            theta = radius * theta / norm
    return theta


@pytest.mark.parametrize(
    ("strategy", "every"),
    [("sequential", 1), ("mix", 1), ("alright", 1), ("maxright", 1), ("maxright", 7)],
)
@pytest.mark.parametrize("radius", [0.4, 20.0])
def test_the_algorithms_as_printed(strategy: str, every: int, radius: float) -> None:
    problem = make_problem(radius=radius)
    run = post_train(
        problem,
        strategy,
        0.3,
        n_steps=100,
        step=3.0,
        batch_size=None,
        max_evaluation_steps=every,
        seed=0,
    )
    expected = by_hand(problem, strategy, 0.3, 100, 3.0 / 10, every)
    np.testing.assert_allclose(run.theta, expected, atol=1e-10)
    assert run.step_size == pytest.approx(0.3)
    assert np.linalg.norm(run.thetas, axis=1).max() <= radius * (1 + 1e-12)
    if strategy == "mix":
        assert (run.n_dpo, run.n_sft) == (100, 100)
    else:
        assert run.n_dpo + run.n_sft == 100  # one gradient a step, no more
    if strategy == "sequential":
        assert run.n_dpo == 30


@pytest.mark.slow
@given(
    st.sampled_from(["sequential", "mix", "alright", "maxright"]),
    st.floats(0, 1),
    st.integers(0, 1000),
    st.sampled_from([None, 1, 8]),
    st.integers(1, 700),
)
@settings(max_examples=25)
def test_same_seed_same_trajectory(
    strategy: str, lam: float, seed: int, batch_size: int | None, n_steps: int
) -> None:
    problem = PROBLEM
    options = {"n_steps": n_steps, "batch_size": batch_size, "step": 0.2}
    first = post_train(problem, strategy, lam, seed=seed, **options)
    again = post_train(problem, strategy, lam, seed=seed, n_records=7, **options)
    np.testing.assert_array_equal(first.theta, again.theta)
    assert first.steps[-1] == again.steps[-1] == n_steps
    dpo, sft = problem.values(first.thetas)
    np.testing.assert_array_equal(first.dpo, dpo)
    np.testing.assert_array_equal(first.sft, sft)
    assert (problem.gap(dpo, sft, lam) >= 0).all()
    assert np.linalg.norm(first.thetas, axis=1).max() <= problem.radius * (1 + 1e-12)


PROBLEM = make_problem()


def test_other_seeds_differ_and_a_generator_moves_on() -> None:
    options = {"n_steps": 50, "step": 2.0}
    thetas = [post_train(PROBLEM, seed=seed, **options).theta for seed in (0, 1)]
    rng = np.random.default_rng(3)
    thetas += [post_train(PROBLEM, seed=rng, **options).theta for _ in range(2)]
    assert len(np.unique(np.round(thetas, 12), axis=0)) == 4


def test_one_objective_only() -> None:
    """At the ends of lambda, ALRIGHT is plain training on one objective."""
    for lam, part in ((1.0, "n_sft"), (0.0, "n_dpo")):
        run = post_train(PROBLEM, "alright", lam, n_steps=2000)
        assert getattr(run, part) == 0
        assert PROBLEM.gap(run.dpo[-1], run.sft[-1], lam) < 0.02


# Table 1, with the reference -10 that equations (30) to (33) stand for; the text says -5.
def theorem_3_3(reference: float = -10.0) -> JointProblem:
    return JointProblem(
        dpo=dpo_objective([[-1.0]], [[-0.5]], reference=[reference], beta=1.0, radius=200.0),
        sft=sft_objective(CandidateSets.stack([[[1.0], [0.5]]]), [0], radius=200.0),
    )


def test_equations_30_to_34() -> None:
    problem, c = theorem_3_3(), np.exp(5)
    theta = np.linspace(-15, 15, 9)
    dpo, sft = problem.values(theta[:, None])
    ratio = (1 + np.exp(theta / 2)) / (1 + np.exp(-theta / 2))
    np.testing.assert_allclose(dpo, np.log(1 + c * ratio))
    np.testing.assert_allclose(sft, np.log(1 + np.exp(-theta / 2)))
    for value, f, g in zip(theta, dpo, sft, strict=True):
        slope = problem.dpo.gradient(np.array([value]))[0]
        assert slope == pytest.approx(expit(value / 2 + 5) / 2)
        slope = problem.sft.gradient(np.array([value]))[0]
        assert slope == pytest.approx(-expit(-value / 2) / 2)
        assert f + g >= np.log(173.77)  # c*, the constant below equation (33)
    # In closed form: (1 + c e^{t/2}) (1 + e^{-t/2}) is least at e^{t/2} = c^{-1/2}.
    assert problem.optimum(0.5).objective == pytest.approx(np.log(1 + np.sqrt(c)), abs=1e-8)
    assert (1 + np.sqrt(c)) ** 2 == pytest.approx(173.78, abs=0.01)
    # The paper prints 0.256843 for this number.
    assert problem.gap(*problem.values([0.0]), 0.5) == pytest.approx(0.271042, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lam", [0.3, *(pytest.param(lam, marks=pytest.mark.slow) for lam in (0.5, 0.7))]
)
def test_theorem_3_3_more_steps_do_not_help_sequential(lam: float) -> None:
    """The gap of sequential training stays above a constant; that of ALRIGHT vanishes."""
    problem = theorem_3_3()
    gaps = {"sequential": [], "alright": []}
    for n_steps in (2000, 20_000):
        for strategy, found in gaps.items():
            run = post_train(
                problem, strategy, lam, n_steps=n_steps, step=3.0, batch_size=None, dpo_share=0.5
            )
            found.append(float(problem.gap(run.dpo[-1], run.sft[-1], lam)))
            if strategy == "sequential":
                assert run.theta[0] > 0  # what the proof shows
    assert min(gaps["sequential"]) > 0.256843 * 2 * min(lam, 1 - lam)
    assert gaps["sequential"][1] > gaps["sequential"][0]
    assert gaps["alright"][1] < 0.01


@pytest.mark.slow
def test_theorem_4_1_rate() -> None:
    """The mean gap of ALRIGHT's last policy falls as fast as log T / sqrt T, and stays below it.

    The bound is (46) with two corrections: its first term is divided by the step, not multiplied,
    and its second moment is the mean of the squares of the mix, not the square of the mean.
    """
    problem, lam, step = make_problem(radius=2.0), 0.5, 1.0
    best = problem.optimum(lam)
    squares = [
        float((rows**2).sum(axis=1).max()) * factor
        for rows, factor in ((problem.dpo.rows, 1), (problem.sft.rows, 1))
    ]
    moment = lam * squares[0] + (1 - lam) * squares[1]
    lengths, means = [100, 400, 1600, 6400], []
    for n_steps in lengths:
        gaps = []
        for seed in range(8):
            run = post_train(
                problem, "alright", lam, n_steps=n_steps, step=step, batch_size=1, seed=seed
            )
            gaps.append(float(problem.gap(run.dpo[-1], run.sft[-1], lam)))
        means.append(np.mean(gaps))
        distance = float(best.weights @ best.weights)
        bound = distance / (2 * step) + (2 + np.log(n_steps)) * moment * step / 2
        assert means[-1] <= bound / np.sqrt(n_steps)
    slope = np.polyfit(np.log(lengths), np.log(means), 1)[0]
    allowed = np.polyfit(np.log(lengths), np.log(np.log(lengths) / np.sqrt(lengths)), 1)[0]
    assert slope <= allowed


def toy(exchanged: bool) -> tuple[JointProblem, dict[str, Trajectory]]:
    """Build the example of Table 2 and Appendix B.1, with the SFT reply as printed or exchanged."""
    start, decay, rate = np.array([5.0, -9.9]), 0.001, 0.01
    reference, difference = start, np.array([0.5, 0.5])
    for _ in range(1000):
        slope = -expit(-reference @ difference) * difference + decay * reference
        reference = reference - rate * slope
    sets = CandidateSets.stack([[[1.0, 0.5], [0.5, 0.5]]])
    problem = JointProblem(
        dpo=dpo_objective([[1, 1]], [[0.5, 0.5]], reference=reference, beta=1.0, radius=100.0),
        sft=sft_objective(sets, [int(exchanged)], radius=100.0),
    )
    runs = {
        strategy: post_train(
            problem,
            strategy,
            0.5,
            n_steps=20_000,
            step=rate * np.sqrt(20_000),
            batch_size=None,
            start=start,
            weight_decay=decay,
            threshold=0.05,
        )
        for strategy in ("sequential", "alright", "maxright")
    }
    return problem, runs


@pytest.mark.slow
def test_the_toy_of_figure_2() -> None:
    problem, runs = toy(exchanged=True)
    distance = {
        name: float(problem.ideal_distance(run.dpo[-1], run.sft[-1])) for name, run in runs.items()
    }
    sequential = runs["sequential"]
    # Stage 1 stops at the threshold, having made SFT worse; stage 2 undoes DPO.
    turn = int(np.argmin(sequential.dpo))
    assert sequential.dpo[turn] < 0.06
    assert sequential.sft[turn] > sequential.sft[0]
    assert sequential.dpo[-1] > sequential.dpo[0]
    assert sequential.n_dpo < 10_000
    assert distance["sequential"] > 4
    assert distance["maxright"] < distance["alright"] < 0.3


@pytest.mark.slow
def test_the_toy_as_printed_forgets_nothing() -> None:
    """Both features favour a larger first coordinate, so that DPO passes both thresholds."""
    problem, runs = toy(exchanged=False)
    run = runs["sequential"]
    assert run.status == "threshold"
    assert run.n_sft == 0
    assert run.dpo[-1] < 0.05
    assert run.sft[-1] < 0.05
    assert float(problem.ideal_distance(run.dpo[-1], run.sft[-1])) < 0.06


@pytest.mark.slow
def test_joint_strategies_end_at_the_front_and_sequential_does_not() -> None:
    problem = make_problem(n=20, ridge=1e-2)
    front, lam = pareto_front(problem), 0.5
    gaps = {}
    for strategy in ("sequential", "mix", "alright", "maxright"):
        run = post_train(problem, strategy, lam, n_steps=5000, batch_size=8)
        gaps[strategy] = float(problem.gap(run.dpo[-1], run.sft[-1], lam))
        if strategy != "sequential":
            assert front.excess(run.dpo[-1], run.sft[-1]) < 0.05
    best = problem.optimum(lam).objective
    assert max(gaps["mix"], gaps["alright"], gaps["maxright"]) < 0.05 * best
    assert gaps["sequential"] > 2 * max(gaps["mix"], gaps["alright"])


def test_order_and_share() -> None:
    for order, kept in (("dpo-sft", "sft"), ("sft-dpo", "dpo")):
        run = post_train(
            PROBLEM, "sequential", n_steps=400, order=order, dpo_share=0.25, batch_size=None
        )
        assert (run.n_dpo, run.n_sft) == (100, 300)
        turn = 100 if order == "dpo-sft" else 300
        assert turn in run.steps  # the boundary is recorded
        last = getattr(run, kept)
        assert last[-1] < last[np.searchsorted(run.steps, turn)]


def test_records_start_and_callback() -> None:
    seen = []

    def stop(t: int, theta: np.ndarray) -> bool:
        seen.append((t, theta.copy()))
        return t >= 40

    run = post_train(
        PROBLEM, "mix", n_steps=100, n_records=10, start=np.full(D, 9.0), callback=stop
    )
    assert run.status == "stopped"
    assert [t for t, _ in seen] == [10, 20, 30, 40]
    np.testing.assert_array_equal(run.steps, [0, 10, 20, 30, 40])
    np.testing.assert_array_equal(run.theta, seen[-1][1])
    assert np.linalg.norm(run.thetas[0]) == pytest.approx(3.0)  # the start, within the ball
    assert 0 < run.runtime < 60


def test_an_interrupt_comes_through() -> None:
    def interrupt(t: int, theta: np.ndarray) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        post_train(PROBLEM, n_steps=100, callback=interrupt)


def test_progress_goes_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvxnn._progress._PRINTED", 0.0)
    post_train(PROBLEM, n_steps=20, n_records=2)
    assert capsys.readouterr() == ("", "")
    post_train(PROBLEM, n_steps=20, n_records=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "alright   20 of 20 steps (100 %)" in err


@pytest.mark.parametrize("strategy", ["sequential", "mix", "alright", "maxright"])
@pytest.mark.parametrize("factor", [20.0, 1e6])
def test_divergence_names_a_step_that_works(strategy: str, factor: float) -> None:
    no_ball = make_problem(ridge=0.5)
    options = {"n_steps": 400, "batch_size": None, "start": np.full(D, 5.0)}
    smoothness = max(no_ball.dpo.smoothness(), no_ball.sft.smoothness())
    with pytest.warns(RuntimeWarning, match="use step=") as caught:
        run = post_train(no_ball, strategy, step=20 * factor / smoothness, **options)
    assert run.status == "diverged"
    assert run.steps[-1] < 400
    good = float(str(caught[0].message).split("step=")[1].split()[0])
    run = post_train(no_ball, strategy, step=good, **options)
    assert run.status == "finished"
    assert no_ball.gap(run.dpo[-1], run.sft[-1], 0.5) < no_ball.gap(run.dpo[0], run.sft[0], 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "both"}, "strategy='both'; expected one of"),
        ({"lam": 1.5}, "lam=1.5"),
        ({"lam": -0.1}, "lam=-0.1"),
        ({"order": "sft"}, "order='sft'"),
        ({"dpo_share": 2}, "dpo_share=2"),
        ({"n_steps": 0}, "n_steps=0; expected an integer of at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"max_evaluation_steps": 0}, "max_evaluation_steps=0"),
        ({"n_records": 0}, "n_records=0"),
        ({"step": 0}, "step=0; expected a number above 0"),
        ({"step": np.nan}, "step=nan"),
        ({"step": "big"}, "step='big'"),
        ({"weight_decay": -1}, "weight_decay=-1"),
        ({"start": np.zeros(D + 1)}, r"start has shape \(5,\); expected \(4,\)"),
        ({"start": np.full(D, np.nan)}, "start is not finite"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        post_train(PROBLEM, **options)


def test_very_different_sizes() -> None:
    rng = np.random.default_rng(0)
    problem = JointProblem(
        dpo=dpo_objective(*rng.standard_normal((2, 3, D)), beta=1.0, ridge=0.05),
        sft=sft_objective(
            CandidateSets.stack(list(rng.standard_normal((500, 9, D)))),
            rng.integers(9, size=500),
            ridge=0.05,
        ),
    )
    run = post_train(problem, "alright", n_steps=3000, batch_size=8)
    assert problem.gap(run.dpo[-1], run.sft[-1], 0.5) < 0.02


def test_batches_of_two_sizes_are_those_of_each_objective() -> None:
    options = {"n_steps": 60, "step": 0.5}
    mixed = post_train(PROBLEM, "mix", 0.4, batch_size=(3, 8), **options)
    theta, size = np.zeros(D), 0.5 / np.sqrt(60)
    entropy = int(np.random.default_rng(0).integers(2**62))
    sources = [
        MinibatchObjective(objective, n, 0.0, (entropy, which))
        for which, (objective, n) in enumerate(((PROBLEM.sft, 8), (PROBLEM.dpo, 3)))
    ]
    for _ in range(60):
        slopes = []
        for source in sources:
            _, odds, rows = source.forward(theta)
            slopes.append(source.backward(odds, rows, theta))
        theta = PROBLEM.dpo.project(theta - size * (0.4 * slopes[1] + 0.6 * slopes[0]))
    np.testing.assert_allclose(mixed.theta, theta, atol=1e-12)
    with pytest.raises(ValueError, match="one number, or two"):
        post_train(PROBLEM, batch_size=(1, 2, 3))


def test_a_run_stops_near_the_front() -> None:
    front = pareto_front(PROBLEM)
    stop, start = stop_at_front(PROBLEM, front, 0.05), np.full(D, 1.4)
    run = post_train(PROBLEM, "alright", start=start, callback=stop)
    assert run.status == "stopped"
    last, before = front.excess(run.dpo[-1:-3:-1], run.sft[-1:-3:-1])
    assert last <= 0.05 < before
    with pytest.raises(ValueError, match="above 0"):
        stop_at_front(PROBLEM, front, 0.0)
