"""Programs and preference pairs whose targets come from a planted ReLU network."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex import ConvexProgram, GatedOperator

Formulation = Literal["relu", "gated"]

N_PATTERNS = 64
N_FACTORS = 256  # latent factors, so that features are correlated as those of language models are


class Pairs(NamedTuple):
    chosen: NDArray[np.float32]
    rejected: NDArray[np.float32]


def rows(n: int, d: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Correlated features, float32, rows of norm about 1."""
    factors = rng.standard_normal((n, min(d, N_FACTORS)), np.float32)
    loadings = rng.standard_normal((factors.shape[1], d), np.float32)
    X = factors @ (loadings / np.sqrt(np.float32(factors.shape[1])))
    X += rng.standard_normal((n, d), np.float32)
    X /= np.sqrt(np.float32(2 * d))
    return X


def teach(X: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Values of a network with 8 hidden neurons, at unit variance."""
    hidden = np.maximum(X @ rng.standard_normal((X.shape[1], 8), np.float32), 0)
    values = hidden @ np.array([1, -1] * 4, np.float32)
    return (values - values.mean()) / values.std()


def pairs(n: int, d: int) -> Pairs:
    """Draw n pairs, preferred by the difference of the planted rewards plus logistic noise."""
    rng = np.random.default_rng(0)
    X = rows(2 * n, d, rng)
    reward = 3 * teach(X, rng)
    wins = reward[:n] - reward[n:] + rng.logistic(size=n) > 0
    return Pairs(
        np.where(wins[:, None], X[:n], X[n:]),
        np.where(wins[:, None], X[n:], X[:n]),
    )


def program_of(
    X: NDArray[np.float32],
    y: NDArray[np.float32],
    formulation: Formulation = "relu",
    part: float = 0.02,
) -> ConvexProgram:
    """Program over Gaussian patterns, at a part of the strength that leaves nothing."""
    gates = np.random.default_rng(1).standard_normal((X.shape[1], N_PATTERNS), np.float32)
    program = ConvexProgram(
        GatedOperator(X, X @ gates >= 0), y[:, None], 0.0, formulation=formulation
    )
    return replace(program, alpha=part * float(program.alpha_max()))


def program(n: int, d: int, formulation: Formulation = "relu") -> ConvexProgram:
    """Regression on a planted network with noise."""
    rng = np.random.default_rng(0)
    X = rows(n, d, rng)
    y = teach(X, rng) + 0.3 * rng.standard_normal(n, np.float32)
    return program_of(X, y, formulation)
