"""Processor seconds of a fresh process that predicts with a saved estimator.

``python asv_bench/processes/start.py`` fits iris, saves it, and starts each way of predicting three
times in processes of one thread; the least of three is appended to ``start.jsonl`` beside it.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from sklearn.datasets import load_iris

import cvxnn
from asv_bench import raw_results

RESULTS = Path(__file__).with_suffix(".jsonl")
PREDICT = "import cvxnn; cvxnn.{load}({path!r}).predict_proba([[5.0, 3.0, 1.0, 0.2]])"
WAYS = {
    "import numpy": "import numpy",
    "import sklearn.base": "import sklearn.base",
    "import sklearn.base, with pandas kept out": (
        "import sys; sys.modules['pandas'] = None; import sklearn.base"
    ),
    "cvxnn.load": PREDICT,
    "cvxnn.load_network": PREDICT,
}
MEASURE = (
    "import resource, time; began = time.perf_counter()\n{code}\n"
    "used = resource.getrusage(resource.RUSAGE_SELF)\n"
    "print(used.ru_utime + used.ru_stime, time.perf_counter() - began)"
)


def measure(code: str) -> tuple[float, float]:
    """Return processor and wall seconds of a fresh process, its start included in the former."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(code=code)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **one},
    )
    cpu, wall = map(float, done.stdout.split())
    return cpu, wall


def main() -> None:
    X, y = load_iris(return_X_y=True)
    model = cvxnn.ConvexReLUClassifier(random_state=0).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "iris.safetensors")
        cvxnn.save(model, path)
        for name, code in WAYS.items():
            code = code.format(load=name.removeprefix("cvxnn."), path=path)
            runs = [measure(code) for _ in range(3)]
            cpu, wall = (round(min(column), 2) for column in zip(*runs, strict=True))
            record = {"way": name, "cpu_seconds": cpu, "wall_seconds": wall}
            raw_results.append(RESULTS, record)
            print(record)


if __name__ == "__main__":
    main()
