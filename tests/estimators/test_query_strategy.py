"""The D-optimal query strategy in scikit-activeml, where it is installed."""

import numpy as np
import pytest

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, make_query_strategy

pytest.importorskip("skactiveml")


def test_rows():
    rng = np.random.RandomState(0)
    X = rng.randn(40, 3)
    y = np.where(np.arange(40) < 20, X[:, 0] > 0, np.nan)
    model = ConvexReLUClassifier(random_state=0)
    asked, utilities = make_query_strategy().query(X, y, model, batch_size=4, return_utilities=True)
    fitted = model.fit(X[:20], y[:20].astype(int))
    want = fitted.next_labels(X[:20], y[:20].astype(int), X[20:], 4)
    np.testing.assert_array_equal(asked, want.order + 20)
    np.testing.assert_allclose(utilities[0, 20:], want.utility)
    assert np.isnan(utilities[0, :20]).all()
    some = make_query_strategy().query(X, y, model, candidates=np.arange(30, 40))
    assert 30 <= some[0] < 40


def test_pairs():
    rng = np.random.RandomState(0)
    X = rng.randn(40, 6)
    y = np.where(np.arange(40) < 20, X[:, 0] > X[:, 3], np.nan)
    head = COALAPreferenceHead(n_patterns=8, random_state=0)
    asked = make_query_strategy().query(X, y, head, batch_size=3)
    assert len(set(asked)) == 3
    assert (asked >= 20).all()
    with pytest.raises(ValueError, match="X has 5 columns"):
        make_query_strategy().query(X[:, :5], y, head)


def test_a_first_batch_has_to_be_labelled():
    with pytest.raises(ValueError, match="label a first batch at random"):
        make_query_strategy().query(np.eye(4), np.full(4, np.nan), ConvexReLUClassifier())


@pytest.mark.parametrize("missing", [None, "?"])
def test_labels_may_be_words(missing):
    X = np.random.RandomState(0).randn(30, 3)
    y = np.array([missing] * 30, object if missing is None else "<U3")
    y[:20] = np.where(X[:20, 0] > 0, "yes", "no")
    strategy = make_query_strategy(missing_label=missing)
    asked = strategy.query(X, y, ConvexReLUClassifier(random_state=0), batch_size=2)
    assert (asked >= 20).all()
