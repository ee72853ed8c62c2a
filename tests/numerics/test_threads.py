"""Small work takes one thread of BLAS, wherever it is done; large work takes all it was given."""

from threading import Event, Thread

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from threadpoolctl import threadpool_info, threadpool_limits

from cvxnn import (
    COALAPreferenceHead,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    LinearPreferenceHead,
    network,
)
from cvxnn.convex import ActivationPatterns, ConvexProgram, GatedOperator
from cvxnn.convex.solvers.ridge import data, factors, kernel
from cvxnn.estimators import _certified
from cvxnn.explanation import (
    decision_radius,
    hyperplanes,
    label_set,
    prediction_interval,
    robustness,
)
from cvxnn.numerics.threads import SHARED_PRODUCT, limit_threads, limits_threads
from cvxnn.training import SideConstraint, descent, proposal


def threads() -> int:
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


@pytest.fixture
def _two_threads():
    with threadpool_limits(2, "blas"):
        if threads() == 1:
            pytest.skip("this BLAS has one thread")
        yield


@pytest.mark.usefixtures("_two_threads")
def test_only_small_work_is_limited_and_limits_are_never_lifted():
    with limit_threads(SHARED_PRODUCT):
        assert threads() == 2
        with limit_threads(SHARED_PRODUCT / 2):
            assert threads() == 1
            with limit_threads(SHARED_PRODUCT):
                assert threads() == 1
        assert threads() == 2
    decorated = limits_threads(lambda flops: flops)(lambda flops: threads())
    assert [decorated(0.0), decorated(SHARED_PRODUCT)] == [1, 2]


@pytest.mark.usefixtures("_two_threads")
def test_scopes_of_two_threads_that_overlap_give_all_threads_back():
    inside, other_ended, seen = Event(), Event(), []

    def work():
        with limit_threads(0.0):
            inside.set()
            other_ended.wait(60)
            seen.append(threads())

    with limit_threads(0.0):
        thread = Thread(target=work)
        thread.start()
        assert inside.wait(60)
        assert threads() == 1
    other_ended.set()
    thread.join()
    assert threads() == 2
    assert len(seen) == 1


@pytest.mark.usefixtures("_two_threads")
def test_an_error_gives_the_threads_back():
    with pytest.raises(KeyError), limit_threads(0.0):
        raise KeyError
    assert threads() == 2


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.slow
def test_backends_agree_and_leave_the_threads_as_they_were():
    X, y = make_blobs(90, 3, centers=3, cluster_std=5, random_state=0)
    model = ConvexReLUClassifier(n_patterns=8, random_state=0)
    expected = cross_val_score(model, X, y, cv=6, scoring="neg_log_loss")
    with parallel_config("threading"):
        found = cross_val_score(model, X, y, cv=6, scoring="neg_log_loss", n_jobs=4)
    np.testing.assert_array_equal(found, expected)
    assert threads() == 2


@pytest.mark.slow
def test_workers_of_loky_agree():
    X, y = make_blobs(90, 3, centers=3, cluster_std=5, random_state=0)
    search = ConvexReLUClassifierCV(ConvexReLUClassifier(n_patterns=8, random_state=0), cv=2)
    expected = cross_val_score(search, X, y, cv=2, scoring="neg_log_loss")
    found = cross_val_score(search, X, y, cv=2, scoring="neg_log_loss", n_jobs=2)
    np.testing.assert_array_equal(found, expected)


class Watched:
    """Counts of BLAS threads when functions are called, by the names of these."""

    def __init__(self, monkeypatch):
        self.monkeypatch, self.seen = monkeypatch, {}

    def __call__(self, owner, name):
        inner = getattr(owner, name)

        def watched(*args, **kwargs):
            self.seen[name] = max(self.seen.get(name, 0), threads())
            return inner(*args, **kwargs)

        self.monkeypatch.setattr(owner, name, watched)


@pytest.mark.slow
@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(
    "model",
    [
        ConvexReLURegressor(n_patterns=8, random_state=0),
        ConvexReLURegressor(n_patterns=4, loss="huber", random_state=0),
        ConvexReLUClassifier(n_patterns=4, formulation="relu", random_state=0),
        ConvexReLUClassifierCV(ConvexReLUClassifier(n_patterns=8), strengths=[0.1], cv=2),
        ConvexReLUClassifier(n_patterns=4, penalty="neuron", random_state=0),
        COALAPreferenceHead(n_patterns=4, random_state=0),
        LinearPreferenceHead(),
    ],
    ids=lambda model: f"{type(model).__name__}-{getattr(model, 'loss', '')}",
)
def test_small_fits_and_predictions_take_one_thread(model, monkeypatch):
    watch = Watched(monkeypatch)
    for name in ("eigh", "inv", "solve", "svd", "cholesky"):
        watch(np.linalg, name)
    watch(LogisticRegression, "fit")
    watch(hyperplanes, "row_chunks")
    watch(data, "row_blocks")
    watch(factors, "cho_factor")
    watch(proposal, "_adam")
    watch(ConvexProgram, "evaluate")
    watch(network.TwoLayerNetwork, "_activations")
    watch(ActivationPatterns, "union")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    model.fit(X, (X[:, 0] + X[:, 1] > 0).astype(int)).predict(X)
    if hasattr(model, "contributions"):
        model.contributions(X)
    assert len(watch.seen) >= 2
    assert set(watch.seen.values()) == {1}, watch.seen
    assert threads() == 2


@pytest.mark.usefixtures("_two_threads")
def test_steps_between_large_products_take_one_thread(monkeypatch):
    """Inner products of L-BFGS are small where the network's are large."""
    seen = []
    inner, evaluate = descent.minimize, descent.value_and_slope

    def minimize(function, start, *args, **kwargs):
        seen.append(("step", threads()))
        return inner(function, start, *args, **kwargs)

    def value_and_slope(*args):
        seen.append(("product", threads()))
        return evaluate(*args)

    monkeypatch.setattr(descent, "minimize", minimize)
    monkeypatch.setattr(descent, "value_and_slope", value_and_slope)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3))
    base = ConvexProgram(GatedOperator(X, np.zeros((30, 0), bool)), np.abs(X[:, :1]), 0.01)
    descent._move(base, descent.Neurons(rng.normal(size=(4, 3)), np.ones((4, 1))))
    assert set(seen) == {("step", 1), ("product", 2)}
    assert threads() == 2


@pytest.mark.usefixtures("_two_threads")
def test_small_questions_to_a_fit_take_one_thread(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3))
    y = (X[:, 0] + X[:, 1] > 0).astype(float)
    regressor = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, y)
    classifier = ConvexReLUClassifier(n_patterns=8, random_state=0).fit(X, y)
    watch = Watched(monkeypatch)
    watch(_certified, "open_where")
    watch(ConvexProgram, "bound_of")
    watch(kernel.Kernel, "between")
    watch(kernel, "_by_tiles")
    watch(factors, "cho_factor")
    watch(data.RidgeData, "adjoint")
    watch(robustness._MarginRows, "fall")
    prediction_interval(regressor.influence(X, y), X)
    label_set(classifier.influence(X, y), X)
    regressor.constrained(X, y, [SideConstraint.uncorrelated(X, X[:, 2])])
    decision_radius(classifier.network_, X)
    assert len(watch.seen) == 7
    assert set(watch.seen.values()) == {1}, watch.seen
