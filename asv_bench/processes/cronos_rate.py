"""Seconds of a CRONOS iteration on many rows of 4,096 features, and what a whole solve would take.

``python asv_bench/processes/cronos_rate.py --rows 16384`` takes 20 iterations on planted responses
in float32 with 64 patterns, by conjugate gradient, as ``Cronos`` chooses for 131,072 rows
(``--iterations`` takes fewer; half of them come before the first certificate). It appends to
``cronos_rate.jsonl`` beside it: processor seconds of an iteration with its part of certificates and
factors, and operations by ``Cronos.flops``. ``--expect`` computes nothing: it appends the
operations of the 140 iterations that such a program of 131,072 rows took to a gap of 1e-2 on a GPU
(``asv_bench/device/h200.jsonl``), and what they would take at the last rate here.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from asv_bench import raw_results
from cvxnn.convex import ConvexProgram, Cronos, GatedOperator, Result, Status, solve

sys.path.append(str(Path(__file__).resolve().parents[1] / "device"))
import planted

RESULTS = Path(__file__).with_suffix(".jsonl")
WIDTH = 4096
# On the GPU: rows, iterations, those of conjugate gradient in each; penalties changed after 10, 20,
# 40 and 80.
ROWS, ITERATIONS, CG, CHANGES = 131_072, 140, 2.0, (10, 20, 40, 80)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--expect", action="store_true")
    options = parser.parse_args()
    if options.expect:
        expect()
        return
    n = options.rows
    X = np.concatenate(planted.pairs(n // 2, WIDTH))
    program = planted.program_of(X, np.repeat(np.array([1, -1], np.float32), n // 2))
    most, half = options.iterations, options.iterations // 2
    solver = Cronos(tol=-1.0, max_iter=most, check_every=half, linear_solver="mean_field")
    cpu = [time.process_time()]
    result = solve(program, solver, callback=lambda *_: cpu.append(time.process_time()))
    steps = result.history["iteration"]
    # The first half holds compilation and factors.
    later = (cpu[-1] - cpu[1]) / (steps[-1] - steps[0])
    flops = (solver.flops(program, result) or 0.0) - (
        solver.flops(program, _first_part(result)) or 0.0
    )
    of_iteration = flops / (steps[-1] - steps[0])
    raw_results.append(
        RESULTS,
        {
            "shape": [n, WIDTH, planted.N_PATTERNS],
            "cpu_seconds_iteration": round(later, 3),
            "wall_seconds_iteration": round(float(np.diff(result.history["time"])[-1]) / half, 3),
            "cpu_seconds_to_first_check": round(cpu[1] - cpu[0], 2),
            "cg_per_iteration": float(np.diff(result.history["cg_iterations"])[-1]) / half,
            "gflop_iteration": round(of_iteration / 1e9, 1),
            "gflops_per_cpu_second": round(of_iteration / later / 1e9, 1),
            "objective": result.objective,
            "gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        },
    )


def expect() -> None:
    """Append what the solve of the GPU would take at the last rate that was measured here."""
    X = np.broadcast_to(np.float32(0), (ROWS, WIDTH))
    operator = GatedOperator(X, np.broadcast_to(True, (ROWS, planted.N_PATTERNS)))
    program = ConvexProgram(operator, np.zeros((ROWS, 1), np.float32), 1.0)
    steps = np.arange(10, ITERATIONS + 1, 10)
    history = {
        "iteration": steps.astype(float),
        "cg_iterations": CG * steps,
        "rho_weights": np.array([sum(step > change for change in CHANGES) for step in steps]),
    }
    result = Result(None, 0.0, 0.0, 0.0, Status.CONVERGED, ITERATIONS, history)
    flops = Cronos(linear_solver="mean_field").flops(program, result) or 0.0
    rate = json.loads(RESULTS.read_text("utf-8").splitlines()[-1])["gflops_per_cpu_second"]
    raw_results.append(
        RESULTS,
        {
            "expected": [ROWS, WIDTH, planted.N_PATTERNS],
            "iterations": ITERATIONS,
            "tflop": round(flops / 1e12, 1),
            "cpu_seconds": round(flops / rate / 1e9),
        },
    )


def _first_part(result: Result) -> Result:
    """Return what the result was at its first certificate."""
    history = {name: column[:1] for name, column in result.history.items()}
    return result._replace(history=history, n_iter=int(history["iteration"][-1]))


if __name__ == "__main__":
    main()
