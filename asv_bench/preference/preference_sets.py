"""Do sets of replies hold the better one as often as they say? Beside sets of MAPIE.

``python asv_bench/preference/preference_sets.py FILE.npz ... --out preference_sets.jsonl`` with
files of ``embeddings.py --layers``, whose last layer is used. Random splits of conversations or
prompts, a pair of each: ``--train`` to fit, at most 150 to test. ``preference_set`` takes what the
head without each pair would say from the head itself; MAPIE's cross-conformal sets (pip install
mapie) come from a fit without each pair, on the first ``--mapie`` splits. These two have one
strength and 64 gates; then ``preference_set`` once more with nothing set. One line for each set and
method; what is there is not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
from heads import load
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import LeaveOneOut

from asv_bench.raw_results import append, read
from cvxnn import COALAPreferenceHead
from cvxnn.explanation import preference_set

Floats = NDArray[np.floating]
N_TEST, LEVEL = 150, 0.9


class PairClassifier(ClassifierMixin, BaseEstimator):
    """A head as MAPIE takes it: a row is a pair, whose label is 1 where the first reply won."""

    def __init__(self, n_patterns: int | str = "auto", strength: float | str = "auto") -> None:
        self.n_patterns = n_patterns
        self.strength = strength

    def fit(self, X: Floats, y: NDArray[np.integer]) -> Self:
        self.classes_ = np.array([0, 1])
        self.head_ = COALAPreferenceHead(
            n_patterns=self.n_patterns, strength=self.strength, random_state=0
        )
        self.head_.fit_pairs(*won_and_lost(X, y))
        return self

    def predict_proba(self, X: Floats) -> Floats:
        first, second = (self.head_.decision_function(part) for part in np.split(X, 2, axis=1))
        p = expit(first - second)
        return np.column_stack([1 - p, p])

    def predict(self, X: Floats) -> NDArray[np.integer]:
        return self.predict_proba(X).argmax(axis=1)


def main() -> None:
    arguments = _arguments()
    done = {(r["set"], r["method"]) for r in read(arguments.out)}
    quick = {"n_patterns": 64, "strength": arguments.strength}
    methods = {
        "preference_set": (ours, quick, arguments.splits),
        "mapie": (mapie, quick, arguments.mapie),
        "preference_set, nothing set": (ours, {}, arguments.splits),
    }
    for path in arguments.files:
        data = load(path)
        pairs = data.pairs.columns(list(data.layers.values())[-2])
        for method, (sets_of, options, n_splits) in methods.items():
            if (path.stem, method) in done or not n_splits:
                continue
            covered, size, cpu = [], [], time.process_time()
            for seed in range(n_splits):
                rng = np.random.RandomState(seed)
                order = rng.permutation(len(pairs.groups))
                rows = order[np.unique(pairs.groups[order], return_index=True)[1]]
                rows = rng.permutation(rows)[: arguments.train + N_TEST]
                turned = rng.rand(len(rows)) < 0.5
                won, lost = pairs.chosen[rows], pairs.rejected[rows]
                first = np.where(turned[:, None], lost, won)
                X = np.concatenate([first, np.where(turned[:, None], won, lost)], axis=1)
                y, n = (~turned).astype(int), arguments.train
                sets = sets_of(PairClassifier(**options), X[:n], y[:n], X[n:])
                covered.append(sets[np.arange(len(sets)), y[n:]].mean())
                size.append(sets.sum(axis=1).mean())
            found = {
                "set": path.stem,
                "method": method,
                "level": LEVEL,
                "n": arguments.train,
                "n_test": len(rows) - arguments.train,
                "n_splits": n_splits,
                "options": options,
                "coverage": round(float(np.mean(covered)), 4),
                "standard_error": round(float(np.std(covered) / np.sqrt(n_splits)), 4),
                "size": round(float(np.mean(size)), 4),
                "cpu_s_each": round((time.process_time() - cpu) / n_splits, 3),
            }
            print(found, file=sys.stderr, flush=True)
            append(arguments.out, found)


def ours(model: PairClassifier, X: Floats, y: NDArray[np.integer], new: Floats) -> Any:
    head, (won, lost) = model.fit(X, y).head_, won_and_lost(X, y)
    labels = np.repeat([1, 0], len(won))
    influence = head.influence(np.concatenate([won, lost]), labels)
    first, second = np.split(new, 2, axis=1)
    return preference_set(influence, first, second, LEVEL)[:, ::-1]


def mapie(model: PairClassifier, X: Floats, y: NDArray[np.integer], new: Floats) -> Any:
    from mapie.classification import CrossConformalClassifier

    conformal = CrossConformalClassifier(model, confidence_level=LEVEL, cv=LeaveOneOut())
    conformal.fit_conformalize(X, y)
    return conformal.predict_set(new, agg_scores="crossval")[1][:, :, 0]


def won_and_lost(X: Floats, y: NDArray[np.integer]) -> tuple[Floats, Floats]:
    first, second = np.split(X, 2, axis=1)
    of_first = (y == 1)[:, None]
    return np.where(of_first, first, second), np.where(of_first, second, first)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("preference_sets.jsonl"))
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--mapie", type=int, default=0, help="splits that MAPIE is run on")
    parser.add_argument("--train", type=int, default=60, help="pairs to fit")
    parser.add_argument("--strength", type=float, default=0.1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
