"""Which labels should be asked for next? Held-out accuracy against their number.

``python asv_bench/preference/next_labels.py FILE.npz ... --out next_labels.jsonl`` with files of
``embeddings.py --layers``, whose last layer is used, or tables with ``X``, ``y`` and ``test``. Each
choice begins with the same random part of a pool, and as many more are labelled at a time: at
random, those of ``next_labels`` by either criterion, or those that the fit is least sure of.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from heads import load

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead, ConvexReLUClassifier

CHOICES = ("random", "variance", "determinant", "uncertain")


class PairsToJudge:
    """Pairs of replies, of which the first part may be judged."""

    def __init__(self, path: Path) -> None:
        data = load(path)
        self.pairs = data.pairs.columns(list(data.layers.values())[-2])
        self.train, self.test = data.parts[0]

    def of(self, rows):  # type: ignore[no-untyped-def]
        return self.pairs.chosen[rows], self.pairs.rejected[rows]

    def fit(self, rows, seed):  # type: ignore[no-untyped-def]
        return COALAPreferenceHead(random_state=seed).fit_pairs(*self.of(rows))

    def score(self, head):  # type: ignore[no-untyped-def]
        return (head.reward_margin(*self.of(self.test)) > 0).mean()

    def ask(self, head, rows, pool, n, criterion):  # type: ignore[no-untyped-def]
        data = np.concatenate(self.of(rows)), np.repeat([1, 0], len(rows))
        return head.next_labels(*data, self.of(pool), n, criterion=criterion).order

    def doubt(self, head, pool):  # type: ignore[no-untyped-def]
        return -np.abs(head.reward_margin(*self.of(pool)))


class Table:
    """Rows of a table, of which those without the test part may be labelled."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.X, self.y, test = (file[name] for name in ("X", "y", "test"))
        self.train, self.test = np.flatnonzero(~test), np.flatnonzero(test)

    def fit(self, rows, seed):  # type: ignore[no-untyped-def]
        return ConvexReLUClassifier(random_state=seed).fit(self.X[rows], self.y[rows])

    def score(self, model):  # type: ignore[no-untyped-def]
        return model.score(self.X[self.test], self.y[self.test])

    def ask(self, model, rows, pool, n, criterion):  # type: ignore[no-untyped-def]
        data = self.X[rows], self.y[rows], self.X[pool]
        return model.next_labels(*data, n, criterion=criterion).order

    def doubt(self, model, pool):  # type: ignore[no-untyped-def]
        highest = np.sort(model.predict_proba(self.X[pool]), axis=1)
        return highest[:, -2] - highest[:, -1]


def main() -> None:
    arguments = _arguments()
    warnings.simplefilter("ignore", UserWarning)  # a few rows give no sure strength
    for path in arguments.files:
        with np.load(path) as file:
            problem = (Table if "test" in file else PairsToJudge)(path)
        for draw in range(arguments.draws):
            order = np.random.RandomState(draw).permutation(problem.train)[: arguments.pool]
            for choice in CHOICES:
                cpu = time.process_time()
                record = {
                    "set": path.stem,
                    "choice": choice,
                    "draw": draw,
                    "labels": list(range(arguments.step, arguments.most + 1, arguments.step)),
                    "accuracy": run(problem, order, choice, arguments, draw),
                    "cpu_s": round(time.process_time() - cpu, 1),
                }
                print(record, file=sys.stderr, flush=True)
                append(arguments.out, record)


def run(problem, order, choice, arguments, draw):  # type: ignore[no-untyped-def]
    """Label step by step; return the accuracy after each."""
    step, accuracy = arguments.step, []
    labelled, pool = order[:step], order[step:]
    while True:
        model = problem.fit(labelled, draw)
        accuracy.append(round(float(problem.score(model)), 4))
        if len(labelled) >= arguments.most:
            return accuracy
        if choice == "random":
            asked = np.arange(step)
        elif choice == "uncertain":
            asked = np.argsort(-problem.doubt(model, pool))[:step]
        else:
            asked = problem.ask(model, labelled, pool, step, choice)
        labelled, pool = np.r_[labelled, pool[asked]], np.delete(pool, asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs, or tables")
    parser.add_argument("--out", type=Path, default=Path("next_labels.jsonl"))
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--pool", type=int, default=1500)
    parser.add_argument("--step", type=int, default=20)
    parser.add_argument("--most", type=int, default=300)
    return parser.parse_args()


if __name__ == "__main__":
    main()
