"""Reward margins of training and held-out pairs while COALA's solvers run, on pairs of DPO's runs.

    python asv_bench/preference/margin_curves.py --features FOLDER --out margin_curves.jsonl

``FOLDER`` is that of ``coala_runs.py``; ``coala_runs.jsonl`` beside this file says which layer each
head reads. A line is one head on one set: seconds since the fit began, mean margin of the 1,000
training pairs, and that of the 400 held-out pairs, after each measurement of a solver. Seconds are
those of the processor, which one thread needs of the clock where nothing else runs. What the
scoring takes is not counted; what is compiled is, in phase I. Curves of DPO are in
``dpo_runs.jsonl``, and ``examples/plot_margins_over_time.py`` draws both.

``--rows FILE.npz`` takes a file of ``embeddings.py NAME --layers 3,6`` instead, and its last layer.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from coala_runs import ALL, HEADS, N_TEST, N_TRAIN, Features
from heads import load
from sklearn.callback import ScoringMonitor

from asv_bench.raw_results import append, read

METHODS = "algorithm 1", "gated"
RUNS = Path(__file__).with_name("coala_runs.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="folder")
    parser.add_argument("--rows", type=Path, help="file of all rows of a set")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.rows is not None:
        data = AllRows(options.rows)
        [name] = data.inputs
        for method in METHODS:
            row = {"set": options.rows.stem, "method": method, "seed": 0, "input": name}
            append(options.out, {**row, **followed(data, method, name)})
        return
    runs = [row for row in read(RUNS) if row["seed"] == 0 and row["method"] in METHODS]
    for run in runs:
        data = Features(options.features, run["set"])
        row = {name: run[name] for name in ("set", "method", "seed", "input")}
        append(options.out, {**row, **followed(data, run["method"], run["input"])})


class AllRows(Features):
    """As many pairs as in the other runs, with one embedding of MiniLM."""

    def __init__(self, path: Path) -> None:
        data = load(path)
        train, test = data.parts[0]
        rows = np.concatenate([train[:N_TRAIN], test[:N_TEST]])
        groups = data.pairs.groups[rows].astype(str)
        self.n_train = min(len(train), N_TRAIN)
        self.groups, self.test_groups = groups[: self.n_train], groups[self.n_train :]
        name = [name for name in data.layers if name != "all"][-1]
        pairs = data.pairs.take(rows).columns(data.layers[name])
        self.width = pairs.chosen.shape[1]
        both = np.stack([pairs.chosen, pairs.rejected], axis=1)
        self.inputs = {f"MiniLM, {name}": both.reshape(-1, self.width)}


def followed(data: Features, method: str, name: str) -> dict[str, Any]:
    """Margins after each measurement of the solvers."""
    seen, unseen = np.arange(data.n_train), data.n_train + np.arange(len(data.test_groups))
    x = data.inputs[name]
    blocks = {"blocks": [data.width] * (x.shape[1] // data.width)} if name == ALL else {}
    curve: list[list[float]] = []
    spent = began = 0.0

    def score(head: Any, X: Any = None, y: Any = None, **_: Any) -> dict[str, float]:
        nonlocal spent
        now = time.process_time()
        margins = [
            round(float(data.margins(head, name, rows).mean()), 5) for rows in (seen, unseen)
        ]
        curve.append([round(now - began - spent, 5), *margins])
        spent += time.process_time() - now
        return {"margin": margins[0]}

    head = HEADS[method](random_state=0, **blocks)
    head.set_callbacks(ScoringMonitor(scoring=score))
    began = time.process_time()
    head.fit_pairs(x[2 * seen], x[2 * seen + 1], groups=data.groups[seen])
    score(head)
    margins = data.margins(head, name, unseen)
    # The last point is of the finished head; those before it are of phase II.
    of_phase2 = len(head.phase2_history_["time"])
    return {"accuracy": float((margins > 0).mean()), "of_phase2": of_phase2, "curve": curve}


if __name__ == "__main__":
    main()
