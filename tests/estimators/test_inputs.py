"""Arrays of all kinds: NumPy, JAX, PyTorch, DLPack, data frames, sparse matrices."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cvxnn import (
    COALAPreferenceHead,
    ConvexReLUClassifier,
    ConvexReLURegressor,
    LinearPreferenceHead,
)
from cvxnn.convex import Cronos, Ridge, SquaredL2, SquaredLoss
from cvxnn.estimators._rows import canonical, merge, to_host
from cvxnn.estimators._scaling import Scaling, column_means
from cvxnn.numerics import stored_rows
from cvxnn.numerics.stored_rows import StoredRows

# Most of the time is that of compilation, for data of many shapes.
pytestmark = pytest.mark.usefixtures("quick_compilation")

NETWORKS = [ConvexReLUClassifier, ConvexReLURegressor]
MODELS = pytest.mark.parametrize("model", NETWORKS, ids=lambda model: model.__name__)
SMALL = {"n_patterns": 32, "random_state": 0}


class OnlyDLPack:
    """An array of a library that nobody knows."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def tensor(**options):
    def make(array):
        torch = pytest.importorskip("torch")
        made = torch.tensor(array)
        if "dtype" in options:
            made = made.to(getattr(torch, options["dtype"]))
        return made.requires_grad_(options.get("requires_grad", False) and array.dtype.kind == "f")

    return make


KINDS = {
    "list": lambda array: array.tolist(),
    "fortran": np.asfortranarray,
    "jax": jnp.asarray,
    "torch": tensor(),
    "torch with gradient": tensor(requires_grad=True),
    "dlpack": OnlyDLPack,
    "pandas": lambda array: (pd.DataFrame if array.ndim == 2 else pd.Series)(array),
}


def data(n=40, d=3, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, d))
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def single(X, y):
    """Data that float32 holds exactly, since JAX takes nothing else by default."""
    return X.astype(np.float32), y


@MODELS
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_arrays(model, kind):
    X, y = single(*data())
    weight = np.random.default_rng(0).integers(1, 3, 40).astype(np.float32)
    make = KINDS[kind]
    # Lists have no dtype and become float64.
    reference = X.astype(float) if kind == "list" else X
    expected = model(**SMALL).fit(reference, y, sample_weight=weight)
    fitted = model(**SMALL).fit(make(X), make(y), sample_weight=make(weight))
    found = fitted.predict(make(X))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected.predict(reference))
    if model is ConvexReLURegressor:  # labels have the dtype they had, int32 of JAX
        assert found.dtype == reference.dtype
    validated = model(**SMALL).fit(make(X), make(y), X_val=make(X), y_val=make(y))
    assert validated.validation_scores_.shape == (9,)


def test_arrays_of_half_precision():
    X, y = single(*data())
    coarse = tensor(dtype="bfloat16")(X)
    fitted = ConvexReLURegressor(**SMALL).fit(coarse, y)
    rounded = coarse.float().numpy()
    np.testing.assert_array_equal(
        fitted.predict(coarse), ConvexReLURegressor(**SMALL).fit(rounded, y).predict(rounded)
    )
    assert fitted.predict(coarse).dtype == np.float32
    assert ConvexReLURegressor(**SMALL).fit(X.astype(np.float16), y).score(X, y) > 0.5


@pytest.mark.parametrize("kind", ["jax", "torch with gradient", "dlpack", "pandas"])
def test_kinds_of_embeddings(kind):
    X, _ = single(*data())
    options = {"patterns": "gaussian", "n_patterns": 8, "random_state": 0}
    expected = COALAPreferenceHead(**options).fit_pairs(X[:20], X[20:])
    chosen, rejected = KINDS[kind](X[:20]), KINDS[kind](X[20:])
    if kind == "dlpack":
        assert not hasattr(chosen, "shape")
    head = COALAPreferenceHead(**options).fit_pairs(chosen, rejected)
    np.testing.assert_array_equal(head.reward(chosen), expected.reward(X[:20]))
    assert head.reward_margin(chosen, rejected).dtype == np.float32


@MODELS
@pytest.mark.parametrize("formulation", ["gated", "relu"])
def test_single_precision_stays(model, formulation, dtype):
    X, y = data()
    options = {**SMALL, "formulation": formulation, "patterns": "gaussian", "strength": 0.01}
    fitted = model(**options).fit(X.astype(dtype), y)
    assert fitted.predict(X.astype(dtype)).dtype == (dtype if model is NETWORKS[1] else y.dtype)
    assert fitted.transform(X.astype(dtype)).dtype == dtype
    for part in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        assert getattr(fitted.network_, part).dtype == dtype
    if model is ConvexReLUClassifier:
        assert fitted.predict_proba(X.astype(dtype)).dtype == dtype
        assert fitted.decision_function(X.astype(dtype)).dtype == dtype


@pytest.mark.parametrize("shift", [0.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_means_of_many_rows_in_single_precision(kind, shift):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((50_000, 2)) + shift).astype(np.float32)
    weight = rng.exponential(size=len(X)).astype(np.float32)
    expected = np.average(X.astype(np.float64), axis=0, weights=weight.astype(np.float64))
    np.testing.assert_allclose(column_means(kind(X), weight), expected, rtol=1e-12, atol=1e-12)


def test_units_of_stored_rows_are_those_of_rows_in_memory(monkeypatch):
    monkeypatch.setattr(stored_rows, "_BLOCK_NUMBERS", 3 * 50)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(700, 3)).astype(np.float32)
    X[:, 1] += 1e4 + np.arange(700)  # the first block says little of the others
    X[:, 2] = 0.1
    weight, y = rng.exponential(size=700).astype(np.float32), np.zeros((700, 1), np.float32)
    for centred in (True, False):
        options = {"standardize": True, "fit_intercept": centred}
        found = Scaling.of(StoredRows(X), y, weight, **options)
        expected = Scaling.of(X.astype(np.float64), y, weight.astype(np.float64), **options)
        np.testing.assert_allclose(found.x_mean, expected.x_mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.x_scale, expected.x_scale, rtol=1e-6)


def test_a_constant_column_of_many_rows_is_constant(dtype):
    X = np.full((300_001, 1), 0.1, dtype)
    scaling = Scaling.of(X, X, np.ones(len(X), dtype), standardize=True, fit_intercept=True)
    np.testing.assert_array_equal(scaling.x_mean, X[0])
    np.testing.assert_array_equal(scaling.y_mean, X[0])
    np.testing.assert_array_equal(scaling.x_scale, np.inf)  # so that it has no weight
    np.testing.assert_array_equal(scaling.y_scale, 1)


@pytest.mark.parametrize(
    "make",
    [
        # Factors of two features that are alike, if any, are those of noise.
        lambda: ConvexReLUClassifier(patterns="gaussian", feature_factors="equal", **SMALL),
        lambda: ConvexReLURegressor(patterns="gaussian", feature_factors="equal", **SMALL),
        # Errors of thresholds are all but equal over a range of strengths, any of which may win.
        lambda: ConvexReLURegressor(
            patterns="thresholds", strength=1e-3, feature_factors="equal", **SMALL
        ),
        lambda: LinearPreferenceHead(C=1e-3),
    ],
    ids=["classifier", "regressor", "thresholds", "linear head"],
)
def test_features_far_from_zero_in_single_precision(make):
    narrow = (np.random.default_rng(0).standard_normal((20_000, 2)) + 1e4).astype(np.float32)
    X, y = narrow.astype(np.float64), narrow[:, 0] > narrow[:, 1]
    wide, single = make().fit(X, y), make().fit(narrow, y)
    expected, found = (fitted.network_.forward(X)[:, 0] for fitted in (wide, single))
    # Rows within the rounding of 1e4 of a gate may fall on its other side.
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.02 * expected.std()


@MODELS
@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_data_frames(model, frame):
    X, y = data()
    table = frame(dict(zip("abc", X.T, strict=True)))
    target = pd.Series(y) if frame is pd.DataFrame else pl.Series(y)
    fitted = model(**SMALL).fit(table, target)
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(fitted.predict(table), model(**SMALL).fit(X, y).predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(table[["c", "b", "a"]])


def test_to_host_leaves_the_rest_alone():
    X, _ = data()
    for array in (X, sparse.csr_array(X), pd.DataFrame(X), [[1.0]], None, "no_validation"):
        assert to_host(array) is array


# Sparse ----------------------------------------------------------------------------------------


def thin(n=60, d=20, seed=0):
    rng = np.random.default_rng(seed)
    X = sparse.random(n, d, density=0.2, random_state=seed, format="csr")
    X.data = np.round(X.data, 3)
    dense = X.toarray()
    return X, dense, (dense[:, :3].sum(axis=1) + 0.1 * rng.standard_normal(n) > 0.3).astype(int)


@MODELS
@pytest.mark.parametrize(
    "kind",
    [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array, sparse.coo_array],
)
@pytest.mark.parametrize("intercept", [True, False])
def test_sparse_rows_are_dense_rows(model, kind, intercept):
    X, dense, y = thin()
    # Sparse columns are not centred: only without any scaling do the two mean the same.
    options = {**SMALL, "strength": 0.01, "standardize": False, "fit_intercept": intercept}
    fitted, expected = model(**options).fit(kind(X), y), model(**options).fit(dense, y)
    assert fitted.alpha_ == pytest.approx(expected.alpha_, rel=1e-6)
    scores, own = (
        model_.predict(dense) if model is ConvexReLURegressor else model_.predict_proba(dense)[:, 1]
        for model_ in (expected, fitted)
    )
    np.testing.assert_allclose(own, scores, atol=1e-5)
    if model is ConvexReLUClassifier:
        np.testing.assert_array_equal(fitted.predict(kind(X)), fitted.predict(dense))
    else:
        np.testing.assert_allclose(fitted.predict(kind(X)), fitted.predict(dense), atol=1e-12)
    np.testing.assert_allclose(fitted.transform(kind(X)), fitted.transform(dense), atol=1e-12)


@MODELS
def test_sparse_rows_keep_their_zeros_but_have_a_scale(model):
    X, _, y = thin()
    plain = model(**SMALL, strength=0.01).fit(X, y)
    scaled = model(**SMALL, strength=0.01).fit(sparse.csr_array(X * 1024.0), y)
    np.testing.assert_array_equal(scaled.predict(X * 1024.0), plain.predict(X))
    assert plain.score(X, y) > (0.6 if model is ConvexReLURegressor else 0.85)


@MODELS
def test_sparse_weight_is_repetition(model):
    X, _, y = thin()
    counts = np.random.default_rng(0).integers(0, 3, 60)
    weighted = model(**SMALL).fit(X, y, sample_weight=counts)
    repeated = model(**SMALL).fit(X[np.arange(60).repeat(counts)[::-1]], y.repeat(counts)[::-1])
    np.testing.assert_array_equal(weighted.predict(X), repeated.predict(X))
    assert weighted.objective_ == repeated.objective_


@MODELS
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), wide=st.booleans())
def test_sparse_rows_are_their_values(model, seed, wide):
    X, _, y = thin()
    X.data = np.round(8 * X.data) / 8  # so that halves are exact
    X.eliminate_zeros()
    rng = np.random.default_rng(seed)
    rows, columns = X.nonzero()
    entry = rng.permutation(2 * X.nnz + 60)  # each number in two halves, and zeros
    row = np.concatenate([rows, rows, np.arange(60)])[entry]
    column = np.concatenate([columns, columns, rng.integers(20, size=60)])[entry]
    value = np.concatenate([X.data / 2, X.data / 2, np.zeros(60)])[entry]
    order = np.argsort(row, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=60))])
    messy = sparse.csr_array((value[order], column[order], ends), shape=X.shape)
    if wide:
        messy.indices, messy.indptr = messy.indices.astype(np.int64), ends.astype(np.int64)
    before = [part.copy() for part in (messy.data, messy.indices, messy.indptr)]
    fitted, expected = model(**SMALL).fit(messy, y), model(**SMALL).fit(X, y)
    for given_rows in (messy, X):
        np.testing.assert_array_equal(fitted.transform(given_rows), expected.transform(X))
        np.testing.assert_array_equal(fitted.predict(given_rows), expected.predict(X))
    assert fitted.objective_ == expected.objective_
    for part, old in zip((messy.data, messy.indices, messy.indptr), before, strict=True):
        assert part.dtype == old.dtype
        np.testing.assert_array_equal(part, old)
    clean = canonical(X)
    assert canonical(clean) is clean


def test_merging_sees_through_the_order_of_indices():
    X = sparse.csr_array(
        (np.array([1.0, 2.0, 2.0, 1.0]), np.array([0, 2, 2, 0]), np.array([0, 2, 4])), shape=(2, 3)
    )
    rows, targets, weight, *_ = merge(X, np.ones((2, 1)), np.array([1.0, 2.0]))
    np.testing.assert_array_equal(rows.toarray(), [[1.0, 0.0, 2.0]])
    np.testing.assert_array_equal(weight, [3.0])
    np.testing.assert_array_equal(targets, [[1.0]])


@MODELS
@pytest.mark.parametrize(
    "options",
    [
        {"formulation": "relu"},
        {"penalty": "neuron"},
        {"patterns": "data"},
        {"solver": Cronos(), "formulation": "relu"},
        {"strength": 0},
        {"skip": 0},
    ],
    ids=["relu", "neuron", "data", "cronos", "strength", "skip"],
)
def test_sparse_rows_where_the_solution_is_not_direct(model, options):
    X, _, y = thin()
    with pytest.raises(TypeError, match=r"[Ss]parse data was passed.*dense data is required"):
        model(**SMALL, **options).fit(X, y)
    assert not model(**SMALL, **options).__sklearn_tags__().input_tags.sparse
    assert model(**SMALL, solver=Ridge()).__sklearn_tags__().input_tags.sparse


@MODELS
def test_objects_are_taken_with_sparse_rows_as_their_names_are(model):
    X, _, y = thin()
    named = model(**SMALL, loss="squared", penalty="l2").fit(X, y)
    given = model(**SMALL, loss=SquaredLoss(), penalty=SquaredL2()).fit(X, y)
    np.testing.assert_array_equal(given.predict(X), named.predict(X))
    np.testing.assert_array_equal(given.transform(X), named.transform(X))
    assert given.gap_ == named.gap_


def test_memory_of_sparse_rows():
    n, d, per_row = 2000, 50_000, 20
    rng = np.random.default_rng(0)
    columns = rng.integers(d, size=(n, per_row))
    columns[:, 0] = np.arange(n) % 50  # something to learn
    X = sparse.csr_matrix(
        (np.ones(n * per_row), columns.ravel(), np.arange(n + 1) * per_row), shape=(n, d)
    )
    X.sum_duplicates()
    y = (columns[:, 0] < 25).astype(int)
    tracemalloc.start()
    fitted = ConvexReLUClassifier(n_patterns=16, strength=1e-3, random_state=0).fit(X, y)
    predicted = fitted.predict(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.mean(predicted == y) > 0.95
    assert peak < 0.25 * n * d * 8


@MODELS
def test_rows_that_need_no_change_are_checked_at_once(model, monkeypatch):
    """They give what all checks would; whatever else comes meets these checks."""
    X, y = data()
    fitted = model(**SMALL).fit(X, y)
    wanted = fitted.predict(X)
    asked = []
    checks = fitted._validate
    monkeypatch.setattr(fitted, "_validate", lambda *a, **k: asked.append(1) or checks(*a, **k))
    np.testing.assert_array_equal(fitted.predict(X), wanted)
    np.testing.assert_array_equal(fitted.predict(np.asfortranarray(X)), wanted)
    assert fitted.predict(np.float32(X[:1])).shape == (1,)
    assert not asked
    huge = np.full((2, X.shape[1]), np.finfo(X.dtype).max)
    for row in (huge[:1] / 1e200, X.tolist(), X.astype(">f8"), np.ma.masked_array(X), X > 0):
        fitted.predict(row)
    assert len(asked) == 4  # a large row passes
    fitted._passes(huge)  # without a warning of its sum
    for bad in (X[:, :-1], X[:0], X[0], X * np.nan, X + np.inf, huge * [[1], [np.inf]], X + 0j):
        with pytest.raises(ValueError, match=r"."):
            fitted.predict(bad)
    named = model(**SMALL).fit(pd.DataFrame(X, columns=[f"f{k}" for k in range(X.shape[1])]), y)
    with pytest.warns(UserWarning, match="feature names"):
        named.predict(X)
