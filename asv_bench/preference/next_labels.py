"""Which labels should be asked for next? Held-out accuracy against their number.

``python asv_bench/preference/next_labels.py FILE.npz ... --out next_labels.jsonl`` with files of
``embeddings.py --layers``, whose last layer is used, or tables with ``X``, ``y`` and ``test``. Each
choice begins with the same random part of a pool, and as many more are labelled at a time: at
random, those of ``next_labels`` by either criterion, or those that the fit is least sure of.
``--choices`` takes further ones for pairs: "typical" labels the rows nearest to the centres of as
many clusters as are asked for, from the first step on; "typical, variance" only begins so;
"differences" is D-optimal for a linear model of the differences of the two replies; "unsure,
variance" takes those of least variance among the quarter that the fit is least sure of; "new
prompts" prefers conversations of which least is labelled. "all" labels the whole pool, which says
how much there is to gain.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from heads import load
from sklearn.cluster import KMeans

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead, ConvexReLUClassifier

CHOICES = ("random", "variance", "determinant", "uncertain")
FURTHER = (
    "typical",
    "typical, variance",
    "differences",
    "unsure, variance",
    "new prompts",
    "all",
)


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

    def features(self, rows):  # type: ignore[no-untyped-def]
        """Differences of the two replies, turned at random: nobody knows which one is preferred."""
        won, lost = self.of(rows)
        turn = np.random.RandomState(0).choice([-1.0, 1.0], len(self.pairs.chosen))[rows]
        return turn[:, None] * (np.asarray(won, float) - lost)

    def groups(self, rows):  # type: ignore[no-untyped-def]
        return self.pairs.groups[rows]


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
            for choice in arguments.choices:
                cpu = time.process_time()
                record = {
                    "set": path.stem,
                    "choice": choice,
                    "draw": draw,
                    "step": arguments.step,
                    "labels": [len(order)]
                    if choice == "all"
                    else list(range(arguments.step, arguments.most + 1, arguments.step)),
                    "accuracy": run(problem, order, choice, arguments, draw),
                    "cpu_s": round(time.process_time() - cpu, 1),
                }
                print(record, file=sys.stderr, flush=True)
                append(arguments.out, record)


def run(problem, order, choice, arguments, draw):  # type: ignore[no-untyped-def]
    """Label step by step; return the accuracy after each."""
    if choice == "all":
        return [round(float(problem.score(problem.fit(order, draw))), 4)]
    step, accuracy = arguments.step, []
    labelled, pool = order[:step], order[step:]
    if choice.startswith("typical"):
        first = typical(problem.features(order), step)
        labelled, pool = order[first], np.delete(order, first)
    while True:
        model = problem.fit(labelled, draw)
        accuracy.append(round(float(problem.score(model)), 4))
        if len(labelled) >= arguments.most:
            return accuracy
        asked = choose(problem, model, choice, labelled, pool, step)
        labelled, pool = np.r_[labelled, pool[asked]], np.delete(pool, asked)


def choose(problem, model, choice, labelled, pool, step):  # type: ignore[no-untyped-def]
    """Return which of a pool are labelled next."""
    if choice == "random":
        return np.arange(step)
    if choice == "uncertain":
        return np.argsort(-problem.doubt(model, pool))[:step]
    if choice == "typical":
        return typical(problem.features(pool), step)
    if choice == "differences":
        return optimal(problem.features(labelled), problem.features(pool), step)
    if choice == "unsure, variance":
        unsure = np.argsort(-problem.doubt(model, pool))[: max(len(pool) // 4, step)]
        return unsure[problem.ask(model, labelled, pool[unsure], step, "variance")]
    if choice == "new prompts":
        groups, asked = problem.groups(pool), []
        known = list(problem.groups(labelled))
        for _ in range(step):
            counts = np.array([known.count(group) for group in groups], float)
            counts[asked] = np.inf
            asked.append(int(counts.argmin()))
            known.append(groups[asked[-1]])
        return np.array(asked)
    return problem.ask(model, labelled, pool, step, choice.removeprefix("typical, "))


def typical(X, n):  # type: ignore[no-untyped-def]
    """Return the rows nearest to the centres of ``n`` clusters."""
    means = KMeans(n, n_init=1, random_state=0).fit(X)
    nearest = np.argmin(means.transform(X), axis=0)
    rest = np.setdiff1d(np.arange(len(X)), nearest)
    return np.r_[np.unique(nearest), rest][:n]


def optimal(known, X, n):  # type: ignore[no-untyped-def]
    """Return rows that raise the determinant of the Hessian of a linear model most."""
    ridge = np.trace(known.T @ known) / len(known) / known.shape[1]
    inverse, asked = np.linalg.inv(known.T @ known + ridge * np.eye(X.shape[1])), []
    for _ in range(n):
        leverage = np.einsum("nd,nd->n", X @ inverse, X)
        leverage[asked] = -np.inf
        asked.append(int(leverage.argmax()))
        turned = inverse @ X[asked[-1]]
        inverse -= np.outer(turned, turned) / (1 + leverage[asked[-1]])
    return np.array(asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs, or tables")
    parser.add_argument("--out", type=Path, default=Path("next_labels.jsonl"))
    parser.add_argument("--choices", nargs="+", default=CHOICES, choices=CHOICES + FURTHER)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--pool", type=int, default=1500)
    parser.add_argument("--step", type=int, default=20)
    parser.add_argument("--most", type=int, default=300)
    return parser.parse_args()


if __name__ == "__main__":
    main()
