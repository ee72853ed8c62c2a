"""How much earlier can a solver stop when only the order of held-out pairs is asked for?

``python asv_bench/preference/decided_rankings.py FILE.npz ... --out decided_rankings.jsonl`` with
files of ``embeddings.py --layers``. The program of a gated head is solved by conjugate gradient
(pairs), and that of single responses by proximal gradient; after each measurement the duality gap
decides which held-out pairs have the order of the optimum: by the norm of a pair's features, as
``DecidedRankings`` does, or by the exact Hessian, which is no cheaper than the direct solution, and
shows what a sharper bound could give. Of interest are all pairs, or "clear" ones, whose margin
is above a tenth of the median one. Seconds are those of the wall clock, and count the work of
deciding.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from heads import load

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead, convex, training
from cvxnn.convex import DecidedRankings, ProximalGradient, Ridge, paired, solve
from cvxnn.numerics.gates import open_where

PARTS = (0.5, 0.9, 0.99, 1.0)


class Course:
    """Callback that keeps the part decided at each measurement, and never stops."""

    def __init__(self, decisions: DecidedRankings) -> None:
        self.decisions, self.parts, self.signs = decisions, [], []
        self.margins, self.gaps = [], []

    def __call__(self, row: Any, weights: Any) -> bool:
        self.decisions(row, weights)
        self.parts.append(float(self.decisions.decided.mean()))
        self.signs.append(np.sign(self.decisions.margins))
        self.margins.append(np.abs(self.decisions.margins))
        self.gaps.append(max(row["objective"] - row["dual_bound"], 0.0))
        return self.parts[-1] == 1


def main() -> None:
    arguments = _arguments()
    for path in arguments.files:
        data = load(path)
        pairs = data.pairs.columns(next(iter(data.layers.values())))
        train, test = data.parts[0]
        train = train[: arguments.limit]
        won, lost = (part[train].astype(float) for part in (pairs.chosen, pairs.rejected))
        new = [part[test].astype(float) for part in (pairs.chosen, pairs.rejected)]
        labels = np.repeat([1, 0], len(won))
        head = COALAPreferenceHead(n_patterns=arguments.patterns, random_state=0)
        head.fit_pairs(won, lost, groups=pairs.groups[train])
        both = np.concatenate([won, lost])
        groups = np.tile(pairs.groups[train], 2)
        program = head.certificate(both, labels, groups=groups).program
        mean, scale = both.mean(axis=0), both.std(axis=0) * both.shape[1] ** 0.5
        X = (np.concatenate(new) - mean) / scale
        mask = open_where(X, head._proof["gates"])
        own = np.arange(len(X)).reshape(2, -1).T
        interest = paired(X, mask, own)
        conjugate = Ridge(tol=1e-12, max_dense=1, max_kernel=1, rank=100, max_iter=400)
        record(arguments, path, "conjugate gradient, pairs", program, interest, conjugate)
        operator = program.operator
        assert isinstance(operator, convex.PairedOperator)
        single = convex.ConvexProgram(
            convex.GatedOperator(operator.X, operator.mask),
            np.where(np.isin(np.arange(len(operator.X)), operator.pairs[:, 0]), 1.0, -1.0)[:, None],
            program.alpha,
            convex.SquaredLoss(),
            convex.SquaredL2(),
            None,
            "gated",
        )
        proximal = ProximalGradient(tol=1e-9, check_every=5, max_iter=5000)
        record(arguments, path, "proximal gradient, responses", single, interest, proximal)


def record(arguments: Any, path: Path, name: str, program: Any, interest: Any, solver: Any) -> None:
    course = Course(DecidedRankings(program, interest))
    result = solve(program, solver, callback=course)
    plain = solve(program, solver)
    final, parts = course.signs[-1], np.array(course.parts)
    history = result.history
    found: dict[str, Any] = {"set": path.stem, "solver": name, "n": len(program.y)}
    found |= {"n_patterns": program.operator.n_patterns, "pairs": len(final)}
    for part in PARTS:
        at = np.flatnonzero(parts >= part)
        if len(at):
            wrong = float((course.signs[at[0]] != final).mean())
            found[f"decided {part}"] = {
                "iterations": int(history["iteration"][at[0]]),
                "s": round(float(history["time"][at[0]]), 3),
                "gap": float(f"{history['stopping'][at[0]]:.2g}"),
                "other_sign": wrong,
            }
    settled = [k for k in range(len(parts)) if all((s == final).all() for s in course.signs[k:])]
    found["last_change"] = int(history["iteration"][settled[0]])
    for tol in (1e-3, 1e-6, solver.tol):
        at = np.flatnonzero(plain.history["stopping"] <= tol)
        if len(at):
            found[f"gap {tol:g}"] = {
                "iterations": int(plain.history["iteration"][at[0]]),
                "s": round(float(plain.history["time"][at[0]]), 3),
            }
    iterations, margins = history["iteration"], np.array(course.margins)
    certificate = convex.Certificate(program, result.weights, None)
    inverse = training.InverseHessian.of(certificate)
    pairs = interest.pairs
    variances = inverse.variances(np.asarray(interest.X), np.asarray(interest.mask), pairs)
    ridge = course.decisions._norms / float(np.ravel(program.alpha)[0]) ** 0.5
    for bound, sizes in (("norm", ridge), ("hessian", np.sqrt(variances))):
        errors = np.sqrt(2 * np.array(course.gaps))[:, None] * sizes
        clear = margins[-1] > np.median(margins[-1]) / 10
        for name, kept in (("all", clear | True), ("clear", clear)):
            decided = (margins > errors)[:, kept].mean(axis=1)
            found[f"{bound}, {name}"] = {"pairs": int(kept.sum())} | {
                part: int(iterations[np.flatnonzero(decided >= part)[0]])
                for part in PARTS
                if (decided >= part).any()
            }
    print(found, file=sys.stderr, flush=True)
    append(arguments.out, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("decided_rankings.jsonl"))
    parser.add_argument("--limit", type=int, default=1000, help="pairs to fit, at most")
    parser.add_argument("--patterns", type=int, default=64, help="gates")
    return parser.parse_args()


if __name__ == "__main__":
    main()
