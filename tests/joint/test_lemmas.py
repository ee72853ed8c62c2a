"""Lemmas and propositions of the appendix of "Understanding Forgetting", as numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax

from cvxnn.joint import CandidateSets, JointProblem, dpo_objective, sft_objective

D, N, BETA = 3, 6, 0.7
seeds = st.integers(0, 10**6)


class Example:
    """Pairs and candidates in single examples, with the objectives of the package beside them."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.won, self.lost = rng.standard_normal((2, N, D))
        self.sets = [rng.standard_normal((rng.integers(2, 5), D)) for _ in range(N)]
        self.reference = rng.standard_normal(D)
        self.size = max(np.linalg.norm(rows, axis=1).max() for rows in (self.won, self.lost))
        self.size = max(self.size, *(np.linalg.norm(rows, axis=1).max() for rows in self.sets))
        self.problem = JointProblem(
            dpo=dpo_objective(
                self.won, self.lost, reference=self.reference, beta=BETA, radius=np.inf, ridge=1e-9
            ),
            sft=sft_objective(CandidateSets.stack(self.sets), np.zeros(N, int), ridge=1e-9),
        )

    def dpo_gradients(self, theta: np.ndarray) -> np.ndarray:
        """Return the gradient of each pair (equation 18)."""
        found = []
        for won, lost in zip(self.won, self.lost, strict=True):
            h = BETA * (theta - self.reference) @ (won - lost)
            found.append(-BETA * (1 - expit(h)) * (won - lost))
        return np.array(found)

    def sft_gradients(self, theta: np.ndarray) -> np.ndarray:
        """Return the gradient of each demonstration (equation 22)."""
        return np.array([softmax(rows @ theta) @ rows - rows[0] for rows in self.sets])


def points(seed: int, n: int, scale: float) -> np.ndarray:
    return scale * np.random.default_rng(seed + 1).standard_normal((n, D))


@given(seeds, st.floats(0, 20))
def test_proposition_a1_second_moments_are_bounded(seed: int, scale: float) -> None:
    """By 4 beta^2 Phi^2 and 4 Phi^2, which the paper names M_1 and M_2; they bound the squares."""
    example, [theta] = Example(seed), points(seed, 1, scale)
    dpo, sft = example.dpo_gradients(theta), example.sft_gradients(theta)
    np.testing.assert_allclose(dpo.mean(axis=0), example.problem.dpo.gradient(theta), atol=1e-6)
    np.testing.assert_allclose(sft.mean(axis=0), example.problem.sft.gradient(theta), atol=1e-6)
    assert (dpo**2).sum(axis=1).mean() <= 4 * BETA**2 * example.size**2
    assert (sft**2).sum(axis=1).mean() <= 4 * example.size**2


@given(seeds, st.floats(0, 20))
def test_proposition_a2_hessians_have_no_negative_eigenvalue(seed: int, scale: float) -> None:
    """Equation (24) lacks the factor 1 - sigma; (26) is the covariance of the candidates."""
    example, [theta] = Example(seed), points(seed, 1, scale)
    dpo, sft = np.zeros((2, D, D))
    for won, lost in zip(example.won, example.lost, strict=True):
        probability = expit(BETA * (theta - example.reference) @ (won - lost))
        outer = np.outer(won - lost, won - lost)
        dpo += BETA**2 * probability * (1 - probability) * outer / N
    for rows in example.sets:
        odds = softmax(rows @ theta)
        sft += (np.einsum("i,ij,ik", odds, rows, rows) - np.outer(odds @ rows, odds @ rows)) / N
    for ours, expected in ((example.problem.dpo, dpo), (example.problem.sft, sft)):
        np.testing.assert_allclose(ours.hessian(theta), expected, atol=1e-7)
        assert np.linalg.eigvalsh(expected)[0] >= -1e-12


@given(
    seeds,
    st.floats(0.05, 4),
    st.floats(-5, 5),
    st.floats(0, 5),
    st.integers(1, 60),
)
def test_lemma_a3_runs_keep_their_order_and_a_share_of_their_distance(
    seed: int, c: float, low: float, distance: float, n_steps: int
) -> None:
    steps = np.random.default_rng(seed).uniform(0, 4 / c, n_steps)  # c alpha / 4 <= 1
    theta, other, share = low + distance, low, 1.0
    for step in steps:
        theta += step * expit(-c * theta)
        other += step * expit(-c * other)
        share *= 1 - c * step / 4
        assert theta - other >= distance * share - 1e-9


def test_lemma_a3_needs_short_steps() -> None:
    """With steps beyond its condition, runs may change their order."""
    c, step, theta, other = 1.0, 40.0, 0.5, -0.5
    assert theta + step * expit(-c * theta) < other + step * expit(-c * other)


@given(seeds, st.floats(0, 10))
def test_lemma_a5_objectives_lie_above_their_tangents(seed: int, scale: float) -> None:
    problem = Example(seed).problem
    theta, other = points(seed, 2, scale)
    for objective in (problem.dpo, problem.sft):
        value, slope = objective.value_and_gradient(theta)
        assert objective.value(other) >= value + slope @ (other - theta) - 1e-9 * (1 + scale)


@given(seeds, st.integers(1, 30))
def test_lemma_a6_bounds_the_last_of_a_sequence(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    steps = np.sort(rng.exponential(size=length))[::-1]
    q = rng.exponential(size=length)
    assert steps[-1] * q[-1] <= right_side(steps, q) + 1e-9


def right_side(steps: np.ndarray, q: np.ndarray) -> float:
    """Return the right-hand side of equation (42), whose indices count from 1."""
    length = len(q)
    total = float(steps @ q) / length
    for k in range(1, length):
        inner = sum(
            steps[t - 1] * (q[t - 1] - q[length - k - 1]) for t in range(length - k + 1, length + 1)
        )
        total += inner / (k * (k + 1))
    return total


def test_lemma_a6_is_an_identity_for_equal_steps_and_fails_for_growing_ones() -> None:
    q = np.array([3.0, 1.0, 2.0, 5.0])
    assert right_side(np.full(4, 0.5), q) == pytest.approx(0.5 * q[-1])
    growing, falling = np.array([0.1, 1.0]), np.array([5.0, 0.1])
    assert growing[-1] * falling[-1] > right_side(growing, falling)


@given(seeds, st.floats(0, 1), st.floats(0.01, 3), st.floats(0, 5))
def test_lemma_a7_one_step_of_alright(seed: int, lam: float, step: float, scale: float) -> None:
    """The expectation over coin and example, counted out; steps end in a ball that holds theta'.

    The second moment is bounded by lambda M_1^2 + (1 - lambda) M_2^2. The paper's bound is the
    square of the mean, which is smaller.
    """
    example, (theta, other) = Example(seed), points(seed, 2, scale)
    radius = max(np.linalg.norm(theta), np.linalg.norm(other))
    expected = 0.0
    for share, gradients in (
        (lam, example.dpo_gradients(theta)),
        (1 - lam, example.sft_gradients(theta)),
    ):
        for gradient in gradients:
            after = theta - step * gradient
            after *= min(1.0, radius / max(np.linalg.norm(after), 1e-300))
            expected += share / N * float((after - other) @ (after - other))
    squares = lam * 4 * BETA**2 * example.size**2 + (1 - lam) * 4 * example.size**2
    bound = float((theta - other) @ (theta - other)) - expected + step**2 * squares
    assert mix(example, theta, lam) - mix(example, other, lam) <= bound / (2 * step) + 1e-6


def mix(example: Example, theta: np.ndarray, lam: float) -> float:
    dpo, sft = example.problem.values(theta)
    return float(lam * dpo + (1 - lam) * sft)


def test_the_printed_second_moment_of_lemma_a7_is_no_bound() -> None:
    """Where only demonstrations have a gradient, lambda = 1/2 halves its square, no more."""
    lam, size, beta = 0.5, 1.0, 1e-3
    sft = softmax(np.array([1.0, -1.0]) * -30.0) @ np.array([1.0, -1.0]) - 1.0  # the wrong reply
    moment = (1 - lam) * sft**2
    printed = (lam * 2 * beta * size + (1 - lam) * 2 * size) ** 2
    corrected = lam * 4 * beta**2 * size**2 + (1 - lam) * 4 * size**2
    assert printed < moment <= corrected
