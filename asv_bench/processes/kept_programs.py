"""The first solve of a process: with nothing compiled, and with programs that another one kept.

``python asv_bench/processes/kept_programs.py`` solves digits (600 rows, two classes) in the ReLU
formulation by CRONOS with two losses, five times each in processes of one thread, and appends the
medians of processor seconds to ``kept_programs.jsonl`` beside it: without a store, with an empty
one, and with what the run before left there. Imports are not counted.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from asv_bench import raw_results

RESULTS = Path(__file__).with_suffix(".jsonl")
FIT = """
import json, time
import jax
from sklearn.datasets import load_digits
from cvxnn import ConvexReLUClassifier
from cvxnn.convex import Cronos
X, y = load_digits(return_X_y=True)
X, y = X[:600], y[:600] > 4
seconds = []
for _ in range(2):
    began = time.process_time()
    ConvexReLUClassifier(
        1e-2, formulation="relu", solver={solver}, loss={loss!r}, random_state=0
    ).fit(X, y)
    seconds.append(time.process_time() - began)
print(json.dumps(seconds))
"""
REPEATS = 5


def measure(code: str, store: str) -> list[float]:
    """Return processor seconds of the first and the second fit of a fresh process."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **one, "CVXNN_PROGRAMS": store},
    )
    found: list[float] = json.loads(done.stdout)
    return found


def main() -> None:
    for solver, loss in (("Cronos()", "squared"), ("Cronos()", "logistic")):
        code = FIT.format(solver=solver, loss=loss)
        runs = []
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory() as store:
                runs.append([measure(code, "off"), measure(code, store), measure(code, store)])
                size = sum(file.stat().st_size for file in Path(store).rglob("*program-*"))
        names = ("off", "empty_store", "kept")
        record = {"solver": solver, "loss": loss, "repeats": REPEATS, "store_kb": round(size / 1e3)}
        for i, name in enumerate(names):
            first, second = (statistics.median(run[i][j] for run in runs) for j in (0, 1))
            record[f"{name}_first"], record[f"{name}_second"] = round(first, 2), round(second, 2)
        raw_results.append(RESULTS, record)
        print(record)


if __name__ == "__main__":
    main()
