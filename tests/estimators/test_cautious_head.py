"""Heads whose rewards are lower where their pairs say little."""

import pickle

import numpy as np
import pytest
from scipy import sparse

from cvxnn import COALAPreferenceHead, ConvexReLURegressor, load, save

RNG = np.random.RandomState(0)
CHOSEN, REJECTED = RNG.randn(40, 4) + 0.5, RNG.randn(40, 4)
DATA = np.concatenate([CHOSEN, REJECTED]), np.repeat([1, 0], 40)
NEW = RNG.randn(6, 4)


@pytest.fixture(scope="module")
def head():
    return COALAPreferenceHead(n_patterns=8, random_state=0).fit_pairs(CHOSEN, REJECTED)


def test_logits_lose_deviations_of_the_hessian(head):
    """Beside the features and the inverse of the Hessian, written out."""
    solved = head._solved(*DATA, None, None)
    inputs, mask = solved.look(np.concatenate([DATA[0], NEW]))
    F = (mask[:, :, None] * np.asarray(inputs, float)[:, None, :]).reshape(len(inputs), -1)
    pairs, new = F[:40] - F[40:80], F[80:]
    alpha = float(np.ravel(solved.certificate.program.alpha)[0])
    inverse = np.linalg.inv(pairs.T @ pairs + 40 * alpha * np.eye(F.shape[1]))
    deviation = np.sqrt(np.einsum("nm,mk,nk->n", new, inverse, new))
    first, second = head.phase1_network_.forward(NEW)[:2, 0]
    logits = head.decision_function(NEW)
    scale = (logits[0] - logits[1]) / (first - second)
    cautious = head.cautious(*DATA, caution=1.5)
    lower = logits - 1.5 * scale * deviation
    np.testing.assert_allclose(cautious.decision_function(NEW), lower, rtol=1e-6)
    np.testing.assert_allclose(cautious.reward(NEW), np.log(1 / (1 + np.exp(-lower))), rtol=1e-6)


def test_replies_to_one_prompt_are_compared_with_each_other(head):
    cautious = head.cautious(*DATA, caution=2.0)
    prompts = ["p", "q", "p", "q", "p", "alone"]
    lost = head.decision_function(NEW) - cautious.decision_function(NEW, prompts)
    deviation = cautious.curvature.deviation_among(NEW[[0, 2, 4]])
    np.testing.assert_allclose(lost[[0, 2, 4]], 2 * cautious.scale * deviation)
    assert lost[5] == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(cautious)).reward(NEW), cautious.reward(NEW)
    )


def test_no_caution_changes_nothing_and_bad_input_is_refused(head):
    cautious = head.cautious(*DATA, caution=0)
    np.testing.assert_array_equal(cautious.reward(NEW), head.reward(NEW))
    assert "caution=0" in repr(cautious)
    with pytest.raises(ValueError, match="finite number that is at least 0"):
        head.cautious(*DATA, caution=-1)
    for wrong in ("1", np.array([1.0, 2.0])):
        with pytest.raises(TypeError, match="expected a number, not a"):
            head.cautious(*DATA, caution=wrong)
    with pytest.raises(ValueError, match="1 prompt for 6 responses"):
        cautious.reward(NEW, ["p"])


def test_data_of_the_fit_in_other_units_are_refused(head, tmp_path):
    X, y = DATA
    kinds = np.tile(np.arange(40) % 2, 2)
    asks = [head.curvature, head.cautious, lambda X, y: head.trade_off(X, y, kinds)]
    for ask in asks:
        with pytest.raises(ValueError, match="other units, or moved"):
            ask(2 * X, y)
    save(head, tmp_path / "head.safetensors")
    again = load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(again.cautious(X, y).reward(NEW), head.cautious(X, y).reward(NEW))
    single = COALAPreferenceHead(n_patterns=8, random_state=0)
    single.fit_pairs(CHOSEN.astype(np.float32), REJECTED.astype(np.float32))
    assert np.isfinite(single.curvature(X.astype(np.float32), y).deviation_on(NEW)).all()
    rows = sparse.csr_array(np.where(abs(X) > 0.7, X, 0))
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(rows, X[:, 0])
    assert np.isfinite(model.curvature(rows, X[:, 0]).deviation_on(rows[:3])).all()
    with pytest.raises(ValueError, match="other units, or moved"):
        model.curvature(2 * rows, X[:, 0])


@pytest.mark.filterwarnings("ignore:COALAPreferenceHead predicts the same for all rows")
def test_a_head_without_neurons_has_no_caution():
    rng = np.random.RandomState(0)
    chosen, rejected = (np.float32(rng.randn(40, 3) * 1e-3 + 1e4) for _ in range(2))
    head = COALAPreferenceHead(random_state=0).fit_pairs(chosen, rejected)
    with pytest.raises(ValueError, match="no neurons"):
        head.cautious(np.concatenate([chosen, rejected]), DATA[1])
