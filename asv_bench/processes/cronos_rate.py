"""Seconds of a CRONOS iteration on many rows of 4,096 features, and what a whole solve would take.

``python asv_bench/processes/cronos_rate.py --rows 16384`` takes 20 iterations on planted responses
in float32 with 64 patterns, by conjugate gradient, as ``Cronos`` chooses for 131,072 rows
(``--iterations`` takes fewer; half of them come before the first certificate). It appends to
``cronos_rate.jsonl`` beside it: processor seconds of an iteration with its part of certificates and
factors, and operations by ``Cronos.flops``. ``--expect`` computes nothing: it appends the
operations of the 140 iterations that such a program of 131,072 rows took to a gap of 1e-2 on a GPU
(``asv_bench/device/h200.jsonl``), and what they would take at the last rate here.

``--gap 1e-2`` solves to that gap instead, with rows that another process has written to the folder
``--cache``, and at most ``--limit`` seconds; ``--rho``, ``--cg-tol`` and ``--check-every`` are
those of ``Cronos``, and ``--width`` the number of features.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
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
    parser.add_argument("--gap", type=float)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--rho", type=float)
    parser.add_argument("--cg-tol", type=float)
    parser.add_argument("--check-every", type=int)
    parser.add_argument("--limit", type=float, default=400.0)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.expect:
        expect()
        return
    if options.gap is not None:
        path = options.cache / f"planted-{options.rows}-{options.width}.npy"
        if options.make:
            np.save(path, np.concatenate(planted.pairs(options.rows // 2, options.width)))
            return
        if not path.exists():
            options.cache.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, *sys.argv, "--make"], check=True)
        to_gap(path, options)
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


def to_gap(path: Path, options: argparse.Namespace) -> None:
    """Append what a solve to a gap takes."""
    X = np.load(path)
    n = len(X)
    program = planted.program_of(X, np.repeat(np.array([1, -1], np.float32), n // 2))
    names = ("rho", "cg_tol", "check_every")
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    solver = Cronos(tol=options.gap, linear_solver="mean_field", **chosen)
    own = time.process_time()
    result = solve(program, solver, time_limit=options.limit)
    cpu = time.process_time() - own
    flops = solver.flops(program, result) or 0.0
    row = {
        "shape": [*X.shape, planted.N_PATTERNS],
        "tol": options.gap,
        **chosen,
        "status": result.status.value,
        "n_iter": result.n_iter,
        "wall_seconds": round(float(result.history["time"][-1]), 1),
        "cpu_seconds": round(cpu, 1),
        "gap": result.gap,
        "objective": result.objective,
        "dual_bound": result.dual_bound,
        "gap_at_checks": [round(float(gap), 4) for gap in result.history["stopping"]],
        "cg_iterations": float(result.history["cg_iterations"][-1]),
        "tflop": round(flops / 1e12, 2),
        "gflops_per_cpu_second": round(flops / cpu / 1e9, 1),
        "gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_before": round(os.getloadavg()[0], 1),
    }
    raw_results.append(RESULTS, row)
    print(json.dumps(row), flush=True)


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
    lines = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]
    rate = [row["gflops_per_cpu_second"] for row in lines if "gflop_iteration" in row][-1]
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
