"""The budget of objective perturbation, beside integrals of densities and another accountant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

from cvxnn.convex import HuberLoss, LogisticLoss
from cvxnn.training import needed_noise, perturbed, spent_delta

BUDGETS = st.tuples(
    st.floats(0.05, 8), st.floats(0.2, 20), st.floats(0.5, 100), st.sampled_from([0.25, 1.0])
)


@given(BUDGETS)
def test_the_delta_is_the_expectation_that_the_proof_bounds_it_by(budget):
    epsilon, noise, alpha, curvature = budget
    mu = 1 / noise
    shift = np.log1p(curvature / alpha) + mu**2 / 2

    def excess(t):
        return 2 * max(1 - np.exp(epsilon - shift - mu * t), 0) * norm.pdf(t)

    begin = max((epsilon - shift) / mu, 0)
    want = quad(excess, begin, begin + 20, epsabs=1e-13)[0]
    found = spent_delta(epsilon, noise, alpha=alpha, slope=1.0, curvature=curvature)
    assert found == pytest.approx(want, rel=1e-6, abs=1e-10)


@given(st.floats(0.1, 10), st.floats(1e-9, 1e-2))
def test_the_noise_is_the_least_of_a_budget(epsilon, delta):
    settings = {"alpha": 3 / np.expm1(epsilon), "slope": 1.0, "curvature": 0.25}
    noise = needed_noise(epsilon, delta, **settings)
    assert spent_delta(epsilon, noise, **settings) <= delta
    assert spent_delta(epsilon, 0.999 * noise, **settings) > delta


def test_another_accountant_agrees():
    pld = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    for epsilon, mu in ((0.5, 0.2), (2.0, 0.7), (4.0, 1.0)):
        gaussian = pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-4)
        want = 2 * gaussian.get_delta_for_epsilon(epsilon)
        found = spent_delta(epsilon, 1 / mu, alpha=np.inf, slope=1.0, curvature=0.25)
        assert found == pytest.approx(want, rel=2e-3)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("loss", [LogisticLoss(), HuberLoss(1.0)])
def test_densities_of_neighbours_differ_by_no_more_than_the_budget(epsilon, loss):
    # One weight, so that the density of the optimum can be written down and integrated.
    rng = np.random.RandomState(0)
    x, y = rng.uniform(-1, 1, 5), np.where(rng.rand(5) < 0.5, -1.0, 1.0)
    curvature = float(loss.curvature)
    alpha = 4 * curvature / np.expm1(epsilon)
    for extra, noise in ((1.0, 1.0), (-1.0, 2.0)):
        end = 6 * (1 + noise) / alpha
        theta = np.linspace(-end, end, 100_001)[:, None]

        def density(x, y, noise=noise, theta=theta):
            seen = theta * x
            slope = (loss.gradient(seen, y) * x).sum(axis=1) + alpha * theta[:, 0]
            hessian = (loss.hessian(seen, y) * x**2).sum(axis=1) + alpha
            return norm.pdf(slope, scale=noise) * hessian

        without, having = density(x, y), density(np.append(x, 1.0), np.append(y, extra))
        step = theta[1, 0] - theta[0, 0]
        assert without.sum() * step == pytest.approx(1, abs=1e-4)
        want = spent_delta(epsilon, noise, alpha=alpha, slope=1.0, curvature=curvature)
        for one, other in ((without, having), (having, without)):
            spent = np.maximum(one - np.exp(epsilon) * other, 0).sum() * step
            assert spent <= want + 1e-5


@pytest.mark.parametrize("loss", [LogisticLoss(), HuberLoss(1.0)])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("n_gates", [1, 9])  # fewer weights than records, or more
def test_the_weights_minimise_the_perturbed_objective(loss, paired, n_gates):
    rng = np.random.RandomState(1)
    X = rng.randn(24, 3)
    mask = np.column_stack([np.ones(24), rng.rand(24, n_gates - 1) < 0.5])
    features = (mask[:, :, None] * X[:, None]).reshape(24, -1)
    pairs = np.arange(24).reshape(12, 2) if paired else None
    features = features[::2] - features[1::2] if paired else features
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    n = len(features)
    y = np.where(rng.rand(n, 1) < 0.5, -1.0, 1.0)
    found = perturbed(
        X,
        mask > 0,
        y,
        loss,
        alpha=3.0,
        epsilon=2.0,
        delta=1e-4,
        slope=1.0,
        random=np.random.default_rng(5),
        pairs=pairs,
    )
    linear = found.noise * np.random.default_rng(5).standard_normal(3 * n_gates)

    def objective(theta):
        seen = (features @ theta)[:, None]
        value = loss.value(seen, y).sum() + 1.5 * theta @ theta + linear @ theta
        return value, features.T @ loss.gradient(seen, y)[:, 0] + 3 * theta + linear

    best = minimize(objective, np.zeros(3 * n_gates), jac=True, options={"gtol": 1e-10})
    assert found.distance <= 1e-8
    room = 1e-5 + 8 * found.cover
    np.testing.assert_allclose(found.blocks.ravel(), best.x, rtol=0, atol=room)


def test_a_strength_that_spends_the_budget_is_refused():
    with pytest.raises(ValueError, match=r"alpha=0\.1 spends more than epsilon=1 "):
        needed_noise(1.0, 1e-5, alpha=0.1, slope=1.0, curvature=0.25)


def test_records_that_do_not_fit_are_refused_before_they_are_made():
    with pytest.raises(ValueError, match=r"4\.0 GiB; expected at most 2"):
        perturbed(
            np.zeros((2**15, 2**10)),
            np.ones((2**15, 2**4), bool),
            np.ones((2**15, 1)),
            LogisticLoss(),
            alpha=1.0,
            epsilon=1.0,
            delta=1e-5,
            slope=1.0,
            random=np.random.default_rng(0),
        )
