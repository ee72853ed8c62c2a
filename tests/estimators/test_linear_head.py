"""The linear preference head against SciPy and hand-written losses."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from cvxnn import LinearPreferenceHead


def pairs(n=30, seed=0, d=4):
    rng = np.random.default_rng(seed)
    chosen, rejected = rng.standard_normal((2, n, d)) * [1, 5, 0.2, 1] + [3, 0, 1, 0]
    chosen[:, 0] += 1
    return chosen, rejected


def stacked(n=30):
    chosen, rejected = pairs(n)
    return np.concatenate([chosen, rejected]), np.repeat([1, 0], n), np.tile(np.arange(n), 2)


def softplus(t):
    return np.logaddexp(0, t)


@pytest.mark.slow
@parametrize_with_checks([LinearPreferenceHead(), LinearPreferenceHead(C=0.1, standardize=False)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("standardize", [True, False])
def test_pairs_against_scipy(standardize):
    chosen, rejected = pairs()
    weight = np.random.default_rng(1).uniform(0.2, 3, 30)
    head = LinearPreferenceHead(C=0.3, standardize=standardize, tol=1e-9)
    head.fit_pairs(chosen, rejected, sample_weight=weight)
    rows, share = np.concatenate([chosen, rejected]), np.tile(weight, 2)
    mean = np.average(rows, axis=0, weights=share)
    scale = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=share))
    margins = (chosen - rejected) / (scale if standardize else 1)

    def loss(w):
        return 0.3 * sum(a * softplus(-m @ w) for a, m in zip(weight, margins, strict=True)) + (
            w @ w / 2
        )

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(head.coef_, best / (scale if standardize else 1), atol=1e-5)
    assert share @ head.decision_function(rows) == pytest.approx(0, abs=1e-9)


def test_single_responses_against_scipy():
    X, y, _ = stacked()
    head = LinearPreferenceHead(C=0.2, tol=1e-9).fit(X, y)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)

    def loss(wb):
        return 0.2 * softplus(-np.where(y == 1, 1, -1) * (Z @ wb[:-1] + wb[-1])).sum() + (
            wb[:-1] @ wb[:-1] / 2
        )

    best = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(head.decision_function(X), Z @ best[:-1] + best[-1], atol=1e-5)


def test_rewards_by_hand():
    chosen, rejected = pairs()
    head = LinearPreferenceHead(C=0.1, beta=0.4).fit_pairs(chosen, rejected)
    logits = chosen @ head.coef_ + head.intercept_
    np.testing.assert_allclose(head.decision_function(chosen), logits)
    np.testing.assert_allclose(head.reward(chosen), -0.4 * softplus(-logits))
    np.testing.assert_allclose(head.predict_proba(chosen)[:, 1], 1 / (1 + np.exp(-logits)))
    np.testing.assert_array_equal(head.predict(chosen), (logits > 0).astype(int))
    margins = head.reward_margin(chosen, rejected)
    np.testing.assert_allclose(margins, head.reward(chosen) - head.reward(rejected))
    assert np.mean(margins > 0) > 0.7


def test_fit_pairs_equals_fit_with_pair_id():
    chosen, rejected = pairs()
    X, y, ids = stacked()
    head = LinearPreferenceHead(C=0.1).fit_pairs(chosen, rejected)
    named = LinearPreferenceHead(C=0.1).fit(X, np.where(y, "good", "bad"), pair_id=ids)
    np.testing.assert_array_equal(named.coef_, head.coef_)
    assert named.classes_.tolist() == ["bad", "good"]


def test_every_preferred_response_meets_every_other_of_its_prompt():
    X, y, _ = stacked(6)
    ids = np.tile(np.arange(6) // 3, 2)
    couples = [(i, j) for i in range(12) for j in range(12) if ids[i] == ids[j] and y[i] > y[j]]
    head = LinearPreferenceHead(C=0.1, standardize=False).fit(X, y, pair_id=ids)
    won, lost = np.array(couples).T
    other = LinearPreferenceHead(C=0.1, standardize=False).fit_pairs(X[won], X[lost])
    assert len(couples) == 2 * 9
    np.testing.assert_allclose(head.coef_, other.coef_, atol=1e-4)


def test_weight_of_a_pair_equals_its_repetition():
    chosen, rejected = pairs()
    weight = np.tile([0, 1, 3], 10)
    weighted = LinearPreferenceHead(C=0.1, tol=1e-9).fit_pairs(chosen, rejected, weight)
    repeated = LinearPreferenceHead(C=0.1, tol=1e-9).fit_pairs(
        chosen.repeat(weight, axis=0), rejected.repeat(weight, axis=0)
    )
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-6)


def test_chosen_strength_is_the_best_of_the_folds():
    chosen, rejected = pairs(40)
    head = LinearPreferenceHead(n_folds=4).fit_pairs(chosen, rejected)
    assert head.cv_scores_.shape == (4, len(head.Cs_))
    assert head.Cs_[head.cv_scores_.mean(axis=0).argmax()] == head.C_
    again = LinearPreferenceHead(C=head.C_).fit_pairs(chosen, rejected)
    np.testing.assert_array_equal(again.coef_, head.coef_)
    assert head.flops_ > 4 * again.flops_ > 0
    assert not hasattr(clone(head).set_params(C=1.0).fit_pairs(chosen, rejected), "Cs_")


@pytest.mark.slow
def test_noise_gets_a_strong_penalty_and_signal_a_weak_one():
    noise = [np.random.default_rng(k).standard_normal((2, 60, 20)) for k in range(9)]
    chosen_for_noise = [LinearPreferenceHead().fit_pairs(*pair).C_ for pair in noise]
    assert np.median(chosen_for_noise) <= 1e-3
    chosen, rejected = pairs(60)
    assert LinearPreferenceHead().fit_pairs(np.add(chosen, [3, 0, 0, 0]), rejected).C_ >= 1e-2


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_pairs(n):
    chosen, rejected = pairs(n)
    head = LinearPreferenceHead().fit_pairs(chosen, rejected)
    assert np.isfinite(head.coef_).all()
    assert head.cv_scores_.shape[0] == (n if n > 1 else 0)
    assert np.all(head.reward_margin(chosen, rejected) > 0)


def test_dtype_follows_the_data(dtype):
    chosen, rejected = (part.astype(dtype) for part in pairs())
    head = LinearPreferenceHead().fit_pairs(chosen, rejected)
    assert head.coef_.dtype == dtype
    assert head.reward(chosen).dtype == dtype


def test_constant_features_and_equal_responses():
    chosen, rejected = pairs()
    chosen[:, 2] = rejected[:, 2] = 7.0
    head = LinearPreferenceHead(C=0.1).fit_pairs(chosen, rejected)
    assert head.coef_[2] == 0
    with pytest.warns(UserWarning, match="gives all responses the same reward"):
        same = LinearPreferenceHead().fit_pairs(chosen, chosen)
    np.testing.assert_array_equal(same.reward_margin(chosen, chosen), 0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"C": 0}, "C=0; expected a number above 0, or 'auto'"),
        ({"C": "best"}, "C='best'"),
        ({"C": np.inf}, "C=inf"),
        ({"beta": -1.0}, "beta=-1.0; expected a number above 0"),
        ({"n_folds": 1}, "n_folds=1; expected an integer at least 2"),
        ({"max_iter": True}, "max_iter=True"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        LinearPreferenceHead(**parameters).fit_pairs(*pairs())


def test_bad_data():
    chosen, rejected = pairs()
    head = LinearPreferenceHead(C=0.1)
    with pytest.raises(NotFittedError):
        head.reward(chosen)
    with pytest.raises(ValueError, match="one row of each for every pair"):
        head.fit_pairs(chosen, rejected[:-1])
    with pytest.raises(ValueError, match="no pair can be formed"):
        head.fit(*stacked()[:2], pair_id=np.arange(60))
    with pytest.raises(ValueError, match=r"pair_id has shape \(3,\); expected \(60,\)"):
        head.fit(*stacked()[:2], pair_id=np.arange(3))
    with pytest.raises(ValueError, match="multiclass, 3 labels"):
        head.fit(chosen, np.arange(30) % 3)
    before = vars(head.fit_pairs(chosen, rejected)).copy()
    with pytest.raises(ValueError, match="NaN"):
        head.fit_pairs(np.where(chosen > 4, np.nan, chosen), rejected)
    assert vars(head) == before


def test_too_few_iterations_are_told():
    with pytest.warns(ConvergenceWarning):
        LinearPreferenceHead(C=1.0, max_iter=1).fit_pairs(*pairs())


def test_embedding_is_kept_as_it_is():
    embedding = {
        **dict.fromkeys(["fingerprint", "fingerprint_float16", "fingerprint_bfloat16"], "0" * 64),
        "model": "tiny",
        "dtype": "float32",
        "layer": 2,
        "pooling": "mean",
        "max_length": 64,
        "date": "2024-07-26",
        "context": 0,
        "width": 4,
    }
    head = LinearPreferenceHead(C=0.1, embedding=embedding).fit_pairs(*pairs())
    assert head.embedding is embedding
    assert json.loads(json.dumps(head.embedding)) == embedding
    with pytest.raises(ValueError, match="X has 3 features, but those of embedding are 4"):
        head.fit_pairs(*(part[:, :3] for part in pairs()))
