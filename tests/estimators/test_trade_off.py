"""Heads on the front between objectives, beside CVXPY and beside each other."""

import pickle

import cvxpy as cp
import numpy as np
import pytest

from cvxnn import COALAPreferenceHead, load, save


@pytest.fixture(scope="module")
def trade_off():
    rng = np.random.RandomState(0)
    chosen, rejected = rng.randn(2, 40, 3)
    kind = np.array(["harmless", "helpful"])[np.arange(40) % 2]
    apart = (chosen - rejected)[:, 0] + np.where(kind == "helpful", 1, -1) * (chosen - rejected)[
        :, 1
    ]
    turn = apart < 0
    chosen[turn], rejected[turn] = rejected[turn].copy(), chosen[turn].copy()
    head = COALAPreferenceHead(n_patterns=4, random_state=0).fit_pairs(chosen, rejected)
    data = np.concatenate([chosen, rejected]), np.repeat([1, 0], 40)
    return head, data, kind, head.trade_off(*data, np.tile(kind, 2))


def parts(trade_off):
    """Features of the pairs of each objective, and alpha."""
    head, data, kind, _ = trade_off
    solved = head._solved(*data, None, None)
    inputs, mask = solved.look(data[0])
    features = (mask[:, :, None] * np.asarray(inputs, float)[:, None, :]).reshape(80, -1)
    features = features[:40] - features[40:]
    alpha = float(np.ravel(solved.certificate.program.alpha)[0])
    return [features[kind == name] for name in ("harmless", "helpful")], alpha


def solve(features, alpha, weights, thresholds=()):
    z = cp.Variable(features[0].shape[1])
    losses = [cp.sum_squares(1 - F @ z) / (2 * len(F)) for F in features]
    objective = sum(w * loss for w, loss in zip(weights, losses, strict=True))
    problem = cp.Problem(
        cp.Minimize(objective + alpha / 2 * cp.sum_squares(z)),
        [losses[k] <= most for k, most in thresholds],
    )
    value = problem.solve(solver=cp.CLARABEL)
    prices = [np.ravel(c.dual_value)[0] for c in problem.constraints]
    return value, np.array([loss.value for loss in losses]), prices


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_weights(trade_off, weight):
    head = trade_off[-1].at({"helpful": weight, "harmless": 1 - weight})
    value, losses, _ = solve(*parts(trade_off), (1 - weight, weight))
    assert head.objective_ == pytest.approx(value, rel=1e-6)
    assert abs(head.gap_) < 1e-8
    np.testing.assert_allclose(head.losses_, losses, rtol=1e-4)


@pytest.mark.parametrize("most", [0.3, 0.2, 10.0])
def test_thresholds_and_their_prices(trade_off, most):
    head = trade_off[-1].within("helpful", {"harmless": most})
    _, losses, prices = solve(*parts(trade_off), (0, 1), [(0, most)])
    np.testing.assert_allclose(head.losses_, losses, rtol=1e-4)
    assert head.prices_[0] == pytest.approx(prices[0], rel=1e-2, abs=1e-4)
    assert head.losses_[0] <= most * (1 + 1e-6)


def test_thresholds_near_the_least_loss(trade_off):
    """The price has no bound at the least loss; a little above, it is told to be dear."""
    *_, front = trade_off
    least = front.objectives.at([1e6, 1.0]).losses[0]
    with pytest.raises(ValueError, match=r"harmless, .* its price has no bound"):
        front.within("helpful", {"harmless": least})
    with pytest.warns(UserWarning, match="near the least loss"):
        head = front.within("helpful", {"harmless": least * 1.001})
    assert head.losses_[0] <= least * 1.0011


def test_losses_are_those_of_the_margins(trade_off):
    _, (X, _), kind, front = trade_off
    head = front.at({"helpful": 1, "harmless": 1})
    scores = head.phase1_network_.forward(X)[:, 0]
    squares = (1 - scores[:40] + scores[40:]) ** 2 / 2
    want = [squares[kind == name].mean() for name in front.names]
    np.testing.assert_allclose(head.losses_, want, rtol=1e-6)


def test_equal_parts_give_the_head_itself(trade_off, tmp_path):
    head, (X, _), _, front = trade_off
    same = front.at({"helpful": 2.0, "harmless": 2.0})
    np.testing.assert_allclose(same.reward(X), head.reward(X), atol=1e-9)
    save(same, tmp_path / "head.safetensors")
    again = load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(again.reward(X), same.reward(X))
    with pytest.raises(ValueError, match="or several objectives"):
        same.certificate(X, np.repeat([1, 0], 40))


def test_the_front_is_convex_and_falls(trade_off):
    losses = np.array(
        [trade_off[-1].at({"helpful": w, "harmless": 1 - w}).losses_ for w in np.linspace(0, 1, 9)]
    )
    assert (np.diff(losses[:, 0]) > 0).all()
    assert (np.diff(losses[:, 1]) < 0).all()


def test_answers_can_be_pickled(trade_off):
    """They hold no local function; a copy says the same."""
    head, data, _, front = trade_off
    X = data[0]
    answers = [
        (front, lambda own: own.at({"helpful": 1, "harmless": 0}).reward(X)),
        (head.influence(*data), lambda own: own.scores_on(X[:3]) + own.error_on(X[:3])),
        (head.curvature(*data), lambda own: own.deviation_among(X) + own.deviation_on(X)),
        (head.curvature(*data), lambda own: own.decided(X[:3], X[3:6])),
    ]
    for answer, say in answers:
        np.testing.assert_array_equal(say(pickle.loads(pickle.dumps(answer))), say(answer))


def test_bad_input(trade_off):
    head, data, kind, front = trade_off
    assert "harmless: 20, helpful: 20 pairs" in repr(front)
    with pytest.raises(ValueError, match="no objective 'kind'"):
        front.at({"kind": 1})
    with pytest.raises(ValueError, match="all 0"):
        front.at({"helpful": 0, "harmless": 0})
    with pytest.raises(ValueError, match="no weight of 'harmless'"):
        front.at({"helpful": 1})
    with pytest.raises(TypeError, match="expected a dict of weights by objective"):
        front.at([1, 1])
    with pytest.raises(TypeError, match="expected a dict of thresholds by objective"):
        front.within("helpful", [1])
    with pytest.raises(ValueError, match="threshold on harmless is 0; expected at least 1e-07"):
        front.within("helpful", {"harmless": 0.0})
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        front.at({"helpful": -1, "harmless": 2})
    with pytest.raises(ValueError, match="only one"):
        front.within("helpful", {"helpful": 1})
    with pytest.raises(ValueError, match=r"keep the loss of harmless to 0\.001"):
        front.within("helpful", {"harmless": 1e-3})
    with pytest.raises(ValueError, match="at least two"):
        head.trade_off(*data, np.repeat("helpful", 80))
    with pytest.raises(ValueError, match="responses of 40 of 40 pairs have different"):
        head.trade_off(*data, np.repeat(["helpful", "harmless"], 40))
    alone = COALAPreferenceHead(n_patterns=4, random_state=0).fit(*data)
    with pytest.raises(TypeError, match="fitted to pairs"):
        alone.trade_off(*data, np.tile(kind, 2))


def test_a_later_fit_leaves_the_front_as_it_was():
    rng = np.random.RandomState(0)
    chosen, rejected = rng.randn(30, 3) + 0.5, rng.randn(30, 3)
    data = np.concatenate([chosen, rejected]), np.repeat([1, 0], 30)
    head = COALAPreferenceHead(n_patterns=4, random_state=0).fit_pairs(chosen, rejected)
    front = head.trade_off(*data, np.tile(np.arange(30) % 2, 2))
    before = front.at({0: 1, 1: 2}).reward(chosen)
    head.fit_pairs(3 * rejected, chosen)
    np.testing.assert_array_equal(front.at({0: 1, 1: 2}).reward(chosen), before)
    with pytest.raises(ValueError, match="finite numbers"):
        front.at({0: np.inf, 1: 1})
    relu = COALAPreferenceHead(formulation="relu", n_patterns=4, random_state=0)
    with pytest.raises(TypeError, match="formulation='gated'"):
        relu.fit_pairs(chosen, rejected).trade_off(*data, np.tile(np.arange(30) % 2, 2))
