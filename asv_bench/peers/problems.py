"""The problems every method solves, and how an answer is valued: NumPy alone, in float64.

Squared loss, scaled as in ``cvxnn.convex.program``: ``(1/2n) ||prediction - y||^2 + alpha * sum of
block
norms``. Weights are arrays (2, n_patterns, n_features): ``U[0]`` adds to the output, ``U[1]``
subtracts from it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

from cvxnn.convex import add_bias, sample_patterns

Array = NDArray[np.floating]

# Fractions of the strength that turns every neuron off. "large" leaves most of the blocks
# of the ReLU program off (70 to 95 %), "small" far fewer.
STRENGTHS = {"large": 0.05, "small": 0.003}
UCI = {"ionosphere": 0, "pima": 0, "vowel": 0, "segment": 0, "spambase": 0, "banana": 0}


class Problem(NamedTuple):
    """Data, gates and strength; every method gets exactly these."""

    name: str
    strength: str
    X: Array
    """Standardised, divided by the root of the number of features, with a column of ones."""
    y: Array
    """Shape (n, 1): mean 0, standard deviation 1."""
    mask: NDArray[np.bool_]
    gates: Array
    alpha: float

    def predict_network(self, U: Array) -> Array:
        """Predictions of the ReLU network."""
        hidden = np.maximum(self.X.astype(np.float64) @ np.swapaxes(U, 1, 2), 0).sum(axis=2)
        return hidden[0] - hidden[1]

    def predict_gated(self, Z: Array) -> Array:
        """Predictions of the gated network with weights (n_patterns, n_features)."""
        return (self.mask * (self.X.astype(np.float64) @ Z.T)).sum(axis=1)

    def objective(self, prediction: Array, weights: Array) -> float:
        """Value of predictions made with these weights."""
        norms = np.linalg.norm(np.asarray(weights, np.float64), axis=-1).sum()
        return float(np.mean((prediction - self.y[:, 0]) ** 2) / 2 + self.alpha * norms)

    def network_objective(self, U: Array) -> float:
        """Objective of the ReLU network: the true one, whether or not the cones hold."""
        return self.objective(self.predict_network(U), U)

    def program_objective(self, U: Array) -> float:
        """Objective of the ReLU program, which holds where the cones do."""
        return self.objective(self.predict_gated(U[0] - U[1]), U)

    def violation(self, U: Array) -> float:
        """Norm of the scores on the wrong side of their gate, relative to that of all scores."""
        scores = self.X.astype(np.float64) @ np.swapaxes(U, 1, 2)
        against = np.minimum(np.where(self.mask, scores, -scores), 0)
        tiny = np.finfo(np.float64).tiny
        return float(np.linalg.norm(against) / max(np.linalg.norm(scores), tiny))

    def gated_objective(self, Z: Array) -> float:
        """Objective of the gated network."""
        return self.objective(self.predict_gated(Z), Z)

    def gated_bound(self, Z: Array) -> float:
        """Lower bound of the gated optimum, from the residual at ``Z``."""
        return self._bound(Z[None])

    def relu_bound(self, U: Array, multipliers: Array) -> float:
        """Lower bound of the ReLU optimum.

        ``multipliers`` (2, n, n_patterns) of the cones are at least 0, in units of the objective.
        """
        signs = 2.0 * self.mask - 1
        cones = np.stack([(signs * np.maximum(m, 0)).T @ self.X for m in multipliers])
        return self._bound(U, cones)

    def _bound(self, blocks: Array, cones: Array | float = 0.0) -> float:
        y, n = self.y[:, 0], len(self.y)
        weights = blocks[0] - blocks[1] if len(blocks) == 2 else blocks[0]
        residual = y - self.predict_gated(weights)
        slope = (self.mask * residual[:, None]).T @ self.X.astype(np.float64) / n
        slope = np.stack([slope, -slope]) + cones
        steepest = np.linalg.norm(slope, axis=-1).max()
        best = max(residual @ y, 0) / max(residual @ residual, np.finfo(float).tiny)
        scale = min(self.alpha / max(steepest, np.finfo(float).tiny), best)
        return float((scale * (residual @ y) - scale**2 / 2 * (residual @ residual)) / n)


def standardise(X: Array, y: Array) -> tuple[Array, Array]:
    """Units in which the estimators of ``cvxnn`` solve: rows of ``X`` have norm about 1."""
    dtype, X = X.dtype, X.astype(np.float64)
    spread = X.std(axis=0)
    X = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1) / np.sqrt(X.shape[1])
    y = (y - y.mean()) / y.std()
    return add_bias(X.astype(dtype)), y[:, None].astype(dtype)


def load(name: str, data: Path | None) -> list[Problem]:
    """Give the problem in both strengths.

    Raises
    ------
    FileNotFoundError
        If its data are not in the folder ``data``.
    """
    source, n_patterns = PROBLEMS[name]
    X, y = standardise(*source(data))
    sampled = sample_patterns(X, n_patterns, random_state=0)
    slope = (sampled.mask * y.astype(np.float64)).T @ X.astype(np.float64) / len(y)
    alpha_max = float(np.linalg.norm(slope, axis=1).max())
    return [
        Problem(name, strength, X, y, sampled.mask, sampled.gates, fraction * alpha_max)
        for strength, fraction in STRENGTHS.items()
    ]


Source = Callable[[Path | None], tuple[Array, Array]]


def _teacher(n: int, d: int) -> Source:
    """Gaussian data, five ReLU neurons, noise of a tenth of the signal."""

    def source(data: Path | None) -> tuple[Array, Array]:
        rng = np.random.default_rng(0)
        X, neurons = rng.normal(size=(n, d)), rng.normal(size=(d, 5))
        signal = np.maximum(X @ neurons, 0) @ np.array([1.0, -1.0, 1.0, -1.0, 1.0])
        return X, signal / signal.std() + 0.1 * rng.normal(size=n)

    return source


def _breast_cancer(data: Path | None) -> tuple[Array, Array]:
    X, y = load_breast_cancer(return_X_y=True)
    return X, np.where(y == 1, 1.0, -1.0)


def _digits(data: Path | None) -> tuple[Array, Array]:
    X, y = load_digits(return_X_y=True)
    return X, np.where(y % 2, 1.0, -1.0)


def _uci(table: str) -> Source:
    """One class of the table against the rest."""

    def source(data: Path | None) -> tuple[Array, Array]:
        with np.load(_file(data, f"uci/{table}.npz"), allow_pickle=False) as loaded:
            return loaded["X"].astype(np.float64), np.where(loaded["y"] == UCI[table], 1.0, -1.0)

    return source


def _fashion(data: Path | None) -> tuple[Array, Array]:
    """The first 12,000 images; tops (classes 0, 2, 4, 6) against the rest."""
    with np.load(_file(data, "fashion_mnist_20k_5k.npz"), allow_pickle=False) as loaded:
        X, y = loaded["X_train"][:12_000], loaded["y_train"][:12_000]
    tops = np.isin(y, (0, 2, 4, 6))
    return X.reshape(len(X), -1).astype(np.float32), np.where(tops, 1.0, -1.0)


def _file(data: Path | None, name: str) -> Path:
    if data is None or not (data / name).is_file():
        raise FileNotFoundError(f"{name} is not in the folder of --data ({data}); name its folder.")
    return data / name


# name -> (where the data come from, number of gates)
PROBLEMS: dict[str, tuple[Source, int]] = {
    "teacher_200x10": (_teacher(200, 10), 30),
    "teacher_1000x40": (_teacher(1000, 40), 40),
    "teacher_5000x100": (_teacher(5000, 100), 50),
    "breast_cancer": (_breast_cancer, 40),
    "digits": (_digits, 50),
    **{table: (_uci(table), 40) for table in UCI},
    "fashion_mnist": (_fashion, 64),
}
