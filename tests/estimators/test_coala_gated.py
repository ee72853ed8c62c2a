"""The preference head with many gates: against explicit features and refits in float64."""

import itertools
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge as PlainRidge

from cvxnn import COALAPreferenceHead, load, load_network, save
from cvxnn.comparison.course import Course
from cvxnn.convex import Cronos, Ridge
from cvxnn.estimators._distinct_pairs import DistinctPairs
from cvxnn.estimators._responses import Responses


def make(**options: Any) -> COALAPreferenceHead:
    given = {"formulation": "gated", "n_patterns": 24, "tol": 1e-9, "random_state": 0, **options}
    return COALAPreferenceHead(**given)


def pairs(n: int = 40, d: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Chosen responses lie further out along the first axis, on either side."""
    rng = np.random.default_rng(seed)
    chosen, rejected = rng.standard_normal((2, n, d))
    chosen[:, 0] += 1.5 * np.sign(chosen[:, 0])
    return chosen, rejected


def stacked(chosen: np.ndarray, rejected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([chosen, rejected]), np.repeat([1, 0], len(chosen))


def features(operator: Any) -> np.ndarray:
    """Differences of gated features, one row a pair."""
    F = (operator.mask[:, :, None] * operator.X[:, None, :]).reshape(len(operator.X), -1)
    return np.array([F[i] - F[j] for i, j in operator.pairs])


def test_phase_one_is_ridge_regression_on_differences_of_gated_features() -> None:
    chosen, rejected = pairs()
    weight = np.linspace(0.5, 2, len(chosen))
    head = make(strength=0.01).fit_pairs(chosen, rejected, weight)
    program, weights, dual = head.certificate(*stacked(chosen, rejected), np.tile(weight, 2))
    A, omega = features(program.operator), program.sample_weight / program.sample_weight.sum()
    plain = PlainRidge(alpha=head.alpha_, fit_intercept=False, solver="svd")
    plain.fit(A, np.ones(len(A)), sample_weight=omega)
    np.testing.assert_allclose(weights.blocks.ravel(), plain.coef_, atol=1e-10)
    value = omega @ (1 - A @ plain.coef_) ** 2 / 2 + head.alpha_ / 2 * plain.coef_ @ plain.coef_
    assert head.objective_ == pytest.approx(value, rel=1e-9)
    assert dual is not None
    assert float(program.bound_of(dual)) == pytest.approx(head.dual_bound_, rel=1e-9)
    assert head.dual_bound_ <= head.objective_ + 1e-12
    won, lost = (head.phase1_network_.forward(X)[:, 0] for X in (chosen, rejected))
    order = np.argsort(won - lost)
    np.testing.assert_allclose((won - lost)[order], np.sort(A @ plain.coef_), atol=1e-9)


def refits(A: np.ndarray, alpha: float, groups: np.ndarray) -> np.ndarray:
    """Return margins of each group by a ridge regression on all others."""
    margins = np.empty(len(A))
    for group in np.unique(groups):
        out = groups == group
        K = A[~out] @ A[~out].T / len(A)
        u = np.linalg.solve(K + alpha * np.eye(len(K)), np.ones(len(K)) / len(A))
        margins[out] = A[out] @ (A[~out].T @ u)
    return margins


@pytest.mark.parametrize("given_groups", [True, False])
def test_strength_and_scale_are_chosen_on_groups_that_are_left_out(given_groups: bool) -> None:
    chosen, rejected = pairs(n=36)
    if given_groups:
        groups = np.arange(36) % 9
        head = make().fit_pairs(chosen, rejected, groups=groups)
    else:  # of each four pairs, all share their rejected response
        rejected, groups = np.repeat(rejected[:9], 4, axis=0), None
        head = make().fit_pairs(chosen, rejected)
    rows = DistinctPairs.of(Responses.of_pairs(chosen, rejected, np.ones(36), groups))
    assert rows.groups is not None
    assert len(np.unique(rows.groups)) == 9
    twice = None if groups is None else np.tile(groups, 2)
    program = head.certificate(*stacked(chosen, rejected), groups=twice).program
    A = features(program.operator)

    def error(alpha: float) -> float:
        return float(((1 - refits(A, alpha, rows.groups)) ** 2).mean())

    step = 10 ** (8 / 30)  # of the strengths that are tried
    assert error(head.alpha_) <= min(error(head.alpha_ * step), error(head.alpha_ / step))
    outputs = head.phase1_network_.forward(np.concatenate([chosen, rejected]))[:, 0]
    unit = np.sqrt((outputs**2).mean())
    margins = refits(A, head.alpha_, rows.groups)

    def loss(factor: float) -> float:
        fit = np.logaddexp(0, head.gamma - head.beta * factor * margins).mean()
        return fit + head.ridge / 2 * (factor * unit) ** 2

    best = minimize_scalar(loss, bounds=(0, 1e3), method="bounded", options={"xatol": 1e-9})
    assert head.phase2_objective_ == pytest.approx(best.fun, rel=1e-4)
    factor = head.decision_function(chosen) - head.decision_function(rejected)
    factor /= outputs[:36] - outputs[36:]
    np.testing.assert_allclose(factor, best.x, rtol=2e-2)
    np.testing.assert_allclose(np.ptp(factor), 0, atol=1e-6)  # one factor for all


@pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning")
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_swapping_turns_margins_round_and_weights_are_repetitions(seed: int) -> None:
    n = 10
    chosen, rejected = pairs(n, 3, seed)
    head = make(n_patterns=8, strength=0.01).fit_pairs(chosen, rejected)
    swapped = make(n_patterns=8, strength=0.01).fit_pairs(rejected, chosen)
    margins = head.decision_function(chosen) - head.decision_function(rejected)
    turned = swapped.decision_function(chosen) - swapped.decision_function(rejected)
    np.testing.assert_allclose(turned, -margins, rtol=1e-5, atol=1e-7)
    count = 1 + np.arange(n) % 3
    options = {"n_patterns": 8}
    repeated = make(**options).fit_pairs(chosen.repeat(count, 0), rejected.repeat(count, 0))
    weighted = make(**options).fit_pairs(chosen, rejected, count)
    assert weighted.strength_ == repeated.strength_
    np.testing.assert_allclose(
        weighted.decision_function(chosen), repeated.decision_function(chosen), rtol=1e-9
    )


def test_order_and_pair_id_do_not_matter() -> None:
    chosen, rejected = pairs()
    head = make().fit_pairs(chosen, rejected)
    assert head.n_pairs_ == 40
    back = make().fit_pairs(chosen[::-1], rejected[::-1])
    np.testing.assert_allclose(back.reward(chosen), head.reward(chosen), rtol=1e-12)
    X, y = stacked(chosen, rejected)
    ids = np.tile(np.arange(40), 2)
    same = make().fit(X, y, pair_id=ids)
    np.testing.assert_allclose(same.reward(chosen), head.reward(chosen), rtol=1e-12)
    proof = same.certificate(X, y, pair_id=ids)
    assert float(proof.program.evaluate(proof.weights).objective) == pytest.approx(head.objective_)
    with pytest.raises(ValueError, match="give pair_id"):
        same.certificate(X[::-1], y[::-1])
    with pytest.raises(ValueError, match="not those of the fit"):
        same.certificate(X, y, pair_id=np.roll(ids, 1) // 2 * 2)


def test_single_responses_have_targets_of_both_signs() -> None:
    X, y = stacked(*pairs())
    head = make().fit(X, y)
    assert head.n_pairs_ == 0
    assert head.score(X, y) > 0.8
    program, weights, _ = head.certificate(X, y)
    A = (program.operator.mask[:, :, None] * program.operator.X[:, None, :]).reshape(len(X), -1)
    plain = PlainRidge(alpha=len(A) * head.alpha_, fit_intercept=False, solver="svd")
    plain.fit(A, program.y[:, 0])
    np.testing.assert_allclose(weights.blocks.ravel(), plain.coef_, atol=1e-9)


def test_a_sample_of_many_pairs_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, rejected = pairs(120)
    groups = np.arange(120) // 3
    whole = make().fit_pairs(chosen, rejected, groups=groups)
    monkeypatch.setattr("cvxnn.estimators._pair_program._MOST_PAIRS", 60)
    part = make().fit_pairs(chosen, rejected, groups=groups)
    assert 0.05 < part.strength_ / whole.strength_ < 20
    assert (part.reward_margin(chosen, rejected) > 0).mean() > 0.85
    found = part.certificate(*stacked(chosen, rejected), groups=np.tile(groups, 2))
    assert float(found.program.bound_of(found.dual)) == pytest.approx(part.dual_bound_, rel=1e-9)


def test_conjugate_gradient_and_the_matrix_of_weights_find_the_same() -> None:
    chosen, rejected = pairs()
    direct = make(strength=0.01).fit_pairs(chosen, rejected)
    for solver in (Ridge(tol=1e-9, max_dense=10), Ridge(tol=1e-9, max_dense=10, max_kernel=10)):
        other = make(strength=0.01, solver=solver).fit_pairs(chosen, rejected)
        assert other.n_iter_ > 1
        assert other.objective_ == pytest.approx(direct.objective_, rel=1e-6)
    narrow = make(strength=0.01, n_patterns=2).fit_pairs(*pairs(400, 2))
    assert narrow.gap_ <= 1e-9


def test_what_does_not_go_together_is_refused() -> None:
    chosen, rejected = pairs(10)
    with pytest.raises(ValueError, match="patterns='local'"):
        make(patterns="local").fit_pairs(chosen, rejected)
    with pytest.raises(TypeError, match=r"Cronos in .* use solver=None or Ridge\(\), or"):
        make(solver=Cronos()).fit_pairs(chosen, rejected)
    with pytest.raises(ValueError, match="strength=0 of the gated formulation needs responses"):
        make(strength=0.0).fit_pairs(chosen, rejected)


def test_pairs_without_a_preference_are_said_to_be_no_better_than_chance() -> None:
    chosen, rejected = np.random.default_rng(4).standard_normal((2, 30, 3))
    both = np.concatenate([chosen, rejected]), np.concatenate([rejected, chosen])
    with pytest.warns(UserWarning, match="no better than chance"):
        head = make(strength=1e-3).fit_pairs(*both, groups=np.tile(np.arange(30), 2))
    assert np.isfinite(head.reward(chosen)).all()


@pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning")
def test_measurements_end_with_the_head_whose_factor_was_raised() -> None:
    """Pairs that are left out are ranked the wrong way round: the best factor is below 0."""
    chosen, rejected = np.random.default_rng(4).standard_normal((2, 30, 3))
    both = np.concatenate([chosen, rejected]), np.concatenate([rejected, chosen])
    course = Course(SimpleNamespace(chosen=chosen, rejected=rejected))  # type: ignore[arg-type]
    head = make(strength=1e-3).set_callbacks(course)
    head.fit_pairs(*both, groups=np.tile(np.arange(30), 2))
    factor = head.network_.output_weights / head.phase1_network_.output_weights
    assert (factor > 0).all()
    last = {name: column[-1] for name, column in head.phase2_history_.items()}
    margins = head.reward_margin(*both)
    assert last["rewards/chosen"] == pytest.approx(head.reward(both[0]).mean())
    assert last["rewards/margins"] == pytest.approx(margins.mean(), abs=1e-12)
    assert course.margins[-1] == pytest.approx(head.reward_margin(chosen, rejected).mean())
    assert last["objective"] == head.phase2_objective_ > head.phase2_dual_bound_
    assert head.phase2_gap_ == pytest.approx(1 - head.phase2_dual_bound_ / head.phase2_objective_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saved_heads_give_the_same_rewards_and_certificates(dtype: type, tmp_path: Any) -> None:
    chosen, rejected = (X.astype(dtype) for X in pairs())
    head = make(tol=1e-3).fit_pairs(chosen, rejected)
    save(head, tmp_path / "head.safetensors")
    again = load(tmp_path / "head.safetensors")
    assert again.network_.gate_weights.dtype == dtype
    np.testing.assert_array_equal(again.reward(chosen), head.reward(chosen))
    proof = again.certificate(*stacked(chosen, rejected))
    assert float(proof.program.bound_of(proof.dual)) == pytest.approx(head.dual_bound_, rel=1e-4)


def test_blocks_of_no_use_get_small_factors(tmp_path: Any) -> None:
    chosen, rejected = pairs(60, 3)
    noise = 3 * np.random.default_rng(1).standard_normal((2, 60, 6))
    won, lost = np.hstack([chosen, noise[0]]), np.hstack([rejected, noise[1]])
    head = make(blocks=[3, 6]).fit_pairs(won, lost)
    useful, useless = head.block_factors_
    assert useless < useful / 2
    assert 3 * useful**2 + 6 * useless**2 == pytest.approx(9)
    plain = make().fit_pairs(won, lost)
    assert head.phase2_objective_ < plain.phase2_objective_
    save(head, tmp_path / "head.safetensors")
    again = load(tmp_path / "head.safetensors")
    assert list(again.blocks) == [3, 6]
    found = again.certificate(*stacked(won, lost))
    assert float(found.program.bound_of(found.dual)) == pytest.approx(head.dual_bound_, rel=1e-9)
    for widths in ([3, 5], [9, 0], [], [4.5, 4.5]):
        with pytest.raises(ValueError, match="add up to the 9 features"):
            make(blocks=widths).fit_pairs(won, lost)
    with pytest.raises(ValueError, match=r"blocks=\[3, 6\]; expected pairs"):
        make(blocks=[3, 6]).fit(*stacked(won, lost))


def with_prompts(
    n: int = 80, d: int = 4, c: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The first number of a response is good or bad, as the first of the prompt says."""
    rng = np.random.default_rng(seed)
    prompt, chosen, rejected = rng.standard_normal((n, c)), *rng.standard_normal((2, n, d))
    swap = (chosen[:, 0] - rejected[:, 0]) * prompt[:, 0] < 0
    chosen[swap], rejected[swap] = rejected[swap], chosen[swap].copy()
    return np.hstack([chosen, prompt]), np.hstack([rejected, prompt])


def test_neurons_are_on_where_gates_of_response_and_prompt_are() -> None:
    won, lost = with_prompts()
    head = make(context=3, strength=0.01).fit_pairs(won, lost)
    assert head.uses_context_
    program, _, dual = head.certificate(*stacked(won, lost))
    assert program.operator.X.shape[1] == 4
    # Ridge regression on differences of explicit features, each a response gated twice.
    gates = head._proof["gates"]
    assert gates.shape == (head.n_patterns_, 2, 7)
    assert not gates[:, 0, 4:].any()
    assert not gates[:, 1, :4].any()
    X = np.concatenate([won, lost])
    Z = (X - X.mean(axis=0)) / X.std(axis=0) / np.sqrt(7)
    mask = (Z[:, :4] @ gates[:, 0, :4].T >= 0) & (Z[:, 4:] @ gates[:, 1, 4:].T >= 0)
    F = (mask[:, :, None] * Z[:, None, :4]).reshape(len(X), -1)
    A = F[:80] - F[80:]
    plain = PlainRidge(alpha=80 * head.alpha_, fit_intercept=False, solver="svd")
    plain.fit(A, np.ones(80))
    found = head.phase1_network_.forward(X)[:, 0]
    np.testing.assert_allclose(found[:80] - found[80:], A @ plain.coef_, atol=1e-8)
    value = ((1 - A @ plain.coef_) ** 2).mean() / 2 + head.alpha_ / 2 * plain.coef_ @ plain.coef_
    assert head.objective_ == pytest.approx(value, rel=1e-9)
    assert float(program.bound_of(dual)) == pytest.approx(head.dual_bound_, rel=1e-9)
    assert not head.network_.hidden_weights[:, 4:].any()
    assert head.network_.gate_weights.shape[1] == 2


@pytest.mark.parametrize("blocks", [None, [1, 3]])
def test_a_prompt_that_decides_is_used(blocks: Any, tmp_path: Any) -> None:
    won, lost = with_prompts(200)
    new = with_prompts(200, seed=1)
    head = make(context=3, blocks=blocks).fit_pairs(won, lost)
    without = make(blocks=blocks).fit_pairs(won[:, :4], lost[:, :4])
    right = (head.reward_margin(*new) > 0).mean()
    assert head.uses_context_
    assert not without.uses_context_
    assert right > (without.reward_margin(*(X[:, :4] for X in new)) > 0).mean() + 0.1
    save(head, tmp_path / "head")
    again = load(tmp_path / "head")
    np.testing.assert_array_equal(again.reward(won), head.reward(won))
    found = again.certificate(*stacked(won, lost))
    assert float(found.program.bound_of(found.dual)) == pytest.approx(head.dual_bound_, rel=1e-9)
    served = load_network(tmp_path / "head")
    np.testing.assert_allclose(served.decision_function(won), head.decision_function(won))


def test_a_prompt_that_says_nothing_is_not_used() -> None:
    responses = pairs(200, seed=2)
    noise = np.random.default_rng(3).standard_normal((200, 3))
    both = [np.hstack([part, noise]) for part in responses]
    plain = make(context=3).fit_pairs(*both)
    assert not plain.uses_context_
    assert plain.network_.gate_weights.ndim == 2
    changed = np.hstack([responses[0], -noise])
    np.testing.assert_array_equal(plain.reward(both[0]), plain.reward(changed))
    proof = plain.certificate(*stacked(*both))
    assert float(proof.program.bound_of(proof.dual)) == pytest.approx(plain.dual_bound_, rel=1e-9)


def test_the_description_of_embeddings_says_which_columns_are_the_prompt() -> None:
    won, lost = with_prompts()
    names = ["model", "fingerprint", "fingerprint_float16", "fingerprint_bfloat16", "dtype"]
    numbers = {"layer": 2, "max_length": 9, "context": 3, "width": 7}
    embedding = {**dict.fromkeys(names, "x"), **numbers, "pooling": "mean", "date": "2024-07-26"}
    head = make(embedding=embedding).fit_pairs(won, lost)
    assert head.uses_context_
    same = make(context=3).fit_pairs(won, lost)
    np.testing.assert_array_equal(head.reward(won), same.reward(won))
    plain = make(embedding=embedding, context=0).fit_pairs(won, lost)
    assert plain.network_.hidden_weights[:, 4:].any()
    # Single responses take all columns as features, whatever the description says.
    single = make(embedding=embedding).fit(*stacked(won, lost))
    assert single.network_.hidden_weights[:, 4:].any()


def test_a_context_that_does_not_fit_is_refused() -> None:
    won, lost = with_prompts(20)
    for context in (-1, 7, 2.0):
        with pytest.raises(ValueError, match="expected a number of columns"):
            make(context=context).fit_pairs(won, lost)
    with pytest.raises(ValueError, match="add up to the 4 features of responses"):
        make(context=3, blocks=[3, 4]).fit_pairs(won, lost)
    for head in (make(context=3), make(context=3, formulation="relu")):
        with pytest.raises(ValueError, match="context=3; expected pairs"):
            head.fit(*stacked(won, lost))


def test_margins_of_rounding_errors_set_no_scale():
    # One reply is 1e7 times as large as the others: what is left out is predicted by rounding.
    X = np.array([[4.9e10, 2.8e10, 5.6e9], [-3.2e3, -1.5e3, -3.0e2], [-9.4e2, 5.5e2, -67.0]])
    settings = {"gamma": 10.0, "ridge": 0.0, "random_state": 0, "solver": Ridge(tol=1e-6)}
    for order in itertools.permutations(range(3)):
        rows = list(order)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # three pairs say little
            head = COALAPreferenceHead(**settings).fit_pairs(X[rows], X[::-1][rows])
        scale = head.network_.output_weights[0] / head.phase1_network_.output_weights[0]
        assert abs(scale) < 1e5
