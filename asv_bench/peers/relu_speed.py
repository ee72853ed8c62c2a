"""Processor seconds of ReLU networks with nothing set, from data to a certified network.

    python asv_bench/peers/relu_speed.py --data DIR --out relu_speed.jsonl

Each case runs in a process of its own and is fitted twice: the first time with all that is
compiled, the second time without. A third fit, of three quarters of the rows, is scored on the
others. Runs on other commits too, so that a file can hold two.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import cvxnn.training.training as training
from asv_bench.raw_results import append
from cvxnn import ConvexReLUClassifier, ConvexReLURegressor


class Case(NamedTuple):
    """A model and its rows."""

    model: Any
    X: NDArray[np.floating]
    y: NDArray[Any]


NAMES = ("planted numbers", "planted classes", "digits", "vowel", "banana")


def case(name: str, data: Path) -> Case:
    """Rows of 10,000 x 50 from a planted network, digits, or a table of the folder."""
    classifier = ConvexReLUClassifier(formulation="relu", random_state=0)
    if name.startswith("planted"):
        rng = np.random.default_rng(0)
        X, W = rng.standard_normal((10_000, 50)), rng.standard_normal((50, 8))
        z = np.maximum(X @ W, 0) @ np.array([1, -1] * 4) / 5 + 0.3 * rng.standard_normal(10_000)
        if name == "planted numbers":
            return Case(ConvexReLURegressor(formulation="relu", random_state=0), X, z)
        return Case(classifier, X, (z > 0).astype(int))
    if name == "digits":
        return Case(classifier, *load_digits(return_X_y=True))
    with np.load(data / "uci" / f"{name}.npz", allow_pickle=False) as file:
        return Case(classifier, file["X"].astype(float), file["y"])


def measure(name: str, data: Path, out: Path) -> None:
    """Fit twice, and write what each took; ``solve`` leaves out local training and the choices."""
    model, X, y = case(name, data)
    solving = [0.0]

    def watched(solve: Any) -> Any:
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.process_time()
            result = solve(*arguments, **options)
            solving[-1] += time.process_time() - began
            return result

        return timed

    for function in ("solve", "solve_to_tolerance"):
        if hasattr(training, function):
            setattr(training, function, watched(getattr(training, function)))
    record: dict[str, Any] = {"case": name, "shape": list(X.shape)}
    for time_ in ("first", "again"):
        solving.append(0.0)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X, y)
        record[time_] = {"cpu_seconds": time.process_time() - began, "solve": solving[-1]}
    record |= {
        "n_iter": model.n_iter_,
        "objective": float(model.objective_),
        "gap": float(model.gap_),
        "score": float(model.score(X, y)),
    }
    rows = train_test_split(X, y, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record["held_out"] = float(model.fit(rows[0], rows[2]).score(rows[1], rows[3]))
    append(out, record)
    shown = ("case", "first", "again", "n_iter", "objective", "gap", "held_out")
    print({key: record[key] for key in shown})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--only", choices=NAMES)
    options = parser.parse_args()
    if options.only:
        measure(options.only, options.data, options.out)
        return
    for name in NAMES:
        subprocess.run([sys.executable, *sys.argv, "--only", name], check=True)


if __name__ == "__main__":
    main()
