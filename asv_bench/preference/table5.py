"""Table 5 of the COALA paper: CRONOS against AdamW on the same two-layer network.

``python asv_bench/preference/table5.py --help``
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from adamw import LOSSES, RATES, train
from numpy.typing import NDArray

from asv_bench.raw_results import Record, append, read

KEY = ("set", "method", "rate", "seed", "neurons", "epochs")
ADAMW = tuple(f"adamw_{loss}" for loss in LOSSES)
# "default" is what a user gets who sets nothing. The others are phase I of the preference head:
# from random patterns, of which each may become two neurons, and from those of a local search.
OURS = ("cronos", "cronos_local", "default")
METHODS = (*OURS, *ADAMW)
VALIDATION = 0.1


class Embeddings(NamedTuple):
    """Rows of an embedding set; ``pairs`` are numbers of test rows (chosen, rejected)."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    groups: NDArray[Any] | None
    pairs: NDArray[np.intp] | None


def main() -> None:
    arguments = _arguments()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    os.environ["NPROC"] = "1"  # XLA has no flag that limits its threads, but asks for this
    os.environ["JAX_PLATFORMS"] = "cpu"
    names = [path.stem for path in arguments.sets]
    if len(set(names)) < len(names):
        sys.exit(f"error: two files would be one set; rename one of {sorted(names)}.")
    done = {key(record) for record in read(arguments.out, key)}
    for path in arguments.sets:
        for method in arguments.methods:
            epochs = arguments.epochs if method in ADAMW else 0
            rates = RATES if method in ADAMW else (0.0,)
            todo = [
                (rate, seed)
                for seed in range(arguments.seeds)
                for rate in rates
                if (path.stem, method, rate, seed, arguments.neurons, epochs) not in done
            ]
            if not todo:
                continue
            print(f"{path.stem}: {method}", file=sys.stderr, flush=True)
            for found in measure(path, method, todo, arguments.neurons, epochs):
                append(arguments.out, {"set": path.stem, "method": method, **found})


def key(record: Record) -> tuple[Any, ...]:
    return tuple(record[name] for name in KEY)


def measure(
    path: Path, method: str, todo: list[tuple[float, int]], neurons: int, epochs: int
) -> Iterator[Record]:
    """Run a method in one fresh process, and yield a record for each learning rate and seed."""
    context = mp.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_child, args=(path, method, todo, neurons, epochs, sender), daemon=True
    )
    process.start()
    sender.close()
    try:
        for _ in todo:
            found = receiver.recv()
            if isinstance(found, str):
                sys.exit(f"error: {path.stem}, {method}: {found}")
            yield found
    except EOFError:
        process.join()
        sys.exit(f"error: {path.stem}, {method}: the process ended with {process.exitcode}")
    finally:
        process.terminate()
        process.join()
        receiver.close()


def _child(
    path: Path, method: str, todo: list[tuple[float, int]], neurons: int, epochs: int, pipe: Any
) -> None:
    try:
        data = load(path)
        first = {}
        for rate, seed in todo:
            common = {"rate": rate, "seed": seed, "neurons": neurons, "epochs": epochs}
            common |= {"n": len(data.X), "n_test": len(data.X_test), "d": data.X.shape[1]}
            if method in ADAMW:
                import torch

                torch.set_num_threads(1)
                found = _adamw(data, method, rate, seed, neurons, epochs)
            else:
                if not first:
                    _, once = _ours(data, method, seed, neurons)
                    first = {f"first_{name}": once[name] for name in ("cpu_s", "wall_s")}
                scores, found = _ours(data, method, seed, neurons)
                found |= {**quality(data, scores), **first}
            pipe.send({**common, **found})
    except Exception as error:  # whatever a method raises belongs into the message
        pipe.send(f"{type(error).__name__}: {str(error)[:300]}")


def _adamw(
    data: Embeddings, method: str, rate: float, seed: int, neurons: int, epochs: int
) -> Record:
    options: dict[str, Any] = {
        "n_neurons": neurons,
        "loss": method.removeprefix("adamw_"),
        "rate": rate,
        "seed": seed,
    }
    apart = _held_out(data, seed)
    run = train(data.X, data.y, data.X_test, apart, epochs=epochs, **options)
    # The epoch is known now: once more, with the rows that chose it.
    whole = train(data.X, data.y, data.X_test, apart & False, epochs=run.epoch, **options)
    parts = {"": run.scores, "last_": run.last_scores, "whole_": whole.last_scores}
    found = {
        prefix + name: value
        for prefix, scores in parts.items()
        for name, value in quality(data, scores).items()
    }
    return {
        **found,
        "validation": run.validation,
        "epoch": run.epoch,
        "cpu_s": run.cpu_s,
        "wall_s": run.wall_s,
        "whole_cpu_s": whole.cpu_s,
    }


def _ours(
    data: Embeddings, method: str, seed: int, neurons: int
) -> tuple[NDArray[np.floating], Record]:
    from cvxnn import ConvexReLUClassifier
    from cvxnn.convex import Cronos

    options: dict[str, Any] = {"formulation": "relu"}
    options["solver"] = Cronos(tol=1e-2)
    if method == "cronos":
        options |= {"patterns": "gaussian", "n_patterns": neurons // 2}
    elif method == "cronos_local":
        options |= {"n_patterns": neurons}
    else:
        options = {}
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = ConvexReLUClassifier(random_state=seed, **options).fit(data.X, data.y)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return model.decision_function(data.X_test), {
        "cpu_s": cpu,
        "wall_s": wall,
        "fitted_neurons": model.network_.n_neurons,
        "strength": model.strength_,
        "gap": model.gap_,
        "flops": model.flops_,
        "warnings": sorted({w.category.__name__ for w in caught}),
    }


def quality(data: Embeddings, scores: NDArray[np.floating]) -> Record:
    """Share of test rows on the right side of 0; of test pairs with the chosen one above."""
    found = {"accuracy": float(np.mean((scores > 0) == (data.y_test == 1)))}
    if data.pairs is not None:
        won, lost = scores[data.pairs].T
        found["pair_accuracy"] = float(np.mean((won > lost) + (won == lost) / 2))
    return found


def _held_out(data: Embeddings, seed: int) -> NDArray[np.bool_]:
    """A tenth of the training rows, whole groups of them where the file tells them."""
    rng = np.random.default_rng(seed)
    groups = np.arange(len(data.X)) if data.groups is None else data.groups
    names = np.unique(groups)
    apart = rng.permutation(names)[: max(round(VALIDATION * len(names)), 1)]
    return np.isin(groups, apart)


def load(path: Path) -> Embeddings:
    """Rows of a file of ``embeddings.py``, of one of all layers those of the last.

    Raises
    ------
    ValueError
        If an array is missing or labels are not 0 and 1.
    """
    with np.load(path) as read_file:
        file = last_layer(read_file) if "responses" in read_file else dict(read_file)
        if missing := {"X_train", "y_train", "X_test", "y_test"} - set(file):
            raise ValueError(f"{path} lacks {sorted(missing)}; it holds {sorted(file)}.")
        X, X_test = (file[name].astype(np.float32) for name in ("X_train", "X_test"))
        y, y_test = file["y_train"].astype(np.int64), file["y_test"].astype(np.int64)
        if set(np.unique(y)) != {0, 1}:
            raise ValueError(f"{path}: y_train holds {np.unique(y)[:5]}; expected 0 and 1.")
        groups = file.get("group_train")
        if groups is not None and len(groups) != len(X):
            groups = np.tile(groups, 2)  # of the pairs, whose chosen rows all come first
        pairs = None
        if "chosen_test" in file:
            n = len(X_test) // 2
            pairs = np.column_stack([np.arange(n), np.arange(n) + n])
    return Embeddings(X, y, X_test, y_test, groups, pairs)


def last_layer(file: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Labelled responses, or the chosen ones of pairs and then the rejected, with their labels."""
    states = file["responses"][:, -1]
    found: dict[str, NDArray[Any]] = {}
    for part in ("train", "test"):
        if f"{part}_label" in file:
            rows, labels = file[f"{part}_response"], file[f"{part}_label"]
        else:
            rows = np.concatenate([file[f"{part}_chosen"], file[f"{part}_rejected"]])
            labels = np.repeat([1, 0], len(rows) // 2)
            found |= {f"group_{part}": file[f"{part}_group"], f"chosen_{part}": rows}
        found |= {f"X_{part}": states[rows], f"y_{part}": labels}
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", type=Path, nargs="+", help=".npz files of embeddings")
    parser.add_argument("--out", type=Path, default=Path("table5.jsonl"))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=METHODS)
    parser.add_argument("--neurons", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=100, help="of AdamW")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    if unknown := set(arguments.methods) - set(METHODS):
        parser.error(f"--methods has {sorted(unknown)}; choose from {', '.join(METHODS)}")
    return arguments


if __name__ == "__main__":
    main()
