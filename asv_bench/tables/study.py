"""Test accuracy and fit time on tables: ``python asv_bench/tables/study.py --help``."""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# A process imports NumPy only where it is timed, so neither this file nor ``methods`` does it here.
from methods import DEFAULT, METHODS, estimator, fit_options

from asv_bench.raw_results import Record, append, read

KEY = ("table", "method", "split")
# A first fit that takes longer, in seconds, is not repeated: little of it is compilation.
REPEAT_UP_TO = 15.0
# Seconds a process may take to import what it needs and to read the table.
START = 300.0
NOT_FITTED = {"first_s": None, "fit_s": None}


def main() -> None:
    arguments = _arguments()
    # Methods run in processes started from here, which import their libraries themselves.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    os.environ["NPROC"] = "1"  # XLA has no flag that limits its threads, but asks for this
    os.environ["JAX_PLATFORMS"] = "cpu"
    from data import splits, tables

    try:
        paths = tables(arguments.data, arguments.more)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    if unknown := set(arguments.tables or []) - set(paths):
        sys.exit(f"error: --tables has {sorted(unknown)}; choose from {', '.join(paths)}.")
    records = {key(record): record for record in read(arguments.out, key)}
    for table in arguments.tables or paths:
        for method in arguments.methods:
            earlier = [r for (t, m, _), r in records.items() if (t, m) == (table, method)]
            todo = pending(splits(paths[table], arguments.splits), earlier, arguments.limit_s)
            if not todo:
                continue
            print(f"{table}: {method}", file=sys.stderr, flush=True)
            run = measure_here if arguments.together else measure
            for found in run(paths[table], method, todo, arguments.limit_s):
                record = {"table": table, "method": method, **found}
                records[key(record)] = record
                append(arguments.out, record)


def key(record: Record) -> tuple:
    return tuple(record[name] for name in KEY)


def pending(splits: Iterable[int], earlier: Iterable[Record], limit: float) -> list[int]:
    """Splits still to be run; none, where one was cut at this limit: the others would be too."""
    if any(r["status"] == "cut" and r["limit_s"] >= limit for r in earlier):
        return []
    done = {r["split"] for r in earlier if r["status"] == "done"}
    return [split for split in splits if split not in done]


def measure(path: Path, method: str, splits: list[int], limit: float) -> Iterator[Record]:
    """Run a method on splits of a table in one fresh process, and yield a record for each.

    The first fit has the process to itself. After a fit beyond the limit, or a failure, the splits
    that are left are not run.
    """
    context = mp.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(path, method, splits, sender), daemon=True)
    process.start()
    sender.close()
    patience = START
    try:
        for split in splits:
            record: Record = {"split": split, "limit_s": limit, "status": "", **NOT_FITTED}
            while not record["status"]:
                if receiver.poll(patience):
                    record.update(receiver.recv())
                    patience = limit
                elif "accuracy" in record:  # only the repetition was too long
                    record["status"] = "done"
                elif "n" in record:
                    record["status"] = "cut"
                else:
                    record["status"] = f"failed: did not start within {START:g} s"
            yield record
            if record["status"] != "done":
                return
    except EOFError:  # the process died: out of memory, most likely
        process.join()
        yield {**record, "status": f"failed: the process ended with exit code {process.exitcode}"}
    finally:
        process.terminate()
        process.join()
        receiver.close()


def measure_here(path: Path, method: str, splits: list[int], limit: float) -> Iterator[Record]:
    """Run a method on splits in this process, each fit once and without a limit."""
    for split in splits:
        messages = _Messages()
        _child(path, method, [split], messages, repeat=False)
        yield {"split": split, "limit_s": limit, "together": True, **NOT_FITTED, **messages.record}


class _Messages:
    """The end of a pipe that keeps what is sent."""

    def __init__(self) -> None:
        self.record: Record = {}

    def send(self, found: Record) -> None:
        self.record.update(found)


def _child(
    path: Path, method: str, splits: list[int], pipe: Connection | _Messages, repeat: bool = True
) -> None:
    """Send what is known of each split as soon as it is; each message restarts the clock."""
    try:
        began = time.perf_counter()
        estimator(method, 0)
        import_s = time.perf_counter() - began
        import numpy as np
        from data import load

        for split in splits:
            data = load(path, split)
            (n, d), k = data.X.shape, len(np.unique(data.y))
            sizes = {"n": n, "n_test": len(data.X_test), "d": d, "k": k}
            pipe.send({**sizes, "import_s": import_s, "before_mb": _peak_mb()})
            seconds, result = _fit(method, split, data, pipe)
            if split == splits[0] and repeat:
                pipe.send({"first_s": seconds, **result})
                if seconds > REPEAT_UP_TO:
                    pipe.send({"status": "done"})
                    continue
                seconds, result = _fit(method, split, data, pipe)
            pipe.send({"fit_s": seconds, **result, "status": "done"})
    except Exception as error:  # whatever a method raises belongs into its record
        pipe.send({"status": f"failed: {type(error).__name__}: {str(error)[:200]}"})


def _fit(method: str, split: int, data: Any, pipe: Connection | _Messages) -> tuple[float, Record]:
    """Seconds of a fit, and what the fitted method does with the test rows."""
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning

    model, options = estimator(method, len(data.X)), fit_options(method, data)
    # What an estimator without a random_state draws from: every fit of a split is the same.
    np.random.seed(split)  # noqa: NPY002
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        began, cpu_began = time.perf_counter(), time.process_time()
        model.fit(data.X, data.y, **options)
        fit_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    pipe.send({})
    began = time.perf_counter()
    predicted = np.ravel(model.predict(data.X_test))  # CatBoost gives a column of several classes
    return fit_s, {
        "cpu_s": cpu_s,
        "predict_s": time.perf_counter() - began,
        "accuracy": float(np.mean(predicted == data.y_test)),
        "log_loss": _log_loss(model, data),
        "converged": not any(issubclass(w.category, ConvergenceWarning) for w in caught),
        "peak_mb": _peak_mb(),
    }


def _log_loss(model: Any, data: Any) -> float | None:
    """Mean log-loss of the test rows; none where a method gives no probabilities."""
    from sklearn.metrics import log_loss

    if not hasattr(model, "predict_proba"):
        return None
    chances = model.predict_proba(data.X_test).astype(float)
    chances /= chances.sum(axis=1, keepdims=True)  # in float32 they sum to about one
    return float(log_loss(data.y_test, chances, labels=model.classes_))


def _peak_mb() -> float:
    """Largest resident memory of this process so far, in MB (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument(
        "--more",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="further tables, here or in --data, such as those of build.py",
    )
    parser.add_argument("--out", type=Path, default=Path("tables.jsonl"), help="resumed if there")
    parser.add_argument("--tables", type=words, help="names, separated by commas; all by default")
    parser.add_argument("--methods", type=words, default=list(DEFAULT), help=",".join(METHODS))
    parser.add_argument("--splits", type=int, default=1, help="of each table below 3000 rows")
    parser.add_argument("--limit-s", type=float, default=1800.0, help="seconds a fit may take")
    parser.add_argument(
        "--together",
        action="store_true",
        help="one fit each, all in this process: no limit, no first fits, no memory",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.methods) - set(METHODS):
        parser.error(f"--methods has {sorted(unknown)}; choose from {', '.join(METHODS)}.")
    if arguments.splits < 1 or arguments.limit_s <= 0:
        parser.error("--splits has to be at least 1, --limit-s above 0.")
    return arguments


if __name__ == "__main__":
    main()
