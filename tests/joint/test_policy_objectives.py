"""Objectives of the softmax policy: equations, gradients, convexity, counterexamples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cvxnn.preference
from cvxnn.joint import (
    CandidateSets,
    ChoiceObjective,
    bradley_terry_objective,
    dpo_objective,
    mix_objective,
    orpo_objectives,
    sft_objective,
)
from cvxnn.numerics.jax_import import precision

D = 3
SIZES = (2, 5, 3, 4)
seeds = st.integers(0, 10**6)


def candidates(seed: int = 0) -> tuple[CandidateSets, np.ndarray]:
    rng = np.random.default_rng(seed)
    sets = CandidateSets.stack([rng.standard_normal((size, D)) for size in SIZES])
    return sets, np.array([rng.integers(size) for size in SIZES])


def pairs(seed: int = 0, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.random.default_rng(seed + 10).standard_normal((2, n, D)))


def every_kind(seed: int, **constraints: float) -> dict[str, ChoiceObjective]:
    sets, targets = candidates(seed)
    won, lost = pairs(seed)
    rng = np.random.default_rng(seed + 20)
    sft = sft_objective(sets, targets, **constraints)
    dpo = dpo_objective(won, lost, reference=rng.standard_normal(D), beta=0.7, **constraints)
    lengths = tuple(rng.integers(1, 50, (2, len(won))))
    return {
        "sft": sft,
        "dpo": dpo,
        "r-dpo": dpo_objective(won, lost, beta=0.7, lengths=lengths, alpha=0.05, **constraints),
        "bradley-terry": bradley_terry_objective(won, lost, **constraints),
        "mix": mix_objective(dpo, sft, 0.3),
    }


KINDS = list(every_kind(0))


def test_sft_is_equation_4() -> None:
    sets, targets = candidates()
    theta = np.array([0.3, -1.2, 2.0])
    logs = [
        np.log(sets.probabilities(theta)[low + k])
        for low, k in zip(sets.offsets[:-1], targets, strict=True)
    ]
    assert sft_objective(sets, targets).value(theta) == pytest.approx(-np.mean(logs))


def test_dpo_is_equation_1_whatever_the_other_candidates() -> None:
    won, lost = pairs()
    theta, reference = np.random.default_rng(5).standard_normal((2, D))
    others = np.random.default_rng(6).standard_normal((4, D))
    losses, rewarded = [], []
    lengths = np.array([[10, 7, 3, 9, 9, 1], [4, 8, 3, 1, 20, 2]])
    for k, pair in enumerate(zip(won, lost, strict=True)):
        sets = CandidateSets.stack([[*pair, *others]])
        new, old = sets.log_probabilities(theta), sets.log_probabilities(reference)
        losses.append(cvxnn.preference.dpo(new[0], new[1], old[0], old[1], beta=0.3))
        margin = 0.3 * (new[0] - old[0]) - 0.3 * (new[1] - old[1])
        rewarded.append(np.logaddexp(0, -(margin + 0.05 * (lengths[0, k] - lengths[1, k]))))
    found = dpo_objective(won, lost, reference=reference, beta=0.3)
    assert found.value(theta) == pytest.approx(np.mean(losses))
    found = dpo_objective(
        won, lost, reference=reference, beta=0.3, lengths=tuple(lengths), alpha=0.05
    )
    assert found.value(theta) == pytest.approx(np.mean(rewarded))


def test_bradley_terry_is_fine_tuning_on_the_chosen_responses() -> None:
    won, lost = pairs()
    sets = CandidateSets.stack(list(np.stack([won, lost], axis=1)))
    theta = np.array([0.3, -1.2, 2.0])
    expected = sft_objective(sets, np.zeros(len(won), int)).value(theta)
    assert bradley_terry_objective(won, lost).value(theta) == pytest.approx(expected)


@jax.jit
def derived(problem: ChoiceObjective, theta: jax.Array) -> tuple[jax.Array, ...]:
    """Value, slope and curvature by automatic differentiation; the slope and smoothness stated."""
    slope, curvature = jax.grad(problem.value)(theta), jax.hessian(problem.value)(theta)
    return problem.value(theta), slope, curvature, problem.gradient(theta), problem.smoothness()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "mix"])
def test_slopes_are_those_of_automatic_differentiation(kind: str) -> None:
    with precision(np.float64):
        problem = every_kind(0, ridge=0.1)[kind]
        theta = np.array([0.3, -1.2, 2.0])
        arrays = jax.tree.map(jnp.asarray, problem)
        value, slope, curvature, stated, smoothness = derived(arrays, jnp.asarray(theta))
        np.testing.assert_allclose(value, problem.value(theta))
        np.testing.assert_allclose(problem.gradient(theta), slope, atol=1e-14)
        np.testing.assert_allclose(stated, slope, atol=1e-14)
        np.testing.assert_allclose(problem.hessian(theta), curvature, atol=1e-13)
        np.testing.assert_allclose(smoothness, problem.smoothness())
        np.testing.assert_allclose(problem.values(theta[None]), problem.value(theta))


@given(seeds, st.sampled_from(KINDS), st.floats(0, 1), st.floats(0.1, 30))
def test_convex_on_every_segment(seed: int, kind: str, weight: float, scale: float) -> None:
    problem = every_kind(seed)[kind]
    a, b = scale * np.random.default_rng(seed + 30).standard_normal((2, D))
    chord = weight * problem.value(a) + (1 - weight) * problem.value(b)
    assert problem.value(weight * a + (1 - weight) * b) <= chord + 1e-9 * scale


@given(seeds, st.sampled_from(KINDS), st.floats(0.0, 10))
def test_the_gradient_is_as_smooth_as_stated(seed: int, kind: str, scale: float) -> None:
    problem = every_kind(seed, ridge=0.05)[kind]
    theta = scale * np.random.default_rng(seed + 30).standard_normal(D)
    values = np.linalg.eigvalsh(problem.hessian(theta))
    assert values[-1] <= problem.smoothness() * (1 + 1e-12)
    assert values[0] >= problem.strong_convexity() * (1 - 1e-9)


@given(
    seeds,
    st.sampled_from(KINDS),
    st.sampled_from([0.0, 0.1, 3.0]),
    st.sampled_from([0.5, 4.0, np.inf]),
)
def test_no_point_is_below_the_bound(seed: int, kind: str, ridge: float, radius: float) -> None:
    problem = every_kind(seed, ridge=ridge, radius=radius)[kind]
    rng = np.random.default_rng(seed + 30)
    theta = problem.project(3 * rng.standard_normal(D))
    bound = problem.lower_bound(theta, *problem.value_and_gradient(theta))
    assert (bound == -np.inf) == (ridge == 0 and radius == np.inf)
    for other in (0.1, 1.0, 10.0):
        point = problem.project(other * rng.standard_normal(D))
        assert np.linalg.norm(point) <= radius * (1 + 1e-12)
        assert bound <= problem.value(point) + 1e-9


def test_the_bounds_are_the_known_formulas() -> None:
    theta = np.array([0.3, -1.2, 0.4])
    problem = every_kind(0, radius=2.0)["mix"]
    value, g = problem.value_and_gradient(theta)
    expected = value - (g @ theta + 2.0 * np.linalg.norm(g))
    assert problem.lower_bound(theta, value, g) == pytest.approx(expected)
    problem = every_kind(0, ridge=0.5)["mix"]
    value, g = problem.value_and_gradient(theta)
    assert problem.lower_bound(theta, value, g) == pytest.approx(value - g @ g / (2 * 0.5))


# Two candidates with features 0 and 1, or three: the policy has one parameter.
TWO, THREE = np.array([[0.0], [1.0]]), np.array([[0.0], [-1.0], [1.0]])


@pytest.mark.parametrize(
    ("kind", "features", "lengths", "ends"),
    [
        ("simpo", TWO, (4, 1), (0.25, 6.75)),
        ("rrhf", TWO, (2, 1), (0.5, 12.0)),
        ("orpo", TWO, (2, 1), (2.0, 12.0)),
        ("orpo", TWO, (3, 3), (1.5, 12.0)),
        ("orpo", THREE, (3, 3), (-12.0, -1.5)),
    ],
)
def test_objectives_per_token_are_not_convex(
    kind: str, features: np.ndarray, lengths: tuple[int, int], ends: tuple[float, float]
) -> None:
    """The middle of a segment lies above its chord if the chosen reply is not shorter."""
    loss = getattr(cvxnn.preference, kind)
    options = {"simpo": {"gamma": 0.5}, "rrhf": {"weight": 0.0}, "orpo": {"weight": 1.0}}[kind]
    sets = CandidateSets.stack([features])

    def value(theta: float) -> float:
        logs = sets.log_probabilities([theta])
        return float(loss(logs[0], logs[1], *np.array(lengths, float), **options))

    chord = (value(ends[0]) + value(ends[1])) / 2
    assert value(sum(ends) / 2) > chord + 0.02


@given(seeds, st.sampled_from(["simpo", "rrhf"]), st.integers(1, 9), st.integers(0, 9))
def test_they_are_convex_where_the_chosen_response_is_not_longer(
    seed: int, kind: str, chosen: int, more: int
) -> None:
    rng = np.random.default_rng(seed)
    sets = CandidateSets.stack([rng.standard_normal((4, D))])
    lengths = np.array([chosen, chosen + more], float)

    def value(theta: np.ndarray) -> float:
        logs = sets.log_probabilities(theta)
        return float(getattr(cvxnn.preference, kind)(logs[0], logs[1], *lengths))

    a, b = 5 * rng.standard_normal((2, D))
    assert value((a + b) / 2) <= (value(a) + value(b)) / 2 + 1e-9


def test_a_mix_is_the_mix() -> None:
    kinds = every_kind(1, ridge=0.2)
    theta = np.array([0.3, -1.2, 2.0])
    dpo, sft = kinds["dpo"], kinds["sft"]
    expected = 0.3 * dpo.value(theta) + 0.7 * sft.value(theta)
    assert kinds["mix"].value(theta) == pytest.approx(expected)
    assert mix_objective(dpo, sft, 1.0).value(theta) == pytest.approx(dpo.value(theta))


def test_bad_demonstrations() -> None:
    sets, targets = candidates()
    with pytest.raises(ValueError, match="the target of prompt 1 is 5, not among its 5 candidates"):
        sft_objective(sets, [0, 5, 0, 0])
    with pytest.raises(ValueError, match="the target of prompt 0 is -1"):
        sft_objective(sets, [-1, 0, 0, 0])
    with pytest.raises(ValueError, match=r"expected \(4,\) integers"):
        sft_objective(sets, [0, 1])
    with pytest.raises(ValueError, match="integers"):
        sft_objective(sets, targets.astype(float))
    alone = CandidateSets.stack([np.ones((2, D)), np.ones((1, D))])
    with pytest.raises(
        ValueError, match="prompt 1 has one candidate, whose probability is always 1"
    ):
        sft_objective(alone, [0, 0])
    with pytest.raises(ValueError, match="ridge=-1"):
        sft_objective(sets, targets, ridge=-1)
    with pytest.raises(ValueError, match="radius=0"):
        sft_objective(sets, targets, radius=0)


def test_bad_pairs() -> None:
    won, lost = pairs()
    with pytest.raises(ValueError, match=r"chosen has shape \(0, 3\); expected a matrix"):
        dpo_objective(won[:0], lost[:0])
    with pytest.raises(ValueError, match="expected one row of each"):
        dpo_objective(won, lost[:-1])
    with pytest.raises(ValueError, match=r"reference has shape \(2,\); expected \(3,\)"):
        dpo_objective(won, lost, reference=[0.0, 0.0])
    with pytest.raises(ValueError, match="reference is not finite"):
        dpo_objective(won, lost, reference=[0.0, np.nan, 0.0])
    lost = lost.copy()
    lost[4, 1] = np.inf
    with pytest.raises(ValueError, match="rejected is not finite in row 4"):
        dpo_objective(won, lost)
    with pytest.raises(ValueError, match="beta=0"):
        dpo_objective(won, won, beta=0)
    with pytest.raises(ValueError, match="with lengths unless 0"):
        dpo_objective(won, won, alpha=0.1)


def test_bad_mixes() -> None:
    kinds = every_kind(0)
    for lam in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="expected a number from 0"):
            mix_objective(kinds["dpo"], kinds["sft"], lam)
    with pytest.raises(ValueError, match="differ in ridge or radius"):
        mix_objective(kinds["dpo"], every_kind(0, ridge=1.0)["sft"], 0.5)
    with pytest.raises(ValueError, match="has 1 features and the SFT data 3"):
        mix_objective(dpo_objective([[1.0]], [[0.0]]), kinds["sft"], 0.5)


def test_orpo_of_two_responses_by_a_loop() -> None:
    rng = np.random.default_rng(3)
    chosen, rejected = rng.standard_normal((2, 12, 4))
    odds, likelihood = orpo_objectives(chosen, rejected, ridge=0.1)
    weight = 0.3
    mixed = mix_objective(odds, likelihood, weight / (1 + weight))
    for theta in rng.standard_normal((5, 4)):
        total = 0.0
        for won, lost in zip(chosen, rejected, strict=True):
            p = np.exp(theta @ won) / (np.exp(theta @ won) + np.exp(theta @ lost))
            ratio = np.log(p / (1 - p)) - np.log((1 - p) / p)
            total += -np.log(p) - weight * np.log(1 / (1 + np.exp(-ratio)))
        expected = total / 12 / (1 + weight) + 0.1 / 2 * theta @ theta
        np.testing.assert_allclose(mixed.values(theta[None])[0], expected, rtol=1e-10)
