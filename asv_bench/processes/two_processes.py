"""One process on one core, and two processes on a core each: seconds of the same solve.

``python asv_bench/processes/two_processes.py`` solves a program of 16,384 rows of 1,024 features
with 64 patterns by a fixed number of iterations, in float32: by one process that has one core, and
by two that divide the rows, over gloo. Each solves twice; the second time, when nothing is
compiled, counts. It appends to ``two_processes.jsonl`` beside it. Nothing else should run.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from asv_bench import raw_results

RESULTS = Path(__file__).with_suffix(".jsonl")
ROWS, FEATURES, PATTERNS = 16_384, 1024, 64
SOLVERS = ("ProximalGradient", "Ridge", "Cronos")
ITERATIONS = 20


def solve_part(rank: int, n_processes: int, port: str) -> dict[str, Any]:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    import jax

    if n_processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", n_processes, rank)
    from cvxnn import convex

    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, FEATURES), np.float32) / np.float32(FEATURES**0.5)
    gates = rng.standard_normal((FEATURES, PATTERNS), np.float32)
    y = np.abs(X @ gates[:, :1]) + rng.standard_normal((ROWS, 1), np.float32)
    own = slice(rank * ROWS // n_processes, (rank + 1) * ROWS // n_processes)
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    found = {}
    for name in SOLVERS:
        options: dict[str, Any] = {} if name == "Cronos" else {"formulation": "gated"}
        if name == "Ridge":
            options["penalty"] = convex.SquaredL2()
        operator = convex.GatedOperator(X[own], X[own] @ gates >= 0)
        program = convex.ConvexProgram(operator, y[own], 1e-3, **options)
        settings: dict[str, Any] = {"max_dense": 1} if name == "Ridge" else {}
        solver = getattr(convex, name)(tol=0.0, max_iter=ITERATIONS, **settings)
        for _ in range(2):
            result = convex.solve(program, solver, mesh=mesh)
        found[name] = {
            "seconds": float(result.history["time"][-1]),
            "n_iter": int(result.n_iter),
            "objective": float(result.objective),
        }
    return found


def run(n_processes: int) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, str(rank), str(n_processes), port],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(n_processes)
    ]
    found = [process.communicate()[0].splitlines()[-1] for process in processes]
    first: dict[str, Any] = json.loads(found[0])
    return first


def main() -> None:
    one, two = run(1), run(2)
    for name in SOLVERS:
        seconds = [part[name]["seconds"] for part in (one, two)]
        record = {
            "solver": name,
            "shape": [ROWS, FEATURES, PATTERNS],
            "n_iter": [part[name]["n_iter"] for part in (one, two)],
            "seconds_one_core": round(seconds[0], 3),
            "seconds_two_processes": round(seconds[1], 3),
            "efficiency": round(seconds[0] / (2 * seconds[1]), 3),
            "objective_difference": abs(two[name]["objective"] / one[name]["objective"] - 1),
            "load_before": round(os.getloadavg()[0], 1),
        }
        raw_results.append(RESULTS, record)
        print(record, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(solve_part(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
    else:
        main()
