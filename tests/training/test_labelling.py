"""Choices of labels, beside inverses and determinants of the whole Hessian."""

import numpy as np
import pytest

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, ConvexReLURegressor
from cvxnn.training import Asked


def rows(n, d=3, seed=0):
    rng = np.random.RandomState(seed)
    return rng.randn(n, d)


def features(inputs, mask):
    spread = np.asarray(mask)[:, :, None] * np.asarray(inputs, float)[:, None, :]
    return spread.reshape(len(spread), -1)


def naive(solved, candidates, n, criterion, pairs=None):
    """Greedy choices by whole Hessians."""
    program = solved.certificate.program
    A = features(program.operator.X, program.operator.mask)
    new = features(*solved.look(candidates))
    if pairs is not None:
        A = A[program.operator.pairs[:, 0]] - A[program.operator.pairs[:, 1]]
        new = new[pairs[:, 0]] - new[pairs[:, 1]]
    blocks = np.asarray(solved.certificate.weights.blocks, float)[:, 0].reshape(
        len(program.y.T), -1
    )
    share = np.broadcast_to(np.asarray(program.share, float), (len(A), 1))
    alphas = np.broadcast_to(np.asarray(program.alpha, float), len(blocks))
    curvature = program.loss.hessian(A @ blocks.T, program.y)
    weight = share.mean() * program.loss.hessian(new @ blocks.T, np.ones((len(new), len(blocks))))
    hessians = [
        A.T @ (share * curvature[:, [k]] * A) + alpha * np.eye(A.shape[1])
        for k, alpha in enumerate(alphas)
    ]
    order, gain = [], []
    for _ in range(n):
        gains = np.zeros(len(new))
        for k, hessian in enumerate(hessians):
            for row, x in enumerate(new):
                more = hessian + weight[row, k] * np.outer(x, x)
                if criterion == "determinant":
                    gains[row] += np.linalg.slogdet(more)[1] - np.linalg.slogdet(hessian)[1]
                else:
                    fall = np.linalg.inv(hessian) - np.linalg.inv(more)
                    gains[row] += share.mean() * np.einsum("np,pq,nq->n", new, fall, new).mean()
        gains[order] = -1
        order.append(int(gains.argmax()))
        gain.append(gains.max())
        for k in range(len(hessians)):
            x = new[order[-1]]
            hessians[k] = hessians[k] + weight[order[-1], k] * np.outer(x, x)
    return order, gain


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (ConvexReLURegressor, lambda X: X[:, 0] + X[:, 1] ** 2),
        (ConvexReLUClassifier, lambda X: X[:, 0] > 0),
        (ConvexReLUClassifier, lambda X: np.digitize(X[:, 0], [-0.5, 0.5])),
        (lambda **s: ConvexReLUClassifier(loss="logistic", **s), lambda X: X[:, 0] > 0),
    ],
    ids=["regressor", "two classes", "three classes", "logistic"],
)
@pytest.mark.parametrize("criterion", ["variance", "determinant"])
def test_rows(model, y, criterion):
    X, new = rows(40), rows(15, seed=1)
    fitted = model(random_state=0, n_patterns=5).fit(X, y(X))
    found = fitted.next_labels(X, y(X), new, 6, criterion=criterion)
    order, gain = naive(fitted._solved(X, y(X), None, None), new, 6, criterion)
    np.testing.assert_array_equal(found.order, order)
    np.testing.assert_allclose(found.gain, gain, rtol=1e-6)
    assert found.utility.argmax() == order[0]


@pytest.mark.parametrize("criterion", ["variance", "determinant"])
def test_pairs(criterion):
    chosen, rejected = rows(30) + 0.5, rows(30, seed=1)
    first, second = rows(12, seed=2), rows(12, seed=3)
    head = COALAPreferenceHead(n_patterns=5, random_state=0).fit_pairs(chosen, rejected)
    X, y = np.concatenate([chosen, rejected]), np.repeat([1, 0], 30)
    found = head.next_labels(X, y, (first, second), 5, criterion=criterion)
    numbers = np.column_stack([np.arange(12), np.arange(12) + 12])
    solved = head._solved(X, y, None, None)
    order, gain = naive(solved, np.concatenate([first, second]), 5, criterion, numbers)
    np.testing.assert_array_equal(found.order, order)
    np.testing.assert_allclose(found.gain, gain, rtol=1e-6)
    turned = head.next_labels(X, y, (second, first), 5, criterion=criterion)
    np.testing.assert_array_equal(turned.order, found.order)


def test_what_was_chosen_is_not_asked_for_twice():
    X, y = rows(30), rows(30)[:, 0]
    model = ConvexReLURegressor(random_state=0).fit(X, y)
    new = np.repeat(rows(3, seed=1), 4, axis=0)
    found = model.next_labels(X, y, new, 12)
    assert isinstance(found, Asked)
    assert sorted(found.order) == list(range(12))
    assert (np.diff(found.gain) < 1e-9).all()
    first = model.next_labels(X, y, new, 3, criterion="determinant").order
    assert len({k // 4 for k in first}) == 3  # copies tell little more


@pytest.mark.slow
def test_bad_input():
    X, y = rows(30), rows(30)[:, 0]
    model = ConvexReLURegressor(random_state=0).fit(X, y)
    for n in (0, 4):
        with pytest.raises(ValueError, match="expected from 1 to 3"):
            model.next_labels(X, y, rows(3), n)
    with pytest.raises(ValueError, match="not those of the fit"):
        model.next_labels(X, y[::-1], rows(3))
    with pytest.raises(ValueError, match="expected 'variance' or 'determinant'"):
        model.next_labels(X, y, rows(3), criterion="trace")
    labels = np.digitize(y, [-0.5, 0.5])
    coupled = ConvexReLUClassifier(loss="multinomial", random_state=0).fit(X, labels)
    with pytest.raises(TypeError, match="couples the outputs"):
        coupled.next_labels(X, labels, rows(3))
    head = COALAPreferenceHead(n_patterns=5, random_state=0).fit_pairs(X + 1, X)
    pairs = np.concatenate([X + 1, X]), np.repeat([1, 0], 30)
    with pytest.raises(TypeError, match="candidates=\\(first, second\\)"):
        head.next_labels(*pairs, X)
    with pytest.raises(ValueError, match="one row of each"):
        head.next_labels(*pairs, (X, X[1:]))
