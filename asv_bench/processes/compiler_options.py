"""What the first solve of CRONOS spends before it computes, and options of XLA that might save it.

``python asv_bench/processes/compiler_options.py`` solves digits (600 rows, two classes) in the ReLU
formulation twice, each set of options in a process of one thread that keeps nothing, and appends
processor seconds of both fits to ``compiler_options.jsonl`` beside it, and how the time of the
clock that compilation took is divided among its phases. Imports are not counted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from asv_bench import raw_results

RESULTS = Path(__file__).with_suffix(".jsonl")
OPTIONS = (
    {},
    {"xla_backend_optimization_level": 1},
    {"xla_backend_optimization_level": 0},
    {"xla_llvm_disable_expensive_passes": True},
)
FIT = """
import collections, json, time
import jax
from sklearn.datasets import load_digits
import cvxnn.convex.compiled_calls as compiled_calls
compiled_calls._OPTIONS.update({options!r})
from cvxnn import ConvexReLUClassifier
from cvxnn.convex import Cronos
phases = collections.Counter()
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: phases.update({{name.split("/")[-1]: seconds}})
)
X, y = load_digits(return_X_y=True)
X, y = X[:600], y[:600] > 4
seconds = []
for _ in range(2):
    began = time.process_time()
    ConvexReLUClassifier(1e-2, formulation="relu", solver=Cronos(), random_state=0).fit(X, y)
    seconds.append(time.process_time() - began)
print(json.dumps([seconds, phases]))
"""


def main() -> None:
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    for options in OPTIONS:
        done = subprocess.run(
            [sys.executable, "-c", FIT.format(options=options)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **one, "CVXNN_PROGRAMS": "off"},
        )
        (first, second), phases = json.loads(done.stdout)
        names = ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
        taken = {name: phases[f"{name}_duration"] for name in names}
        record = {
            "options": options,
            "first_cpu_s": round(first, 2),
            "second_cpu_s": round(second, 2),
            "parts": {name: round(taken[name] / sum(taken.values()), 2) for name in names},
        }
        raw_results.append(RESULTS, record)
        print(record)


if __name__ == "__main__":
    main()
