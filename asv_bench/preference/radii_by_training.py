"""What buys larger certified radii, and what does it cost in accuracy?

``python asv_bench/preference/radii_by_training.py FILE.npz ... --out radii_by_training.jsonl`` with
files of ``embeddings.py --layers``. Heads of one set of gates, whose program has one of three
convex penalties, of several strengths: "norm", the ridge, in multiples of the automatic strength,
which is robust training of a reward that is linear; "slope", the mean of the squared slopes of the
reward at the replies beside the automatic ridge, in multiples of it, which is what noise in the
embeddings adds to the loss; "neurons", the sum of the norms of all neurons, which bounds the
steepness whatever gates do, in parts of ``alpha_max``. Radii of held-out pairs are in units of the
distance between the two replies, as in ``radii.py``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from heads import load
from scipy.linalg import cholesky, solve_triangular

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.explanation import ranking_radius

TRIES = {
    "norm": (0.1, 1, 3, 10, 30, 100, 1000),
    "slope": (0.03, 0.3, 3, 30),
    "neurons": (0.01, 0.03, 0.1, 0.3),
}
RADII = (0.01, 0.03)
STEPS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("radii_by_training.jsonl"))
    parser.add_argument("--limit", type=int, default=1000, help="pairs to fit and to test, at most")
    parser.add_argument("--penalties", nargs="+", choices=TRIES, default=list(TRIES))
    arguments = parser.parse_args()
    for path in arguments.files:
        data = load(path)
        pairs = data.pairs.columns(next(iter(data.layers.values())))
        train, test = (
            np.random.RandomState(0).permutation(part)[: arguments.limit] for part in data.parts[0]
        )
        won, lost = (part[train].astype(float) for part in (pairs.chosen, pairs.rejected))
        new = [part[test].astype(float) for part in (pairs.chosen, pairs.rejected)]
        head = COALAPreferenceHead(n_patterns=64, random_state=0)
        head.fit_pairs(won, lost, groups=pairs.groups[train])
        both = np.concatenate([won, lost]), np.repeat([1, 0], len(won))
        solved = head._solved(*both, None, np.tile(pairs.groups[train], 2))
        for penalty in arguments.penalties:
            for times in TRIES[penalty]:
                blocks = BLOCKS[penalty](solved.certificate.program, times)
                found = {"set": path.stem, "n": len(train), "penalty": penalty, "times": times}
                found |= measured(head._with(solved, blocks, 0.0, 0.0), *new)
                print(found, file=sys.stderr, flush=True)
                append(arguments.out, found)


def measured(head: Any, first: Any, second: Any) -> dict[str, Any]:
    """Accuracy, radii and the part that is right and certified."""
    apart = np.linalg.norm(first - second, axis=1)
    radius = ranking_radius(head.network_, first, second)
    right = head.reward_margin(first, second) > 0
    parts = (radius / np.maximum(apart, 1e-12))[apart > 0]
    return {
        "accuracy": round(float(right.mean()), 4),
        "quartiles": [round(float(q), 5) for q in np.quantile(parts, [0.25, 0.5, 0.75])],
        **{
            f"right_within_{part}": round(float((right & (radius > part * apart)).mean()), 4)
            for part in RADII
        },
    }


def of_norms(program: Any, times: float) -> Any:
    """Blocks under the ridge alone."""
    return of_matrix(program, times * strength(program) * np.eye(program.operator.n_patterns))


def of_slopes(program: Any, times: float) -> Any:
    """Blocks under the ridge and the mean squared slope ``tr(Z^T G Z)``, in the same unit."""
    data = RidgeData.of(program)
    weight = np.zeros(len(data.X))
    for rows in data.pairs.T:
        np.add.at(weight, rows, data.root[:, 0] ** 2)
    slopes = (data.columns * weight[:, None]).T @ data.columns
    unit = strength(program) / (np.trace(slopes) / len(slopes))
    return of_matrix(program, strength(program) * np.eye(len(slopes)) + times * unit * slopes)


def of_neurons(program: Any, times: float) -> Any:
    """Blocks under the sum of the norms of all neurons, by accelerated proximal gradient."""
    data = RidgeData.of(program)
    A = np.concatenate([features for _, features in data.features()]) * data.root
    y, shape = data.root[:, 0], (data.n_patterns, data.X.shape[1])
    alpha = times * np.linalg.norm((A.T @ y).reshape(shape), axis=1).max()
    step = 1 / np.linalg.norm(A @ A.T, 2)
    z, ahead, t = np.zeros((2, A.shape[1])), np.zeros(A.shape[1]), 1.0
    for _ in range(STEPS):
        moved = (ahead - step * (A.T @ (A @ ahead - y))).reshape(shape)
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        moved *= np.maximum(1 - step * alpha / np.maximum(norms, 1e-300), 0)
        z = np.stack([z[1], moved.ravel()])
        t, before = (1 + (1 + 4 * t**2) ** 0.5) / 2, t
        ahead = z[1] + (before - 1) / t * (z[1] - z[0])
    return z[1].reshape(1, 1, *shape)


BLOCKS = {"norm": of_norms, "slope": of_slopes, "neurons": of_neurons}


def of_matrix(program: Any, matrix: Any) -> Any:
    """Blocks of least squared loss plus half ``tr(Z^T A Z)``, by the kernel of turned gates."""
    data = RidgeData.of(program)
    X, root, (first, second) = np.asarray(data.X, float), data.root[:, 0], data.pairs.T
    factor = cholesky(matrix, lower=True)
    gates = solve_triangular(factor, np.asarray(data.columns, float).T, lower=True).T
    rows = (gates @ gates.T) * (X @ X.T)
    kernel = rows[first] - rows[second]
    kernel = kernel[:, first] - kernel[:, second]
    u = root * np.linalg.solve(root[:, None] * kernel * root + np.eye(len(root)), root)
    of_rows = np.zeros(len(X))
    np.add.at(of_rows, first, u)
    np.subtract.at(of_rows, second, u)
    return solve_triangular(factor.T, (gates * of_rows[:, None]).T @ X)[None, None]


def strength(program: Any) -> float:
    return float(np.ravel(program.alpha)[0])


if __name__ == "__main__":
    main()
