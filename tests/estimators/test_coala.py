"""The preference head of the paper: both phases against SciPy and hand-written losses."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cvxnn import COALAPreferenceHead
from cvxnn.convex import Cronos


def make(**options):
    given = {"formulation": "relu", "strength": 0.05, "n_patterns": 8, "random_state": 0}
    return COALAPreferenceHead(**{**given, **options})


def pairs(n=20, seed=0):
    """Chosen responses lie further out along the first axis, on either side."""
    rng = np.random.default_rng(seed)
    chosen, rejected = rng.standard_normal((2, n, 3))
    chosen[:, 0] += 1.5 * np.sign(chosen[:, 0])
    return chosen, rejected


def stacked(n=20):
    chosen, rejected = pairs(n)
    return np.concatenate([chosen, rejected]), np.repeat([1, 0], n), np.tile(np.arange(n), 2)


def softplus(t):
    return np.logaddexp(0, t)


class Oracle:
    """Phase II from its description: hidden features at unit scale, COALA loss, ridge."""

    def __init__(self, head, X, preferred, couples, weight=None):
        weight = np.ones(len(X)) if weight is None else weight
        self.head = head
        hidden = head.phase1_network_.hidden(X)
        self.scale = np.sqrt(weight @ hidden**2 / weight.sum())
        hidden = hidden / self.scale
        if head.loss == "pairwise" and couples is not None:
            self.bias = False
            self.margins = np.array([hidden[i] - hidden[j] for i, j in couples])
            omega = np.array([weight[i] * weight[j] for i, j in couples])
        else:
            self.bias = True
            hidden = np.column_stack([hidden, np.ones(len(X))])
            self.margins = np.where(preferred, 1, -1)[:, None] * hidden
            omega = weight
        self.omega = omega / omega.sum()

    def __call__(self, theta):
        h = self.head
        loss = sum(
            w * softplus(h.gamma - h.beta * (m @ theta))
            for w, m in zip(self.omega, self.margins, strict=True)
        )
        return loss + h.ridge / 2 * theta @ theta

    def last_layer(self, network):
        theta = network.output_weights * self.scale
        return np.append(theta, network.output_bias) if self.bias else theta

    def check(self):
        head = self.head
        theta = self.last_layer(head.network_)
        assert head.phase2_objective_ == pytest.approx(self(theta), rel=1e-9)
        best = minimize(self, theta, method="BFGS", options={"gtol": 1e-7}).fun
        assert head.phase2_dual_bound_ <= best + 1e-9
        assert best <= head.phase2_objective_ + 1e-9
        assert head.phase2_objective_ <= best * (1 + 1e-4)
        assert head.phase2_objective_ <= self(self.last_layer(head.phase1_network_))
        assert 0 <= head.phase2_gap_ <= 1e-4


@pytest.fixture(scope="module")
def fitted():
    chosen, rejected = pairs()
    return make().fit_pairs(chosen, rejected), chosen, rejected


@pytest.mark.parametrize("loss", ["pairwise", "pointwise"])
def test_phase_two_against_scipy(loss):
    X, y, ids = stacked()
    head = make(loss=loss, beta=0.7, gamma=0.3, ridge=1e-2).fit(X, y, pair_id=ids)
    Oracle(head, X, y == 1, [(k, k + 20) for k in range(20)]).check()


def test_learns_preferences_that_no_line_orders(fitted):
    head, chosen, rejected = fitted
    assert np.mean(head.reward_margin(chosen, rejected) > 0) >= 0.95
    assert np.mean(head.reward_margin(*pairs(500, seed=1)) > 0) > 0.8
    assert head.classes_.tolist() == [0, 1]
    assert head.score(np.concatenate([chosen, rejected]), np.repeat([1, 0], 20)) > 0.8


def test_phase_two_moves_only_the_last_layer(fitted):
    head, _, _ = fitted
    before, after = head.phase1_network_, head.network_
    np.testing.assert_array_equal(after.hidden_weights, before.hidden_weights)
    np.testing.assert_array_equal(after.hidden_bias, before.hidden_bias)
    assert not np.array_equal(after.output_weights, before.output_weights)


def test_rewards_by_hand(fitted):
    head, chosen, rejected = fitted
    reward = head.reward(chosen)
    assert np.all(reward <= 0)
    by_hand = [head.beta * np.log(1 / (1 + np.exp(-g))) for g in head.decision_function(chosen)]
    np.testing.assert_allclose(reward, by_hand)
    proba = head.predict_proba(chosen)
    np.testing.assert_allclose(reward, head.beta * np.log(proba[:, 1]))
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(head.predict(chosen), proba.argmax(axis=1))
    margins = head.reward_margin(chosen, rejected)
    np.testing.assert_array_equal(margins, -head.reward_margin(rejected, chosen))
    np.testing.assert_allclose(margins, reward - head.reward(rejected))


def test_rewards_scale_with_beta():
    chosen, rejected = pairs()
    head = make(beta=0.2).fit_pairs(chosen, rejected)
    np.testing.assert_allclose(head.reward(chosen), 0.2 * np.log(head.predict_proba(chosen)[:, 1]))


def test_history_follows_the_rewards(fitted):
    head, chosen, rejected = fitted
    history = head.phase2_history_
    names = {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"}
    assert names <= set(history)
    assert len({len(column) for column in history.values()}) == 1
    np.testing.assert_allclose(
        history["rewards/margins"], history["rewards/chosen"] - history["rewards/rejected"]
    )
    # The last row is of the last iterate; the network is the best one, which it nearly is.
    last = {name: history[name][-1] for name in names}
    assert last["rewards/chosen"] == pytest.approx(head.reward(chosen).mean(), abs=1e-2)
    assert last["rewards/rejected"] == pytest.approx(head.reward(rejected).mean(), abs=1e-2)
    margins = head.reward_margin(chosen, rejected)
    assert last["rewards/accuracies"] == pytest.approx(np.mean(margins > 0), abs=0.05)
    assert "rewards/margins" not in head.history_


@pytest.mark.parametrize("shift", [0.3, 3.0])  # pairs that overlap, and separable ones
def test_margins_rise_at_every_iteration(shift):
    rng = np.random.default_rng(0)
    chosen, rejected = rng.standard_normal((2, 200, 12)) * np.geomspace(1, 0.05, 12)
    head = COALAPreferenceHead(formulation="relu", n_patterns=16, random_state=0)
    head.fit_pairs(chosen + shift * np.eye(12)[0], rejected)
    margins = head.phase2_history_["rewards/margins"]
    assert margins[-1] > 1.2 * margins[0]
    assert (np.diff(margins) > -1e-4 * margins[-1]).all()


def test_few_pairs_compile_nothing(compilations):
    (chosen, rejected), before = pairs(19), compilations()
    head = make().fit_pairs(chosen, rejected)
    assert compilations() == before
    assert head.phase2_gap_ <= 1e-4


def test_fit_pairs_equals_fit_with_pair_id(fitted):
    head, chosen, _ = fitted
    X, y, ids = stacked()
    other = make().fit(X, y, pair_id=ids)
    np.testing.assert_array_equal(other.reward(chosen), head.reward(chosen))
    named = make().fit(X, y, pair_id=np.array([f"prompt {i}" for i in ids]))
    np.testing.assert_allclose(named.reward(chosen), head.reward(chosen), atol=1e-3)


def test_every_preferred_response_meets_every_other_of_its_prompt():
    X, y, _ = stacked()
    ids = np.tile(np.arange(20) // 4, 2)
    ids[0] = 99  # a preferred response without rivals forms no pair
    head = make(ridge=1e-2).fit(X, y, pair_id=ids)
    couples = [(i, j) for i in range(40) for j in range(40) if ids[i] == ids[j] and y[i] > y[j]]
    assert len(couples) == 3 * 4 + 4 * 4 * 4
    Oracle(head, X, y == 1, couples).check()


def test_without_pairs_the_loss_is_pointwise():
    X, y, ids = stacked()
    free = make().fit(X, y)
    pointwise = make(loss="pointwise").fit(X, y, pair_id=ids)
    pairwise = make().fit(X, y, pair_id=ids)
    np.testing.assert_allclose(free.reward(X), pointwise.reward(X), atol=1e-9)
    assert np.abs(pairwise.reward(X) - pointwise.reward(X)).max() > 0.05


def test_level_of_the_logits():
    # Pairs say nothing of it, so that it is set; single responses do.
    X, y, ids = stacked()
    weight = np.where(ids % 2 == 0, 1.0, 2.0)
    pairwise = make().fit(X, y, pair_id=ids, sample_weight=weight)
    assert weight @ pairwise.decision_function(X) == pytest.approx(0, abs=1e-9)
    pointwise = make(loss="pointwise", gamma=0).fit(X, y, sample_weight=5 * y + 1)
    assert pointwise.decision_function(X).mean() > 0.5


def test_weights_against_scipy():
    X, y, ids = stacked()
    weight = np.random.default_rng(4).uniform(0.2, 3, 40)
    head = make(ridge=1e-2).fit(X, y, pair_id=ids, sample_weight=weight)
    Oracle(head, X, y == 1, [(k, k + 20) for k in range(20)], weight).check()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("loss", ["pairwise", "pointwise"])
def test_weight_of_a_pair_equals_its_repetition(loss):
    # On a line the program holds every pattern, so that there is one optimum to agree on.
    chosen, rejected = (part[:, :1] for part in pairs(10))
    weight = np.tile([1, 2, 3, 2, 2], 2)
    solver = Cronos(tol=1e-8, max_iter=6000, certify="program", linear_solver="dual")
    options = {"strength": 0.02, "patterns": "gaussian", "n_patterns": 64, "solver": solver}
    weighted = make(loss=loss, **options).fit_pairs(chosen, rejected, sample_weight=weight)
    repeated = make(loss=loss, **options).fit_pairs(
        chosen.repeat(weight, axis=0), rejected.repeat(weight, axis=0)
    )
    assert weighted.objective_ == pytest.approx(repeated.objective_, rel=1e-6)
    assert weighted.phase2_objective_ == pytest.approx(repeated.phase2_objective_, rel=1e-3)
    np.testing.assert_allclose(weighted.reward(chosen), repeated.reward(chosen), atol=1e-2)


def test_pairs_of_zero_weight_are_absent(fitted):
    head, chosen, rejected = fitted
    more = np.full((2, 3), 50.0)
    weight = np.r_[np.ones(20), np.zeros(2)]
    zeroed = make().fit_pairs(np.r_[chosen, more], np.r_[rejected, -more], sample_weight=weight)
    np.testing.assert_array_equal(zeroed.reward(chosen), head.reward(chosen))
    X, y, ids = stacked()
    zeroed = make().fit(
        np.r_[X, more], np.r_[y, 1, 0], np.r_[ids, 0, 0], sample_weight=np.r_[np.ones(40), 0, 0]
    )
    np.testing.assert_array_equal(zeroed.reward(chosen), head.reward(chosen))


def test_weights_that_leave_no_pair():
    X, y, ids = stacked()
    weight = np.where((ids % 2 == 0) == (y == 1), 1.0, 0.0)
    with pytest.raises(ValueError, match="no pair can be formed"):
        make().fit(X, y, pair_id=ids, sample_weight=weight)


@pytest.mark.slow
def test_cross_validation_in_a_pipeline():
    X, y, _ = stacked(24)
    order = np.random.default_rng(0).permutation(48)
    scores = cross_val_score(
        make_pipeline(StandardScaler(), make(strength=0.02)), X[order], y[order], cv=KFold(3)
    )
    assert scores.mean() > 0.7


@pytest.mark.parametrize("labels", [[False, True], ["bad", "good"], [-1, 1]])
def test_larger_label_means_preferred(labels):
    X, y, _ = stacked()
    head = make().fit(X, np.array(labels)[y])
    assert head.classes_.tolist() == labels
    assert head.reward(X[y == 1]).mean() > head.reward(X[y == 0]).mean() + 0.5
    assert np.mean(head.predict(X) == np.array(labels)[y]) > 0.8


def test_dtype_follows_the_data(dtype):
    chosen, rejected = (part.astype(dtype) for part in pairs())
    head = make().fit_pairs(chosen, rejected)
    for part in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        assert getattr(head.network_, part).dtype == dtype
    for method in (head.reward, head.decision_function, head.predict_proba):
        assert method(chosen).dtype == dtype
    assert np.mean(head.reward_margin(chosen, rejected) > 0) >= 0.95


def test_same_seed_same_bits(fitted):
    head, chosen, rejected = fitted
    again = make().fit_pairs(chosen, rejected)
    np.testing.assert_array_equal(again.reward(chosen), head.reward(chosen))


def test_names_of_data_frames(fitted):
    head, chosen, rejected = fitted
    frames = [pd.DataFrame(part, columns=["a", "b", "c"]) for part in (chosen, rejected)]
    named = make().fit_pairs(*frames)
    assert named.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(
        named.reward_margin(*frames), head.reward_margin(chosen, rejected)
    )
    with pytest.raises(ValueError, match="feature names should match"):
        make().fit_pairs(frames[0], frames[1].rename(columns={"a": "z"}))


def test_identical_responses_have_margin_zero():
    same, _ = pairs()
    with pytest.warns(UserWarning, match="have the embeddings of the others"):
        head = make(strength=0.01).fit_pairs(same, same)
    np.testing.assert_array_equal(head.reward_margin(same, same), 0)
    assert np.isfinite(head.phase2_objective_)


def test_large_strength_gives_one_reward_for_all():
    chosen, rejected = pairs()
    with pytest.warns(UserWarning, match="predicts the same for all rows, at a strength of 10 "):
        head = make(strength=10).fit_pairs(chosen, rejected)
    assert head.network_.n_neurons == 0
    assert len(np.unique(head.reward(chosen))) == 1


def test_warnings_name_phase_remedy_and_caller():
    chosen, rejected = pairs()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        make(max_iter=1, tol=0).fit_pairs(chosen, rejected)
    assert {warning.category for warning in seen} == {ConvergenceWarning}
    assert {warning.filename for warning in seen} == {__file__}
    first, second = (str(warning.message) for warning in seen)
    assert "(phase I)" in first
    assert "(phase II)" in second
    assert "Increase max_iter" in first
    assert "Increase max_iter" in second
