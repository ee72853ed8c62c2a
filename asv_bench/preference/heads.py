"""Preference heads and their rivals on the same embeddings: which ranks pairs best?

``python asv_bench/preference/heads.py FILE.npz ... --out heads.jsonl`` with files of
``embeddings.py --layers``. A line of the ``--out`` file holds one method on one set; what is there
is not run again. ``heads_summary.py`` makes tables and tests of it.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asv_bench.raw_results import Record, append, read

if TYPE_CHECKING:
    from head_rivals import Method, Pairs

KEY = ("set", "method")
INPUT = "input"  # the name of the record that says which layer the rivals see
Parts = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


class Data(NamedTuple):
    """Pairs with all layers side by side, the columns of each layer, and rows to fit and test."""

    pairs: Pairs
    layers: dict[str, slice]
    parts: Parts

    @property
    def tested(self) -> NDArray[np.intp]:
        return np.concatenate([test for _, test in self.parts])


def main() -> None:
    arguments = _arguments()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    from head_rivals import ALL_LAYERS, METHODS, VARIANTS, input_of

    methods = arguments.methods or list(METHODS)
    known = METHODS | VARIANTS
    if unknown := set(methods) - set(known):
        sys.exit(f"error: no methods {sorted(unknown)}; choose from {', '.join(known)}.")
    for path in arguments.files:
        done = {key(record): record for record in read(arguments.out, key)}
        todo = [name for name in methods if (path.stem, name) not in done]
        if not todo:
            continue
        data = load(path, arguments.folds)
        common = {"set": path.stem, "n": len(data.parts[0][0]), "n_test": len(data.tested)}
        if (path.stem, INPUT) in done:
            seen = done[path.stem, INPUT]["chosen"]
        else:
            scores = input_of(data.pairs.take(data.parts[0][0]), data.layers)
            seen = max(scores, key=lambda name: scores[name])
            found = {"chosen": seen, "scores": scores, "d": data.pairs.chosen.shape[1]}
            clusters = encoded(data.pairs.groups[data.tested].astype("<u2"))
            append(arguments.out, {**common, "method": INPUT, **found, "clusters": clusters})
        for name in todo:
            print(f"{path.stem}: {name}", file=sys.stderr, flush=True)
            columns = slice(None) if name in ALL_LAYERS else data.layers[seen]
            found = measure(known[name], data.pairs.columns(columns), data.parts)
            append(arguments.out, {**common, "method": name, **found})


def measure(method: Method, pairs: Pairs, parts: Parts) -> Record:
    """Fit a method for each part; the margins are those of all test pairs, in units of logits."""
    margins, settings, fit_s = [], [], []
    cpu = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for train, test in parts:
            found = method(pairs.take(train), pairs.take(test))
            margins.append(found.scale * found.margins)
            settings.append(found.setting)
            fit_s.append(found.fit_s)
    cpu = time.process_time() - cpu
    every = np.concatenate(margins)
    return {
        "accuracy": float(np.mean((every > 0) + (every == 0) / 2)),
        "log_loss": float(np.logaddexp(0, -every).mean()),
        "settings": settings,
        "fit_s": round(float(np.mean(fit_s)), 2),
        "cpu_s": round(cpu / len(parts), 2),
        "warnings": sorted({w.category.__name__ for w in caught}),
        "margins": encoded(every.astype("<f2")),
    }


def key(record: Record) -> tuple[Any, ...]:
    return tuple(record[name] for name in KEY)


def encoded(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def load(path: Path, n_folds: int = 0) -> Data:
    """Pairs of a file, with its own split, or in folds of whole groups of all its rows."""
    from head_rivals import Pairs

    with np.load(path) as file:
        arrays = dict(file)
    shape = arrays["responses"].shape
    responses, prompts = (
        arrays[name].astype(np.float32).reshape(len(arrays[name]), -1)
        for name in ("responses", "prompts")
    )
    pools = ("mean", "last") if len(shape) == 4 else ("mean",)
    names = [f"layer {layer}, {pool}" for layer in arrays["layers"] for pool in pools]
    d = shape[-1]
    layers = {name: slice(k * d, (k + 1) * d) for k, name in enumerate(names)}
    columns = [rows_of_part(arrays, part) for part in ("train", "test")]
    chosen, rejected, prompt, groups = map(np.concatenate, zip(*columns, strict=True))
    group = np.unique(groups, return_inverse=True)[1]
    pairs = Pairs(responses[chosen], responses[rejected], prompts[prompt], group, d)
    parts = parts_of(group, len(columns[0][0]), n_folds)
    return Data(pairs, {**layers, "all": slice(None)}, parts)


def parts_of(group: NDArray[np.intp], n: int, n_folds: int = 0) -> Parts:
    """Rows to fit and to test: the first ``n`` and the others, or folds of whole groups."""
    if n_folds:
        from sklearn.model_selection import GroupKFold

        return list(GroupKFold(n_folds).split(group, groups=group))
    return [(np.arange(n), np.arange(n, len(group)))]


def rows_of_part(arrays: dict[str, NDArray[Any]], part: str) -> list[NDArray[Any]]:
    """Chosen, rejected, prompt and group of each pair; labelled responses are paired at random."""
    if f"{part}_label" not in arrays:
        return [arrays[f"{part}_{name}"] for name in ("chosen", "rejected", "prompt", "group")]
    rng = np.random.RandomState(0)
    labels, rows = arrays[f"{part}_label"], arrays[f"{part}_response"]
    positive, negative = (rng.permutation(rows[labels == label]) for label in (1, 0))
    n = min(len(positive), len(negative))
    groups = np.array([f"{part} {k}" for k in range(n)])
    return [positive[:n], negative[:n], np.zeros(n, int), groups]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("heads.jsonl"))
    parser.add_argument(
        "--methods", type=lambda text: text.split(","), help="by default all but variants"
    )
    parser.add_argument(
        "--folds", type=int, default=0, help="test all rows in so many folds of whole groups"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
