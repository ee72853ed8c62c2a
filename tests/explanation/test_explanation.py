"""Explanations are exact: the piece, how far it reaches, and what adds up to the prediction."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.feature_selection import SelectFromModel

from cvxnn import ConvexReLUClassifier, ConvexReLURegressor
from cvxnn import network as network_module
from cvxnn.explanation import (
    NeuronReport,
    boundaries,
    contributions,
    count_regions,
    feature_importances,
    local_linear,
    neuron_report,
    open_neurons,
)
from cvxnn.network import TwoLayerNetwork

# Most of the time is that of compilation, for data of many shapes.
pytestmark = pytest.mark.usefixtures("quick_compilation")

KINDS = [(gated, skip) for gated in (False, True, 2) for skip in (False, True)]
kinds = pytest.mark.parametrize(("gated", "skip"), KINDS)
seeds = st.integers(0, 10**6)
OF_ROWS = (contributions, local_linear, neuron_report, open_neurons)


def make(
    seed: int = 0, m: int = 6, d: int = 4, C: int = 2, *, gated: int = False, skip: bool = False
) -> TwoLayerNetwork:
    """Random network; some output weights are zero, and gated neurons share their gates.

    With ``gated=2``, a gate is a conjunction of two vectors.
    """
    rng = np.random.default_rng(seed)
    output = rng.standard_normal(m) * (rng.random(m) < 0.7)
    n_gates = max(m - 2, 1)
    vectors = [gated] if gated > 1 else []
    return TwoLayerNetwork(
        rng.standard_normal((m, d)),
        rng.standard_normal(m),
        output,
        rng.standard_normal(C),
        gate_weights=rng.standard_normal((n_gates, *vectors, d)) if gated else None,
        gate_bias=rng.standard_normal((n_gates, *vectors)) if gated else None,
        linear_weights=rng.standard_normal((d, C)) if skip else None,
        gate_index=rng.integers(n_gates, size=m) if gated else None,
        output_index=np.sort(rng.integers(C, size=m)),
    )


def rows(seed: int = 0, n: int = 7, d: int = 4) -> np.ndarray:
    return np.random.default_rng(seed + 1).standard_normal((n, d))


def at(piece, X):
    return np.einsum("kci,ki->kc", piece.weights, X) + piece.intercept


def naive(network: TwoLayerNetwork, x: np.ndarray):
    """Slope, intercept, open neurons and radius at one row, in plain loops."""
    W = np.zeros((network.n_outputs, len(x)))
    c = network.output_bias.copy()
    active, radius = [], np.inf
    for j in range(network.n_neurons):
        w, b = network.hidden_weights[j], network.hidden_bias[j]
        if network.gate_index is None:
            planes, is_open = [(w, b)], sum(w * x) + b > 0
        else:
            gate = network.gate_index[j]
            vectors, offsets = network.gate_weights[gate], network.gate_bias[gate]
            planes = list(zip(np.atleast_2d(vectors), np.atleast_1d(offsets), strict=True))
            is_open = all(sum(g * x) + h >= 0 for g, h in planes)
        active.append(is_open)
        for g, h in planes:
            radius = min(radius, abs(sum(g * x) + h) / np.sqrt(sum(g**2)))
        if active[-1]:
            fed = network.output_index[j]
            W[fed] += network.output_weights[j] * w
            c[fed] += network.output_weights[j] * b
    if network.linear_weights is not None:
        W += network.linear_weights.T
    return W, c, active, radius


@kinds
@given(seed=seeds, m=st.integers(0, 8))
def test_the_piece_is_that_of_plain_loops(gated: int, skip: bool, seed: int, m: int) -> None:
    network, X = make(seed, m, gated=gated, skip=skip), rows(seed)
    piece = local_linear(network, X)
    for k, x in enumerate(X):
        W, c, active, radius = naive(network, x)
        np.testing.assert_allclose(piece.weights[k], W, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(piece.intercept[k], c, rtol=1e-12, atol=1e-12)
        assert piece.active[k].tolist() == active
        assert piece.radius[k] == pytest.approx(radius, rel=1e-12)
    np.testing.assert_allclose(at(piece, X), network.forward(X), rtol=1e-11, atol=1e-11)


@kinds
@given(seed=seeds)
def test_the_slopes_are_finite_differences(gated: int, skip: bool, seed: int) -> None:
    network, X = make(seed, gated=gated, skip=skip), rows(seed)
    piece = local_linear(network, X)
    # Steps that stay inside the piece: any size is exact, so take half the radius.
    step = piece.radius / 2
    for i in range(X.shape[1]):
        ahead, behind = X.copy(), X.copy()
        ahead[:, i] += step
        behind[:, i] -= step
        slope = (network.forward(ahead) - network.forward(behind)) / (2 * step[:, None])
        atol = 1e-13 / step.min()
        np.testing.assert_allclose(piece.weights[:, :, i], slope, rtol=1e-7, atol=atol)


@kinds
@given(seed=seeds, part=st.floats(0, 0.999))
def test_within_the_radius_the_piece_is_the_network(
    gated: int, skip: bool, seed: int, part: float
) -> None:
    # 20 directions at once; with as many rows in both calls, equal pieces have equal bits.
    network, X = make(seed, gated=gated, skip=skip), np.tile(rows(seed), (20, 1))
    piece = local_linear(network, X)
    direction = np.random.default_rng(seed).standard_normal(X.shape)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    there = X + direction * (part * piece.radius)[:, None]
    moved = local_linear(network, there)
    np.testing.assert_array_equal(moved.active, piece.active)
    np.testing.assert_array_equal(moved.weights, piece.weights)
    np.testing.assert_allclose(at(piece, there), network.forward(there), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("gated", [False, True])
@given(seed=seeds)
def test_the_radius_ends_at_a_boundary(gated: bool, seed: int) -> None:
    network, X = make(seed, gated=gated), rows(seed)
    piece, planes = local_linear(network, X), boundaries(network)
    norms = np.linalg.norm(planes.weights, axis=1)
    scores = X @ planes.weights.T + planes.bias
    nearest = np.abs(scores / norms).argmin(axis=1)
    k = np.arange(len(X))
    normal = planes.weights[nearest] / norms[nearest, None]
    towards = -np.sign(scores[k, nearest])[:, None] * normal * piece.radius[:, None]
    beyond = open_neurons(network, X + 1.001 * towards)
    crossed = planes.of_neuron == nearest[:, None]
    assert (beyond[crossed] != piece.active[crossed]).all()
    assert (open_neurons(network, X + 0.999 * towards) == piece.active).all()


@kinds
@given(seed=seeds, with_baseline=st.booleans())
def test_contributions_sum_to_the_prediction(
    gated: int, skip: bool, seed: int, with_baseline: bool
) -> None:
    network, X = make(seed, gated=gated, skip=skip), rows(seed)
    baseline = rows(seed + 1, 1)[0] if with_baseline else None
    parts = contributions(network, X, baseline)
    total = parts.features.sum(axis=-1) + parts.rest
    np.testing.assert_allclose(total, network.forward(X), rtol=1e-11, atol=1e-11)
    piece = local_linear(network, X)
    point = np.zeros(X.shape[1]) if baseline is None else baseline
    np.testing.assert_allclose(parts.rest, at(piece, np.tile(point, (len(X), 1))), atol=1e-12)
    expected = [[W * (x - point) for W in Ws] for Ws, x in zip(piece.weights, X, strict=True)]
    np.testing.assert_allclose(parts.features, expected, rtol=1e-12)


def test_a_baseline_on_the_same_piece_leaves_its_prediction() -> None:
    network, X = make(), rows()
    radius = local_linear(network, X).radius
    baseline = X[0] + 0.9 * radius[0] * np.eye(4)[0]
    parts = contributions(network, X[:1], baseline)
    np.testing.assert_allclose(parts.rest, network.forward(baseline[None]), rtol=1e-12)
    np.testing.assert_array_equal(parts.features[..., 1:], 0)
    same = contributions(network, X[:1], X[0])
    np.testing.assert_array_equal(same.features, 0)


@pytest.mark.parametrize("gated", [False, True])
def test_on_a_boundary_the_side_is_that_of_forward(gated: bool) -> None:
    network = TwoLayerNetwork(
        np.array([[1.0, 0.0]]),
        np.array([3.0 if gated else 0.0]),
        np.array([2.0]),
        np.array([5.0]),
        gate_weights=np.array([[1.0, 0.0]]) if gated else None,
        gate_bias=np.zeros(1) if gated else None,
        gate_index=np.zeros(1, int) if gated else None,
    )
    X = np.array([[0.0, 7.0]])
    piece = local_linear(network, X)
    assert piece.active.tolist() == [[gated]]
    assert piece.weights.tolist() == [[[2.0 * gated, 0.0]]]
    assert piece.radius.tolist() == [0.0]
    np.testing.assert_array_equal(at(piece, X), network.forward(X))


@pytest.mark.parametrize("skip", [False, True])
def test_without_neurons_the_network_is_one_piece(skip: bool) -> None:
    network, X = make(m=0, skip=skip), rows()
    piece = local_linear(network, X)
    expected = network.linear_weights.T if skip else np.zeros((2, 4))
    np.testing.assert_array_equal(piece.weights, np.tile(expected, (len(X), 1, 1)))
    np.testing.assert_array_equal(piece.radius, np.inf)
    assert piece.active.shape == (len(X), 0)
    report = neuron_report(network, X)
    assert (report.n_active, report.n_regions) == (0, 1)
    assert str(report) == "0 neurons, 0 of them active; 1 linear region on 7 rows"
    assert pd.DataFrame(report.columns).shape == (0, 5)


def test_constant_neurons_have_no_boundary() -> None:
    network = TwoLayerNetwork(
        np.zeros((2, 3)), np.array([1.0, -1.0]), np.array([2.0, 3.0]), np.zeros(1)
    )
    piece = local_linear(network, np.ones((1, 3)))
    assert piece.radius.tolist() == [np.inf]
    assert piece.active.tolist() == [[True, False]]
    assert piece.intercept.tolist() == [[2.0]]


def test_gates_that_no_neuron_has_are_no_boundaries() -> None:
    network = TwoLayerNetwork(
        np.ones((2, 2)),
        np.ones(2),
        np.ones(2),
        np.zeros(1),
        gate_weights=np.array([[1.0, 0.0], [0.0, 1.0]]),
        gate_bias=np.array([-9.0, 0.0]),
        gate_index=np.array([0, 0]),
    )
    planes = boundaries(network)
    assert planes.weights.tolist() == [[1.0, 0.0]]
    assert planes.of_neuron.tolist() == [0, 0]
    assert local_linear(network, np.array([[4.0, 0.1]])).radius.tolist() == [5.0]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, X = make(gated=True), rows(n=11)
    whole = local_linear(network, X)
    monkeypatch.setattr(network_module, "_CHUNK_NUMBERS", 3 * network.n_neurons)
    for part, expected in zip(local_linear(network, X), whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-13)


def test_precision_follows_the_data_and_the_network(dtype: type) -> None:
    network = make()
    single = TwoLayerNetwork(
        *(
            part.astype(dtype)
            for part in (
                network.hidden_weights,
                network.hidden_bias,
                network.output_weights,
                network.output_bias,
            )
        ),
        output_index=network.output_index,
    )
    X = rows().astype(dtype)
    piece = local_linear(single, X)
    assert piece.weights.dtype == piece.intercept.dtype == piece.radius.dtype == dtype
    assert contributions(single, X).features.dtype == dtype
    rtol = 1e-12 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(at(piece, X), single.forward(X), rtol=rtol, atol=rtol)
    # Numbers of other kinds are read as float64.
    whole = np.array([[1, 2, 3, 4]])
    np.testing.assert_allclose(at(local_linear(network, whole), whole), network.forward(whole))


def test_no_rows_have_no_pieces() -> None:
    piece = local_linear(make(), np.zeros((0, 4)))
    assert [len(part) for part in piece] == [0, 0, 0, 0]
    assert contributions(make(), np.zeros((0, 4))).features.shape == (0, 2, 4)
    assert count_regions(np.zeros((0, 3), bool)) == 0


@given(seed=seeds, n=st.integers(1, 30), m=st.integers(1, 12))
def test_regions_are_distinct_patterns(seed: int, n: int, m: int) -> None:
    active = np.random.default_rng(seed).random((n, m)) < 0.5
    assert count_regions(active) == len({tuple(row) for row in active.tolist()})


@pytest.mark.parametrize("standardize", [False, True])
@given(seed=seeds)
def test_report_of_each_neuron(standardize: bool, seed: int) -> None:
    network, X = make(seed), rows(seed) * [1, 10, 100, 1]
    X[:, 3] = 2  # a constant keeps its unit
    report = neuron_report(network, X, standardize=standardize)
    unit = np.append(X[:, :3].std(axis=0), 1) if standardize else np.ones(4)
    active = 0
    for j in range(network.n_neurons):
        w, out = network.hidden_weights[j] * unit, network.output_weights[j]
        assert report.norm[j] == pytest.approx(np.sqrt(sum(w**2)) * abs(out))
        is_open = [sum(network.hidden_weights[j] * x) + network.hidden_bias[j] > 0 for x in X]
        assert report.fraction_open[j] == pytest.approx(np.mean(is_open))
        active += any(is_open) and out != 0
        assert (report.output[j], report.sign[j]) == (network.output_index[j], np.sign(out))
        top = sorted(range(4), key=lambda i: -abs(w[i]))[:3]
        assert report.top_features[j].tolist() == top
        np.testing.assert_allclose(report.top_slopes[j], w[top] * out)
    assert report.n_active == active
    assert report.n_regions == count_regions(open_neurons(network, X))


def test_report_reads_and_goes_into_tables() -> None:
    network = TwoLayerNetwork(
        np.array([[3.0, 0.0], [0.0, 0.0], [0.0, 1.0]]),
        np.array([0.0, 1.0, -10.0]),
        np.array([2.0, 1.0, -1.0]),
        np.zeros(2),
        output_index=np.array([0, 0, 1]),
    )
    X = np.array([[1.0, 0.0], [-1.0, 0.0]])
    report = neuron_report(network, X, ["age", "bmi"])
    assert str(report).splitlines() == [
        "3 neurons, 1 of them active; 2 linear regions on 2 rows",
        "norm: of the input weights times the output weight; open: share of rows; output:",
        "sign of the weight, and its number; slopes: of the output by a feature, where open",
        "neuron      norm   open  output  largest slopes",
        "     0         6    50%      +0  age +6",
        "     2         1     0%      -1  bmi -1",
        "     1         0   100%      +0",
    ]
    table = pd.DataFrame(report.columns)
    assert table["largest_slopes"].tolist() == ["age +6", "", "bmi -1"]
    assert table["norm"].tolist() == [6, 0, 1]
    plain = report.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["n_regions"] == 2
    assert plain["neurons"]["fraction_open"] == [0.5, 1.0, 0.0]


def test_a_long_report_is_cut() -> None:
    report = neuron_report(make(m=14), rows())
    assert isinstance(report, NeuronReport)
    lines = str(report).splitlines()
    shown = [int(line.split()[0]) for line in lines[4:-1]]
    assert shown == np.argsort(-report.norm)[:10].tolist()
    assert lines[-1] == "and 4 neurons of smaller norm"
    assert report.feature_names == ("x0", "x1", "x2", "x3")


@pytest.mark.parametrize("function", [local_linear, contributions, neuron_report, open_neurons])
def test_bad_rows_are_refused(function) -> None:
    for bad in (np.zeros(4), np.zeros((2, 3)), np.zeros((1, 2, 4))):
        with pytest.raises(ValueError, match=r"X has shape .*; expected \(n_samples, 4\)"):
            function(make(), bad)
    with pytest.raises(TypeError, match=r"X is sparse .*; pass X\.toarray\(\)"):
        function(make(), csr_array(np.zeros((2, 4))))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="X holds NaN or infinity"):
            function(make(), np.full((2, 4), value))


def test_other_bad_input_is_refused() -> None:
    for bad in (np.zeros(3), np.zeros((1, 4)), np.full(4, np.nan)):
        with pytest.raises(ValueError, match=r"baseline has shape .*; expected \(4,\), one finite"):
            contributions(make(), rows(), bad)
    with pytest.raises(ValueError, match="X has no rows"):
        neuron_report(make(), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="feature_names has 2 names; expected 4"):
        neuron_report(make(), rows(), ["a", "b"])


@pytest.mark.parametrize("formulation", ["gated", "relu"])
def test_importances_are_the_norms_of_the_feature_penalty_and_select_features(formulation):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 4)) * [1, 10, 1, 1]
    y = np.abs(X[:, 0]) + X[:, 1] / 10
    model = ConvexReLURegressor(
        0.05, penalty="feature", formulation=formulation, n_patterns=8, skip=1.0, random_state=0
    ).fit(X, y)
    network, spread = model.network_, X.std(axis=0)
    norms = np.zeros(4)
    for j in range(4):
        for i in range(network.n_neurons):
            norms[j] += (network.hidden_weights[i, j] * network.output_weights[i] * spread[j]) ** 2
        norms[j] += (network.linear_weights[j, 0] * spread[j]) ** 2
    norms = np.sqrt(norms)
    np.testing.assert_allclose(model.feature_importances_, norms / norms.sum(), rtol=1e-6)
    assert set(np.argsort(norms)[2:]) == {0, 1}
    selector = SelectFromModel(model, threshold=norms[1] / norms.sum() * 0.999, prefit=True)
    assert selector.get_support().tolist() == (norms > 0.999 * norms[1]).tolist()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_table_of_contributions_adds_up_to_the_scores(n_classes):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    y = np.array(["x", "y", "z"])[np.digitize(X["a"] + X["b"], [0, 1][: n_classes - 1])]
    model = ConvexReLUClassifier(n_patterns=8, random_state=0).fit(X, y)
    table = pd.DataFrame(model.contributions(X, X.mean()).columns)
    scores = model.decision_function(X).reshape(60, -1)
    assert list(table) == ["row", "output", "a", "b", "rest", "sum"]
    assert table["output"].tolist() == list(model.classes_[-scores.shape[1] :]) * 60
    np.testing.assert_allclose(table["a"] + table["b"] + table["rest"], scores.ravel(), atol=1e-9)
    np.testing.assert_allclose(table["sum"], scores.ravel(), atol=1e-9)
    assert model.feature_importances_.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "function",
    [
        boundaries,
        feature_importances,
        *(lambda network, of=of: of(network, np.zeros((1, 2))) for of in OF_ROWS),
    ],
)
def test_estimators_are_told_from_their_networks(function):
    with pytest.raises(
        TypeError, match=r"ConvexReLURegressor; expected a network, such as network_"
    ):
        function(ConvexReLURegressor())
