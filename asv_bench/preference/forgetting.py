"""How long does it take to forget rows, and how far is the result from a refit without them?

``python asv_bench/preference/forgetting.py --pairs FILE.npz ... --tables FILE.npz ... --out
forgetting.jsonl`` with files of ``embeddings.py --layers`` and tables (``X``, ``y``, ``test``). A
model takes in the training rows by ``partial_fit`` in four parts, and forgets 1, 10, 30 and 100 of
the last part. The refit solves the program of the rows that stay from the beginning, with the same
gates, scaling and ridge. With the logistic loss, "one pass" is what the duality gap over the rows
that stay proves. "principal" heads see the first principal components of the embeddings, so that
more gates fit into 4,096 weights. ``--seen N ...`` adds and forgets after ever more rows that are
drawn at random. Times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from heads import load
from sklearn.decomposition import PCA

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, convex, training

SIZES = (1, 10, 30, 100)
WIDTHS = (192, 96, 48)  # numbers of principal components


def main() -> None:
    arguments = _arguments()
    for path in arguments.pairs:
        data = load(path)
        pairs = data.pairs.columns(next(iter(data.layers.values())))
        train, test = data.parts[0]
        won, lost = pairs.chosen[train].astype(float), pairs.rejected[train].astype(float)
        groups = pairs.groups[train]
        new = np.concatenate([pairs.chosen[test], pairs.rejected[test]]).astype(float)
        for n_patterns in (2, 5, 10):
            head = COALAPreferenceHead(n_patterns=n_patterns, random_state=0)
            cpu = time.process_time()
            for part in np.array_split(np.arange(len(won)), 4):
                head.partial_fit_pairs(won[part], lost[part])
            found: dict[str, Any] = {"fit_cpu_s": round(time.process_time() - cpu, 2)}
            found["accuracy"] = accuracy(head, pairs, test)
            for k in SIZES:
                left = copy.deepcopy(head)
                found[f"forget {k}"] = forgotten(left, "forget_pairs", (won[-k:], lost[-k:]), new)
                rest = np.concatenate([won[:-k], lost[:-k]]), np.repeat([1, 0], len(won) - k)
                found[f"forget {k}"] |= refitted(left, rest, len(won) - k)
            record(arguments, path, "pairs", n_patterns, len(won), pairs.chosen.shape[1], found)
        for width in WIDTHS:
            n_patterns = 4096 // width
            head = COALAPreferenceHead(n_patterns=n_patterns, random_state=0)
            reduce = PCA(width, random_state=0).fit(np.concatenate([won, lost]))
            cpu = time.process_time()
            head.partial_fit_pairs(reduce.transform(won), reduce.transform(lost))
            found = {"fit_cpu_s": round(time.process_time() - cpu, 2)}
            own = [reduce.transform(part[test]) for part in (pairs.chosen, pairs.rejected)]
            found["accuracy"] = round(float((head.reward_margin(*own) > 0).mean()), 4)
            record(arguments, path, "principal", n_patterns, len(won), width, found)
        whole = COALAPreferenceHead(random_state=0)
        cpu = time.process_time()
        whole.fit_pairs(won, lost, groups=groups)
        found = {"fit_cpu_s": round(time.process_time() - cpu, 2)}
        found["accuracy"] = accuracy(whole, pairs, test)
        record(arguments, path, "fit_pairs", 1024, len(won), pairs.chosen.shape[1], found)
    for path in arguments.tables:
        with np.load(path, allow_pickle=True) as file:
            X, y, apart = file["X"].astype(np.float64), file["y"], file["test"]
        X_train, y_train = X[~apart], y[~apart]
        for loss in ("squared", "logistic"):
            model = ConvexReLUClassifier(n_patterns=64, loss=loss, random_state=0)
            cpu = time.process_time()
            n_first = len(X_train) - 100 if loss == "logistic" else len(X_train) // 4
            model.partial_fit(X_train[:n_first], y_train[:n_first], classes=np.unique(y))
            if loss == "squared":
                model.partial_fit(X_train[n_first:], y_train[n_first:])
            found = {"fit_cpu_s": round(time.process_time() - cpu, 2)}
            found["accuracy"] = round(float(model.score(X[apart], y[apart])), 4)
            n = model.n_samples_seen_
            for k in SIZES:
                left = copy.deepcopy(model)
                rows = slice(n - k, n)
                gone = X_train[rows], y_train[rows]
                found[f"forget {k}"] = forgotten(left, "forget", gone, X[apart])
                rest = X_train[: n - k], y_train[: n - k]
                if loss == "logistic":
                    found[f"forget {k}"] |= one_pass(left, rest, X[apart])
                found[f"forget {k}"] |= refitted(left, rest, n - k)
            record(arguments, path, loss, 64, n, X.shape[1], found)
    if arguments.seen:
        after_many_rows(arguments)


def after_many_rows(arguments: argparse.Namespace) -> None:
    """Add 100 rows and forget 10 after ever more rows; compare with all of them in one call."""
    rng, d, first = np.random.default_rng(0), 20, 2000
    slopes = rng.normal(size=d)
    X = rng.normal(size=(max(arguments.seen) + 100, d))
    y = (X @ slopes + np.abs(X[:, 0]) > 0).astype(int)
    settings = {"n_patterns": 64, "random_state": 0}
    start = ConvexReLUClassifier(**settings).partial_fit(X[:first], y[:first])
    for n in arguments.seen:
        model = copy.deepcopy(start)
        for part in range(first, n, first):
            rows = slice(part, min(part + first, n))
            model.partial_fit(X[rows], y[rows])
        added, gone = slice(n, n + 100), slice(n, n + 10)
        spent = []
        for _ in range(5):
            one = copy.deepcopy(model)
            times = [time.process_time()]
            one.partial_fit(X[added], y[added])
            times.append(time.process_time())
            one.forget(X[gone], y[gone])
            times.append(time.process_time())
            spent.append(np.diff(times))
        at_once = copy.deepcopy(start)
        rest = slice(n + 10, n + 100)
        rows = np.r_[first:n, rest]
        at_once.partial_fit(X[rows], y[rows])
        new = X[:500] + 0.1
        error = np.abs(one.decision_function(new) - at_once.decision_function(new)).max()
        add, forget = np.median(spent, axis=0)
        found = {"add 100": round(add, 4), "forget 10": round(forget, 4)}
        found["error"] = float(f"{error:.3g}")
        record(arguments, Path("drawn"), "squared", settings["n_patterns"], n, d, found)


def accuracy(head: Any, pairs: Any, test: Any) -> float:
    margins = head.reward_margin(pairs.chosen[test], pairs.rejected[test])
    return round(float((margins > 0).mean()), 4)


def forgotten(model: Any, method: str, rows: Any, new: Any) -> dict[str, Any]:
    """Forget rows; say how long it took, how much changed, and what is proved."""
    before = model.decision_function(new)
    cpu = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        removal = getattr(model, method)(*rows)
    cpu = time.process_time() - cpu
    change = np.abs(model.decision_function(new) - before).max()
    proved = float(removal.error_on(new).max())
    return {
        "cpu_s": round(cpu, 4),
        "change": float(f"{change:.3g}"),
        "proved": float(f"{proved:.3g}") if np.isfinite(proved) else None,
        "gap": float(f"{removal.gap:.3g}") if np.isfinite(removal.gap) else None,
    }


def one_pass(model: Any, rest: Any, new: Any) -> dict[str, Any]:
    """Bound predictions by the duality gap over the rows that stay: the ridge is strongly convex.

    All classes share ``alpha_`` here, and the gap is that of their sum.
    """
    cpu = time.process_time()
    program, weights, dual = model.certificate(*rest)
    gap = max(float(program.evaluate(weights).objective - program.bound_of(dual)), 0.0)
    distance = (2 * gap / float(np.min(program.alpha))) ** 0.5
    cpu = time.process_time() - cpu
    inputs, mask = model._program_rows(model._network_input(new), model._held_scaling())
    norms = np.sqrt((np.asarray(inputs) ** 2).sum(axis=1) * mask.sum(axis=1))
    return {"one_pass_cpu_s": round(cpu, 3), "one_pass": float(f"{(norms * distance).max():.3g}")}


def refitted(model: Any, rest: Any, total: int) -> dict[str, Any]:
    """Solve the program of the rows that stay; compare predictions of these."""
    certificate = model.certificate(*rest)
    program = certificate.program
    start = np.zeros(certificate.weights.blocks[:, 0].shape)
    cpu = time.process_time()
    if isinstance(program.loss, convex.SquaredLoss):
        blocks = convex.solve(program, convex.Ridge(tol=1e-12)).weights.blocks
    else:
        blocks = training.NormalEquations.of(program, total, start).centre[:, None]
    cpu = time.process_time() - cpu
    own, exact = (
        program.operator.forward(program.stack(convex.Weights(b, None)))
        for b in (certificate.weights.blocks, blocks)
    )
    off = np.abs(np.asarray(own) - np.asarray(exact)).max()
    return {"refit_cpu_s": round(cpu, 3), "error": float(f"{off:.3g}")}


def record(
    arguments: Any, path: Path, kind: str, n_patterns: int, n: int, d: int, found: Any
) -> None:
    about = {"set": path.stem, "kind": kind, "n_patterns": n_patterns, "n": n, "d": d}
    print(about | found, file=sys.stderr, flush=True)
    append(arguments.out, about | found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, nargs="*", default=[], help=".npz files of pairs")
    parser.add_argument("--tables", type=Path, nargs="*", default=[], help=".npz files of tables")
    parser.add_argument("--seen", type=int, nargs="*", default=[], help="rows that are drawn")
    parser.add_argument("--out", type=Path, default=Path("forgetting.jsonl"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
