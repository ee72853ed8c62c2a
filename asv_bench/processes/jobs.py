"""Small fits side by side: cross_val_score on one process, on threads, and on processes of loky.

``python asv_bench/processes/jobs.py`` scores the default classifier on the 150 rows of iris in 10
folds. Workers are warm: each backend runs twice, and the second run counts. It appends to
``jobs.jsonl`` beside it, with the processor seconds of this process and of its workers, the most
threads of BLAS that a worker had within a fit, and whether all scores are equal to the bit.
"""

import resource
import time
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_info

from asv_bench import raw_results
from cvxnn import ConvexReLUClassifier
from cvxnn.numerics.threads import limit_threads

RESULTS = Path(__file__).with_suffix(".jsonl")
SPLITS = list(StratifiedKFold(10).split(*load_iris(return_X_y=True)))


def score(seen: np.ndarray, unseen: np.ndarray) -> tuple[float, float, int]:
    """Return the score of a fold, processor seconds of the thread, and threads within a scope."""
    X, y = load_iris(return_X_y=True)
    began = time.thread_time()
    model = ConvexReLUClassifier(random_state=0).fit(X[seen], y[seen])
    found = float(model.predict_log_proba(X[unseen])[range(len(unseen)), y[unseen]].mean())
    with limit_threads(0.0):
        pools = [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
    return found, time.thread_time() - began, max(pools)


def main() -> None:
    expected = None
    for backend in ("sequential", "threading", "loky"):
        n_jobs = 1 if backend == "sequential" else 2
        with parallel_config(backend, n_jobs=n_jobs):
            for _ in range(2):
                began, own = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
                found = Parallel()(delayed(score)(*split) for split in SPLITS)
                wall, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        scores, seconds, threads = zip(*found, strict=True)
        expected = expected or scores
        record = {
            "backend": backend,
            "n_jobs": n_jobs,
            "wall_seconds": round(wall, 2),
            "cpu_seconds_here": round(now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime, 2),
            "cpu_seconds_of_the_fits": round(sum(seconds), 2),
            "threads_within_a_scope": max(threads),
            "scores_equal": scores == expected,
        }
        raw_results.append(RESULTS, record)
        print(record)


if __name__ == "__main__":
    main()
