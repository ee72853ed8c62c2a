"""SoftmaxPolicy: what it fits, in any order of rows, and what it refuses."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from cvxnn import SoftmaxPolicy, load, save
from cvxnn.joint import pareto_front

N, K, D = 30, 4, 5


def data(seed=0):
    rng = np.random.default_rng(seed)
    X, groups = rng.standard_normal((N * K, D)), np.repeat(np.arange(N), K)
    y = np.tile(np.arange(K) == 1, N)
    X[y, 0] += 2
    chosen, rejected = rng.standard_normal((2, 40, D))
    chosen[:, 1] += 1.5
    return {"X": X, "y": y, "groups": groups, "chosen": chosen, "rejected": rejected}


def test_the_exact_policy_learns_both():
    given = data()
    policy = SoftmaxPolicy(beta=1.0).fit(**given)
    assert policy.gap_ < 1e-7
    assert policy.dual_bound_ <= policy.objective_
    assert policy.objective_ == pytest.approx((policy.dpo_ + policy.sft_) / 2)
    fresh = data(1)
    assert policy.score(fresh["X"], fresh["y"], fresh["groups"]) > 0.6
    assert policy.coef_[0] > 0.3
    assert policy.coef_[1] > 0.3
    margins = policy.reward_margin(fresh["chosen"], fresh["rejected"])
    expected = (fresh["chosen"] - fresh["rejected"]) @ (policy.coef_ - policy.reference_)
    np.testing.assert_allclose(margins, expected)


def test_units_of_features_do_not_matter_once_they_are_standardized(tmp_path):
    given, scale = data(), np.array([1e3, 1.0, 1e-3, 5.0, 1.0])
    policy = SoftmaxPolicy(standardize=True).fit(**given)
    rows = {name: given[name] * scale for name in ("X", "chosen", "rejected")}
    other = SoftmaxPolicy(standardize=True).fit(**{**given, **rows})
    np.testing.assert_allclose(other.coef_ * scale, policy.coef_, rtol=1e-6)
    scores = policy.predict_log_proba(given["X"], given["groups"]).reshape(N, K)
    rewards = policy.reward(given["X"]).reshape(N, K)
    np.testing.assert_allclose(np.ptp(scores - rewards, axis=1), 0, atol=1e-12)
    save(policy, tmp_path / "policy.safetensors")
    back = load(tmp_path / "policy.safetensors")
    np.testing.assert_array_equal(back.reward(given["X"]), policy.reward(given["X"]))
    assert back.get_params() == policy.get_params()


def test_a_policy_knows_its_embedding():
    with pytest.raises(ValueError, match="embedding has the entries"):
        SoftmaxPolicy(embedding={"layer": 1}).fit(**data())


def test_the_gap_of_a_vanishing_objective():
    # One demonstration far from its alternative is fitted to the last digit.
    policy = SoftmaxPolicy(0.0, reference="uniform").fit(
        [[-5e8], [-1e8]], [False, True], [0, 0], chosen=[[0.0]], rejected=[[1.0]]
    )
    assert policy.objective_ < 1e-8
    assert policy.gap_ <= policy.tol


def test_rows_may_come_in_any_order():
    given = data()
    policy = SoftmaxPolicy().fit(**given)
    order = np.random.default_rng(5).permutation(N * K)
    mixed = {name: given[name][order] for name in ("X", "y", "groups")}
    names = np.array([f"prompt {k}" for k in range(N)])[mixed["groups"]]
    again = SoftmaxPolicy().fit(
        mixed["X"], mixed["y"], names, chosen=given["chosen"], rejected=given["rejected"]
    )
    np.testing.assert_array_equal(again.coef_, policy.coef_)
    found = policy.predict_proba(given["X"], given["groups"])
    np.testing.assert_allclose(found.reshape(N, K).sum(axis=1), 1)
    np.testing.assert_allclose(policy.predict_proba(mixed["X"], names), found[order], atol=1e-12)
    marks = policy.predict(given["X"], given["groups"]).reshape(N, K)
    np.testing.assert_array_equal(marks.sum(axis=1), 1)
    np.testing.assert_array_equal(marks.argmax(axis=1), found.reshape(N, K).argmax(axis=1))


@pytest.mark.parametrize("strategy", ["exact", "orpo", "mix"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_no_order_changes_a_bit(strategy, scale):
    """Neither of the candidates, nor of prompts of several sizes, nor of pairs."""
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2, 3, 4], [2, 3, 3, 4, 2])
    X = scale * rng.integers(-1, 2, (14, 3))  # equal rows and prompts among them
    y = np.zeros(14, bool)
    y[np.unique(groups, return_index=True)[1]] = True
    chosen, rejected = scale * rng.standard_normal((2, 9, 3))
    rejected[:4], chosen[4:8] = chosen[4:8], rejected[:4]
    options = {"strategy": strategy, "n_steps": 50, "random_state": 0}
    policy = SoftmaxPolicy(**options).fit(X, y, groups, chosen=chosen, rejected=rejected)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows, pairs, names = rng.permutation(14), rng.permutation(9), rng.permutation(5)
        again = SoftmaxPolicy(**options).fit(
            X[rows], y[rows], names[groups][rows], chosen=chosen[pairs], rejected=rejected[pairs]
        )
        np.testing.assert_array_equal(again.coef_, policy.coef_)


def test_a_policy_that_says_nothing_warns():
    X, y = np.ones((4, 2)), [True, False, True, False]
    with pytest.warns(UserWarning, match="same probability.*Decrease ridge") as caught:
        SoftmaxPolicy().fit(X, y, [0, 0, 1, 1], chosen=X, rejected=X)
    assert caught[0].filename == __file__
    given = data()
    with pytest.warns(UserWarning, match="same probability"):
        SoftmaxPolicy(ridge=1e9).fit(**given)


def test_a_ridge_that_rounding_hides_warns():
    rng = np.random.default_rng(0)
    X = 1e11 * rng.standard_normal((6, 2))
    pairs = {"chosen": X, "rejected": X[::-1]}  # of which none can win
    given = ([True, False] * 3, [0, 0, 1, 1, 2, 2])
    with pytest.warns(UserWarning, match=r"ridge=0\.001 is lost in rounding.*StandardScaler"):
        SoftmaxPolicy(1.0, reference="uniform").fit(X, *given, **pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "SoftmaxPolicy gives all")
        small = {name: part / 1e11 for name, part in pairs.items()}
        SoftmaxPolicy(1.0, reference="uniform").fit(X / 1e11, *given, **small)


def test_the_curvature_is_the_trace_of_the_hessian():
    part = SoftmaxPolicy(ridge=0.3).problem(**data()).mix(0.5)
    theta = np.random.default_rng(0).standard_normal(part.n_features)
    trace = np.trace(part.hessian(theta)) - 0.3 * part.n_features
    assert part.curvature(theta) == pytest.approx(trace, rel=1e-9)


@pytest.mark.parametrize("strategy", ["mix", "alright", "maxright", "sequential"])
def test_strategies_end_above_the_same_bound(strategy):
    given = data()
    exact = SoftmaxPolicy(beta=1.0).fit(**given)
    options = {"beta": 1.0, "strategy": strategy, "n_steps": 500, "random_state": 0}
    policy = SoftmaxPolicy(**options).fit(**given)
    assert policy.dual_bound_ == exact.dual_bound_
    assert 1e-6 < policy.gap_ < 1
    np.testing.assert_array_equal(clone(policy).fit(**given).coef_, policy.coef_)


def test_orpo_learns_from_pairs_alone():
    given, lam = data(), 0.25
    policy = SoftmaxPolicy(lam, strategy="orpo").fit(**given)
    margins = given["chosen"] - given["rejected"]

    def orpo(theta):
        z = margins @ theta
        odds, likelihood = np.logaddexp(0, -2 * z).mean(), np.logaddexp(0, -z).mean()
        return lam * odds + (1 - lam) * likelihood + policy.ridge / 2 * theta @ theta

    best = minimize(orpo, np.zeros(D), tol=1e-12).x
    np.testing.assert_allclose(policy.coef_, best, rtol=1e-4, atol=1e-5)
    other = SoftmaxPolicy(lam, strategy="orpo", beta=0.7, reference="uniform")
    np.testing.assert_allclose(other.fit(**given).coef_, policy.coef_, rtol=1e-6)
    assert policy.trajectory_ is None
    assert policy.gap_ > 1e-3  # above the mix of DPO and SFT, of which it knows nothing


def test_the_reference():
    given = data()
    uniform = SoftmaxPolicy(reference="uniform").fit(**given)
    np.testing.assert_array_equal(uniform.reference_, 0)
    zeros = SoftmaxPolicy(reference=np.zeros(D)).fit(**given)
    np.testing.assert_array_equal(zeros.coef_, uniform.coef_)
    tuned = SoftmaxPolicy().fit(**given)
    assert tuned.reference_[1] > 0.3  # what the chosen responses have more of
    with pytest.raises(ValueError, match="expected 'chosen', 'uniform' or an array"):
        SoftmaxPolicy(reference="mine").fit(**given)
    with pytest.raises(ValueError, match=r"reference has shape \(2,\)"):
        SoftmaxPolicy(reference=[0.0, 0.0]).fit(**given)


def test_its_problem_has_a_front():
    given = data()
    policy = SoftmaxPolicy(lam=0.25, radius=4.0, ridge=0).fit(**given)
    front = pareto_front(policy.problem(**given), [0, 0.25, 1])
    assert front.objective[1] == pytest.approx(policy.objective_, abs=1e-7)
    assert np.linalg.norm(policy.coef_) <= 4 * (1 + 1e-9)


def test_bad_input():
    given = data()
    with pytest.raises(NotFittedError):
        SoftmaxPolicy().predict(given["X"], given["groups"])
    y = given["y"].copy()
    y[4:8] = False
    with pytest.raises(ValueError, match=r"prompt .*1.* has 0 wanted responses"):
        SoftmaxPolicy().fit(**{**given, "y": y})
    y[4:6] = True
    with pytest.raises(ValueError, match="has 2 wanted responses"):
        SoftmaxPolicy().fit(**{**given, "y": y})
    with pytest.raises(ValueError, match=r"groups has shape \(3,\)"):
        SoftmaxPolicy().fit(**{**given, "groups": [0, 1, 2]})
    with pytest.raises(ValueError, match="marks, 1 or True for the wanted"):
        SoftmaxPolicy().fit(**{**given, "y": np.arange(N * K)})
    groups = given["groups"].copy()
    groups[:2] = [98, 99]
    with pytest.raises(ValueError, match="has 0 wanted responses"):
        SoftmaxPolicy().fit(**{**given, "groups": groups})
    empty = np.empty((0, D))
    with pytest.raises(ValueError, match="chosen has shape"):
        SoftmaxPolicy().fit(**{**given, "chosen": empty, "rejected": empty})
    with pytest.raises(ValueError, match="0 sample"):
        SoftmaxPolicy().fit(**{**given, "X": empty, "y": [], "groups": []})
    with pytest.raises(ValueError, match="NaN"):
        SoftmaxPolicy().fit(**{**given, "X": np.full((N * K, D), np.nan)})
    with pytest.raises(ValueError, match="neither ridge nor radius"):
        SoftmaxPolicy(ridge=0, reference="uniform").fit(**given)
    for parameters, message in (
        ({"lam": 2}, "lam=2"),
        ({"strategy": "both"}, "strategy='both'"),
        ({"beta": 0}, "beta=0"),
        ({"tol": 0}, "tol=0"),
        ({"radius": -1}, "radius=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            SoftmaxPolicy(**parameters).fit(**given)
    policy = SoftmaxPolicy().fit(**given)
    with pytest.raises(ValueError, match="expected equal numbers"):
        policy.reward_margin(given["chosen"], given["rejected"][:-1])
