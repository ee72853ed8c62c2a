"""The private head: what it shows, what it refuses, and scikit-learn's checks."""

import inspect

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from cvxnn import PrivatePreferenceHead, load, save


def pairs(n=300, d=4, seed=0):
    rng = np.random.RandomState(seed)
    return rng.randn(n, d) + 0.7, rng.randn(n, d)


@parametrize_with_checks([PrivatePreferenceHead(epsilon=1e4, noise_state=0)])
def test_sklearn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("loss", ["logistic", "huber"])
@pytest.mark.parametrize("n_gates", [1, 5])
def test_a_budget_costs_accuracy_and_a_large_one_nothing(loss, n_gates):
    chosen, rejected = pairs()
    new = pairs(seed=1)
    found = {}
    for epsilon in (0.05, 2.0, 1e4):
        head = PrivatePreferenceHead(epsilon, loss=loss, n_gates=n_gates, noise_state=3)
        found[epsilon] = (head.fit_pairs(chosen, rejected).reward_margin(*new) > 0).mean()
    assert found[2.0] > 0.75
    assert found[1e4] > 0.8
    assert found[0.05] < found[1e4]


def test_the_scale_of_a_record_does_not_matter():
    chosen, rejected = pairs()
    head = PrivatePreferenceHead(noise_state=0).fit_pairs(chosen, rejected)
    scale = np.random.RandomState(2).uniform(0.1, 1e6, (len(chosen), 1))
    other = PrivatePreferenceHead(noise_state=0).fit_pairs(scale * chosen, scale * rejected)
    np.testing.assert_allclose(
        head.decision_function(chosen), other.decision_function(chosen), atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:.*nothing but noise:UserWarning")
def test_equal_replies_say_nothing():
    chosen, _ = pairs()
    head = PrivatePreferenceHead(noise_state=0).fit_pairs(chosen, chosen)
    assert np.isfinite(head.reward(chosen)).all()


def test_noise_has_a_seed_of_its_own(tmp_path):
    chosen, rejected = pairs()
    first, second = (PrivatePreferenceHead(n_gates=3).fit_pairs(chosen, rejected) for _ in range(2))
    np.testing.assert_array_equal(first.network_.gate_weights, second.network_.gate_weights)
    assert not np.allclose(first.reward(chosen), second.reward(chosen))
    save(first, tmp_path / "head")
    np.testing.assert_array_equal(load(tmp_path / "head").reward(chosen), first.reward(chosen))


def test_responses_without_pairs():
    chosen, rejected = pairs()
    X, y = np.concatenate([chosen, rejected]), np.repeat(["good", "bad"], len(chosen))
    assert PrivatePreferenceHead(5.0, noise_state=0).fit(X, y).score(X, y) > 0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0}, "epsilon=0"),
        ({"delta": 1.0}, "between 0 and 1"),
        ({"n_gates": 0}, "n_gates=0"),
        ({"alpha": 0.1}, r"expected more than 0\.14"),
    ],
)
def test_bad_input(settings, message):
    with pytest.raises(ValueError, match=message):
        PrivatePreferenceHead(**settings).fit_pairs(*pairs())


@pytest.mark.parametrize("method", [PrivatePreferenceHead.fit, PrivatePreferenceHead.fit_pairs])
def test_a_record_has_one_share_of_the_budget(method):
    assert not {"sample_weight", "groups"} & set(inspect.signature(method).parameters)
