"""Processor seconds of a fresh process that predicts with a saved estimator.

``python asv_bench/processes/start.py`` fits iris, saves it, and starts each way of predicting three
times in processes of one thread; the least of three is appended to ``start.jsonl`` beside it. The
ways to import less for ``cvxnn.load`` change what other code of the process sees, and so only show
what there is to gain.
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
# Modules that scikit-learn imports and an estimator's prediction does not use.
LAZY = """
import importlib.util, sys
LAZY = (
    "pandas", "pyarrow", "rich", "numpy.f2py", "numpy.testing", "scipy.stats", "scipy.optimize",
    "scipy.interpolate", "scipy.integrate", "scipy.ndimage", "scipy.spatial", "scipy.fft",
)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name not in LAZY:
            return None
        sys.meta_path.remove(self)
        try:
            found = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if found is not None and found.loader is not None:
            found.loader = importlib.util.LazyLoader(found.loader)
        return found
sys.meta_path.insert(0, Finder())
"""
WAYS = {
    "import numpy": "import numpy",
    "import sklearn.base": "import sklearn.base",
    "import sklearn.base, with pandas kept out": (
        "import sys; sys.modules['pandas'] = None; import sklearn.base"
    ),
    "cvxnn.load": PREDICT,
    "cvxnn.load, with pandas kept out": "import sys; sys.modules['pandas'] = None; " + PREDICT,
    "cvxnn.load, with modules that load when used": LAZY + PREDICT,
    "cvxnn.load, without garbage collection": "import gc; gc.disable(); " + PREDICT,
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
            load = name.removeprefix("cvxnn.").split(",")[0]
            code = code.replace("{load}", load).replace("{path!r}", repr(path))
            runs = [measure(code) for _ in range(3)]
            cpu, wall = (round(min(column), 2) for column in zip(*runs, strict=True))
            record = {"way": name, "cpu_seconds": cpu, "wall_seconds": wall}
            raw_results.append(RESULTS, record)
            print(record)


if __name__ == "__main__":
    main()
