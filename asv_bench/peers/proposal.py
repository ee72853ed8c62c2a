"""What the convex program gains over the local training that proposes its patterns, on 30 fits.

    python asv_bench/peers/proposal.py --data DIR --features DIR --out proposal.jsonl

ReLU networks with nothing set but the loss: on tables of ``DIR/uci`` (at most 1,500 training rows),
and on embeddings, ``minilm_NAME.npz``, of at most 750 pairs or 1,500 reviews. Even numbers of fits
chose the constants of the solvers, odd ones are for reports. A record for each fit and tolerance,
with CPU seconds of one thread, without what JAX compiles. Runs on other commits too, so that a file
can hold the figures of two.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes

from asv_bench.raw_results import Record, append
from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, ConvexReLURegressor
from cvxnn.convex import ConvexProgram, GatedOperator, InteriorPoint, automatic
from cvxnn.training import propose, to_program, train

N_PATTERNS, MOST_ROWS, MOST_PAIRS = 64, 1500, 750
TOLERANCES = (1e-2, 1e-3)
SQUARED = (
    *("australian", "banana", "crx", "ionosphere", "mammographic"),
    *("pima", "ring", "tic-tac-toe", "wdbc"),
)
LOGISTIC = ("australian", "banana", "ionosphere", "pima", "spambase", "ring", "wdbc")
SEVERAL_CLASSES = ("contraceptive", "vowel", "segment")
# Table, column that is the target, loss.
REGRESSION = (
    ("diabetes", None, "squared"),
    ("satimage", 17, "squared"),
    ("penbased", 15, "squared"),
    ("spambase", 56, "huber"),
    ("vowel", 4, "huber"),
)
HEADS = ("mrbench", "ultrafeedback", "hh_helpful")
RESPONSES = (("imdb", "squared"), ("imdb", "logistic"), ("mrbench", "logistic"))


Rows = tuple[NDArray[np.floating], NDArray[Any]]


class Fit(NamedTuple):
    """A model with nothing set but the loss, and a reader of rows of this ``kind``."""

    kind: str
    data: str
    loss: str
    model: Any
    read: Callable[[], Rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--features", type=Path, required=True, help="folder with minilm_*.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the fit to begin with")
    parser.add_argument("--last", type=int, default=29, help="number of the fit to end with")
    options = parser.parse_args()
    for number, fit in enumerate(fits(options.data, options.features)):
        if not options.first <= number <= options.last:
            continue
        for record in measure(fit):
            about = {"number": number, "kind": fit.kind, "data": fit.data, "loss": fit.loss}
            append(options.out, {**about, **record})
            print({**about, **record}, flush=True)


def fits(data: Path, features: Path) -> Iterator[Fit]:
    options: dict[str, Any] = {"formulation": "relu", "random_state": 0, "max_iter": 1}
    named = [(SQUARED, "squared"), (LOGISTIC, "logistic"), (SEVERAL_CLASSES, "squared")]
    for names, loss in named:
        for name in names:
            model = ConvexReLUClassifier(loss=loss, **options)
            yield Fit("classes", name, loss, model, partial(table, data, name))
    for name, column, loss in REGRESSION:
        model = ConvexReLURegressor(loss=loss, **options)
        yield Fit("numbers", name, loss, model, partial(numbers, data, name, column))
    for name in HEADS:
        head = COALAPreferenceHead(formulation="relu", random_state=0, max_iter=1)
        yield Fit("pairs", name, "squared", head, partial(responses, features, name))
    for name, loss in RESPONSES:
        model = ConvexReLUClassifier(loss=loss, **options)
        yield Fit("responses", name, loss, model, partial(responses, features, name))


def numbers(data: Path, name: str, column: int | None) -> Rows:
    """A column of a table as the target, the others as features."""
    if column is None:
        X, y = load_diabetes(return_X_y=True)
        return X, y
    X, _ = table(data, name)
    return np.delete(X, column, axis=1), X[:, column].astype(float)


def table(data: Path, name: str) -> Rows:
    """At most 1,500 training rows, drawn at random."""
    with np.load(data / "uci" / f"{name}.npz") as file:
        X, y = file["X"][~file["test"]], file["y"][~file["test"]]
    rows = np.random.RandomState(0).permutation(len(X))[:MOST_ROWS]
    return X[rows], y[rows]


def responses(features: Path, name: str) -> Rows:
    """Embeddings of the last layer: chosen responses, then rejected ones; or labelled reviews."""
    with np.load(features / f"minilm_{name}.npz") as file:
        X = file["responses"][:, -1].astype(np.float32)
        if "train_label" in file:
            rows = np.random.RandomState(0).permutation(len(file["train_label"]))[:MOST_ROWS]
            return X[file["train_response"][rows]], file["train_label"][rows]
        pairs = np.random.RandomState(0).permutation(len(file["train_chosen"]))[:MOST_PAIRS]
        chosen, rejected = X[file["train_chosen"][pairs]], X[file["train_rejected"][pairs]]
    return np.concatenate([chosen, rejected]), np.repeat([1, 0], len(pairs))


def measure(fit: Fit) -> Iterator[Record]:
    """Train as the model does, at each tolerance; the model itself gives units and strength."""
    rows, labels = fit.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one iteration does not converge
        if fit.kind == "pairs":
            half = len(rows) // 2
            fit.model.fit_pairs(rows[:half], rows[half:])
        else:
            fit.model.fit(rows, labels)
    given = fit.model.certificate(rows, labels).program
    X, y, alpha = given.operator.X, given.y, float(given.alpha)
    options: dict[str, Any] = {"loss": given.loss, "sample_weight": given.sample_weight}
    began = time.process_time()
    network = propose(X, y, alpha, N_PATTERNS, random_state=0, **options)
    found, weights = to_program(X, network)
    propose_cpu_s = time.process_time() - began
    program = ConvexProgram(GatedOperator(X, found.mask), y, alpha, **options)
    proposal = float(program.evaluate(weights).network_objective)
    options |= {"max_iter": 1000}
    solver = automatic(program, tol=1e-2)
    if not isinstance(solver, InteriorPoint):  # compile
        first = {**options, "max_iter": 10}
        train(X, y, alpha, N_PATTERNS, random_state=0, **first)
    for tol in TOLERANCES:
        began = time.process_time()
        trained = train(X, y, alpha, N_PATTERNS, tol=tol, random_state=0, **options)
        result = trained.result
        proposed = np.array_equal(result.weights.blocks, weights.blocks)
        yield {
            "n": len(X),
            "d": X.shape[1],
            "n_outputs": y.shape[1],
            "n_patterns": len(found),
            "alpha": alpha,
            "solver": type(solver).__name__,
            "tol": tol,
            "proposal_objective": proposal,
            "objective": result.objective,
            "dual_bound": result.dual_bound,
            "gap": result.gap,
            "returned": "proposal" if proposed else "program",
            "status": result.status.value,
            "n_iter": result.n_iter,
            "propose_cpu_s": propose_cpu_s,
            "cpu_s": time.process_time() - began,
        }


if __name__ == "__main__":
    main()
