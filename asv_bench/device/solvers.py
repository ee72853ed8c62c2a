"""Compiled solvers: the same objective on both devices, and CRONOS beside plain products."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planted
import record

from cvxnn.convex import AcceleratedGradient, Cronos, ProximalGradient, solve
from cvxnn.convex.compiled_calls import Compiled


def compare(found: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Numbers of a call on the CPU and on the first device, and their relative differences."""
    out: dict[str, Any] = {}
    values: dict[str, dict[str, float]] = {}
    for name, device in (("cpu", jax.devices("cpu")[0]), ("device", jax.devices()[0])):
        with jax.default_device(device):
            began = time.perf_counter()
            values[name] = found()
            out[f"seconds_{name}"] = time.perf_counter() - began
        out[name] = values[name]
    for key, value in values["cpu"].items():
        if "objective" in key:
            out[f"difference_{key}"] = abs(values["device"][key] - value) / abs(value)
    return out


def convex(solver: Any, formulation: planted.Formulation, small: bool) -> dict[str, Any]:
    n, d = (400, 16) if small else (8192, 256)
    problem = planted.program(n, d, formulation)

    def found() -> dict[str, Any]:
        result = solve(problem, solver)
        return {
            "objective": result.objective,
            "gap": result.gap,
            "n_iter": result.n_iter,
            "status": result.status.value,
            "seconds_to_first_check": result.history["time"][0],
            "seconds_after_it": result.history["time"][-1] - result.history["time"][0],
        }

    return {"shape": [n, d, planted.N_PATTERNS], **compare(found)}


def smooth(small: bool) -> dict[str, Any]:
    from cvxnn.preference import CoalaObjective

    n, width = (400, 16) if small else (65_536, 128)
    rng = np.random.default_rng(0)
    margins = rng.standard_normal((n, width), np.float32) + rng.standard_normal(width, np.float32)
    weights = np.full(n, 1 / n, np.float32)

    def found() -> dict[str, Any]:
        objective = CoalaObjective(jnp.asarray(margins), jnp.asarray(weights), 1.0, 0.5, 1e-2)
        result = solve(objective, AcceleratedGradient(), start=np.zeros(width, np.float32))
        keys = ("objective", "gap", "n_iter")
        return {**{key: getattr(result, key) for key in keys}, "status": result.status.value}

    return {"shape": [n, width], **compare(found)}


def head(small: bool) -> dict[str, Any]:
    from cvxnn import COALAPreferenceHead

    n, d = (150, 12) if small else (8192, 256)
    data = planted.pairs(n, d)

    def found() -> dict[str, float]:
        fitted = COALAPreferenceHead(n_patterns=16 if small else 64, random_state=0)
        fitted.fit_pairs(*data)
        return {
            "objective_phase1": fitted.objective_,
            "objective_phase2": fitted.phase2_objective_,
            "gap_phase1": fitted.gap_,
            "gap_phase2": fitted.phase2_gap_,
            "n_iter_phase1": fitted.n_iter_,
            "accuracy": float((fitted.reward_margin(*data) > 0).mean()),
        }

    return {"shape": [2 * n, d], **compare(found)}


def rate(n: int, d: int, small: bool) -> dict[str, Any]:
    """Seconds of a CRONOS iteration beside the products with the data that it consists of."""
    if small:
        n, d = n // 256, d // 16
    problem = planted.program(n, d)
    result = solve(problem, Cronos(tol=-1.0, max_iter=60, linear_solver="mean_field"))
    history = result.history
    # The first ten iterations hold the compilation.
    steps = history["iteration"][-1] - history["iteration"][0]
    seconds = (history["time"][-1] - history["time"][0]) / steps
    cg = (history["cg_iterations"][-1] - history["cg_iterations"][0]) / steps
    X = jnp.asarray(problem.operator.X)
    out: dict[str, Any] = {
        "shape": [n, d, planted.N_PATTERNS],
        "iterations_per_second": 1 / seconds,
        "ms_iteration": 1e3 * seconds,
        "cg_per_iteration": cg,
    }
    ms = {}
    for columns in (planted.N_PATTERNS, 2 * planted.N_PATTERNS):
        U, R = jnp.ones((d, columns), X.dtype), jnp.ones((n, columns), X.dtype)
        for precision in ("highest", "default"):
            with jax.default_matmul_precision(precision):
                forward, back = Compiled(jnp.matmul), Compiled(lambda X, R: X.T @ R)
                ms[f"X @ U, {columns}, {precision}"] = record.typical_seconds(
                    partial(forward, X, U)
                )
                ms[f"X.T @ R, {columns}, {precision}"] = record.typical_seconds(partial(back, X, R))
    pair = {c: ms[f"X @ U, {c}, highest"] + ms[f"X.T @ R, {c}, highest"] for c in (64, 128)}
    flops, bytes_ = 4.0 * n * d * 128, 8.0 * n * d
    # An iteration has one pair of products with all weights, and one with the differences v - w
    # for each iteration of CG and its first residual; a certificate, every tenth iteration, has
    # about four pairs more.
    expected = pair[128] + (cg + 1) * pair[64] + 0.4 * pair[128]
    return {
        **out,
        "ms_products": {name: 1e3 * value for name, value in ms.items()},
        "ms_expected_of_products": 1e3 * expected,
        "iteration_over_products": seconds / expected,
        "product_tflops": flops / pair[128] / 1e12,
        "product_gb_per_second": bytes_ / pair[128] / 1e9,
    }


MEASUREMENTS: dict[str, record.Measurement] = {
    "Cronos": (partial(convex, Cronos(), "relu"), 30),
    "ProximalGradient": (partial(convex, ProximalGradient(), "gated"), 20),
    "AcceleratedGradient": (smooth, 15),
    "rate 20000 x 256": (partial(rate, 20_000, 256), 20),
    "rate 131072 x 1024": (partial(rate, 131_072, 1024), 30),
    "COALAPreferenceHead": (head, 30),
}

if __name__ == "__main__":
    record.run("solvers", MEASUREMENTS, "jax")
