"""Win rates at equal length: comparison with scikit-learn and SciPy, symmetries."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import optimize, special
from sklearn.linear_model import LogisticRegression

from cvxnn.evaluation import length_controlled_win_rate, length_controlled_win_rates


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(2, 25))
    preferences = draw(arrays.arrays(float, n, elements=st.floats(0, 1, width=16)))
    lengths = draw(arrays.arrays(float, n, elements=st.integers(-2000, 2000).map(float)))
    lengths[:2] = [-1.0, 1.0]  # never all equal
    return preferences, lengths


def simulated(n: int, theta: float, phi: float, mean: float, seed: int = 0) -> tuple:
    """Simulate judgements of a model whose replies are longer by `mean` standard deviations."""
    rng = np.random.default_rng(seed)
    difference = np.round(300 * (rng.standard_normal(n) + mean))
    chance = special.expit(theta + phi * np.tanh(difference / difference.std(ddof=1)))
    return (rng.random(n) < chance).astype(float), difference


def joint_oracle(
    preferences: np.ndarray, difference: np.ndarray, systems: list[str], prompts: list[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Fit the same model with L-BFGS and a loop over the rows."""
    names, asked = list(dict.fromkeys(systems)), list(dict.fromkeys(prompts))
    k, long = len(names), np.tanh(difference / difference.std(ddof=1))

    def loss(b: np.ndarray) -> float:
        theta, phi, delta, gamma = b[:k], b[k], b[k + 1 : 2 * k + 1], b[2 * k + 1 :]
        total = (theta @ theta / 10 + phi**2 + delta @ delta + gamma @ gamma) / 2
        for y, t, system, prompt in zip(preferences, long, systems, prompts, strict=True):
            m = names.index(system)
            eta = theta[m] + (phi + delta[m]) * t + gamma[asked.index(prompt)]
            total += np.logaddexp(0, eta) - y * eta
        return total

    b = optimize.minimize(loss, np.zeros(2 * k + 1 + len(asked)), tol=1e-12).x
    rates = {m: special.expit(b[i] + b[2 * k + 1 :]).mean() for i, m in enumerate(names)}
    return rates, {m: b[k] + b[k + 1 + i] for i, m in enumerate(names)}


def test_refused_settings() -> None:
    with pytest.raises(ValueError, match="penalty is 0"):
        length_controlled_win_rate([1.0, 0.0], [1, 2], penalty=0)
    with pytest.raises(ValueError, match=r"length_differences has shape \(3,\)"):
        length_controlled_win_rate([1.0, 0.0], [1, 2, 3])


@pytest.mark.parametrize("penalty", [0.01, 1.0, 30.0])
def test_fit_is_scikit_learns_on_doubled_rows(penalty: float) -> None:
    rng = np.random.default_rng(1)
    preferences, difference, difficulty = rng.random(40), rng.normal(size=40), rng.normal(size=40)
    long = np.tanh(difference / difference.std(ddof=1))
    # A column scaled by the root of ten has a tenth of the penalty.
    X = np.column_stack([np.full(40, math.sqrt(10)), long, difficulty])
    model = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-10, max_iter=1000)
    weights = np.concatenate([preferences, 1 - preferences])
    model.fit(np.vstack([X, X]), np.repeat([1, 0], 40), weights)
    theta, phi, psi = model.coef_[0] * [math.sqrt(10), 1, 1]
    found = length_controlled_win_rate(
        preferences, difference, difficulty=difficulty, penalty=penalty
    )
    expected = [theta, phi, psi, special.expit(theta + psi * difficulty).mean()]
    obtained = [found.quality, found.length_weight, found.difficulty_weight, found.rate]
    assert obtained == pytest.approx(expected, abs=1e-5)


def test_length_alone_decides() -> None:
    preferences, difference = simulated(3000, theta=0.0, phi=4.0, mean=0.7)
    found = length_controlled_win_rate(preferences, difference)
    assert found.raw.rate > 0.7
    assert found.rate == pytest.approx(0.5, abs=0.05)
    assert found.interval[0] < 0.5 < found.interval[1]


def test_length_does_not_matter() -> None:
    preferences, difference = simulated(3000, theta=1.0, phi=0.0, mean=0.5)
    found = length_controlled_win_rate(preferences, difference)
    assert found.rate == pytest.approx(found.raw.rate, abs=0.02)
    assert found.rate == pytest.approx(special.expit(1.0), abs=0.03)


def test_standard_error_is_that_of_repeated_samples() -> None:
    found = [length_controlled_win_rate(*simulated(400, 0.5, 1.0, 0.5, s)) for s in range(60)]
    spread = np.std([one.rate for one in found])
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.3)
    truth = special.expit(0.5)
    assert np.mean([one.interval[0] < truth < one.interval[1] for one in found]) > 0.85


def test_error_grows_where_length_and_quality_go_together() -> None:
    preferences, difference = simulated(200, 0.5, 1.0, 0.0)
    apart = length_controlled_win_rate(preferences, difference)
    with pytest.warns(UserWarning, match="in 100.0% of the judgements, .* an extrapolation"):
        together = length_controlled_win_rate(preferences, difference + 1500)
    assert "(overlap 0%: an extrapolation)" in str(together)
    assert together.overlap == 0.0
    assert apart.overlap > 0.4
    assert together.standard_error > 2 * apart.standard_error


def test_systems_that_are_all_longer_extrapolate_together() -> None:
    preferences, difference = simulated(100, 0.5, 1.0, 0.0)
    names = ["a", "b"] * 50
    with pytest.warns(UserWarning, match="in 100.0% of the judgements, .* of similar length$"):
        length_controlled_win_rates(preferences, difference + 1500, names)
    apart = difference + 1500 * np.array([1, -1] * 50)  # each extrapolates, both together do not
    found = length_controlled_win_rates(preferences, apart, names)
    assert [one.overlap for one in found.values()] == [0.0, 0.0]


def test_always_winning_is_finite() -> None:
    found = length_controlled_win_rate([1.0] * 100, [-1, 1] * 50)
    assert 0.98 < found.rate < 1.0
    assert found.interval[0] > 0.9


def test_equal_lengths() -> None:
    assert length_controlled_win_rate([1.0, 0.0], [0, 0]).rate == pytest.approx(0.5)
    with pytest.raises(ValueError, match="cannot be distinguished"):
        length_controlled_win_rate([1.0, 0.0], [7, 7])


@settings(max_examples=40)
@given(comparisons())
def test_swapped_systems_mirror_the_controlled_rate(rows: tuple) -> None:
    preferences, difference = rows
    there = length_controlled_win_rate(preferences, difference, difficulty=difference / 1000)
    back = length_controlled_win_rate(1 - preferences, -difference, difficulty=-difference / 1000)
    assert there.rate == pytest.approx(1 - back.rate, abs=1e-7)
    assert there.length_weight == pytest.approx(back.length_weight, abs=1e-6)
    assert there.standard_error == pytest.approx(back.standard_error, rel=1e-5)
    assert 0 <= there.interval[0] <= there.rate <= there.interval[1] <= 1


@settings(max_examples=40)
@given(comparisons(), st.floats(0.01, 100))
def test_units_of_length_do_not_matter(rows: tuple, unit: float) -> None:
    preferences, difference = rows
    there = length_controlled_win_rate(preferences, difference)
    assert length_controlled_win_rate(preferences, unit * difference).rate == pytest.approx(
        there.rate, abs=1e-7
    )


@settings(max_examples=40)
@given(comparisons(), st.permutations(range(25)))
def test_order_of_rows_does_not_matter(rows: tuple, order: list[int]) -> None:
    preferences, difference = rows
    moved = [i for i in order if i < len(preferences)]
    there = length_controlled_win_rate(preferences, difference)
    found = length_controlled_win_rate(preferences[moved], difference[moved])
    assert found.rate == pytest.approx(there.rate, abs=1e-9)


@settings(max_examples=40)
@given(comparisons(), st.floats(0, 0.99))
def test_winning_at_equal_length_raises_the_controlled_rate(rows: tuple, before: float) -> None:
    preferences, difference = (np.append(values, 0.0) for values in rows)
    rates = []
    for preference in (before, 1.0):
        preferences[-1] = preference
        rates.append(length_controlled_win_rate(preferences, difference).rate)
    assert rates[0] < rates[1]


def test_joint_fit_is_that_of_a_general_minimiser() -> None:
    rng = np.random.default_rng(2)
    preferences, difference = rng.random(24), rng.normal(100, 200, size=24)
    systems, prompts = ["a", "b", "c"] * 8, [f"p{i // 3}" for i in range(24)]
    found = length_controlled_win_rates(preferences, difference, systems, prompts=prompts)
    expected, weights = joint_oracle(preferences, difference, systems, prompts)
    assert {m: one.rate for m, one in found.items()} == pytest.approx(expected, abs=1e-4)
    lengths = {m: one.length_weight for m, one in found.items()}
    assert lengths == pytest.approx(weights, abs=1e-4)
    assert list(found) == sorted(expected, key=expected.__getitem__, reverse=True)


def test_joint_fit_borrows_the_taste_for_length() -> None:
    """The rate of a verbose system is corrected by what other systems reveal of the judge."""
    rng = np.random.default_rng(3)
    n = 300
    systems = ["even"] * n + ["verbose"] * n
    difference = np.concatenate([rng.normal(0, 400, n), rng.normal(900, 150, n)])
    chance = special.expit(2.5 * np.tanh(difference / difference.std(ddof=1)))
    preferences = (rng.random(2 * n) < chance).astype(float)
    with pytest.warns(UserWarning, match="an extrapolation; judge .* several systems jointly"):
        alone = length_controlled_win_rate(preferences[n:], difference[n:])
    joint = length_controlled_win_rates(preferences, difference, systems)["verbose"]
    assert alone.rate > 0.75
    assert abs(joint.rate - 0.5) < 0.5 * abs(alone.rate - 0.5)
    assert joint.raw == alone.raw


def test_joint_fit_of_one_system_without_prompts() -> None:
    preferences, difference = simulated(500, 0.5, 1.0, 0.3)
    [joint] = length_controlled_win_rates(preferences, difference, ["m"] * 500).values()
    alone = length_controlled_win_rate(preferences, difference)
    assert joint.rate == pytest.approx(alone.rate, abs=0.005)  # phi and delta share the penalty


def test_text_of_a_controlled_win_rate() -> None:
    text = str(length_controlled_win_rate([1.0, 0.0], [10, -10]))
    assert "at equal length, 50.0% without length control (overlap 50%)" in text
