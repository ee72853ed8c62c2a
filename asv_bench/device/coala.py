"""The COALA head on embeddings of the size of Llama-3.1-8B's: CRONOS alone, and the estimator."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planted
import record

from cvxnn.convex import (
    AcceleratedGradient,
    ConvexProgram,
    Cronos,
    PairedOperator,
    Result,
    Ridge,
    SquaredL2,
    solve,
)

TOL = 1e-2
TIME_LIMIT = 60.0  # of the first phase; its alarm below covers making the data too


@cache
def pairs(small: bool) -> planted.Pairs:
    return planted.pairs(*((200, 24) if small else (65_536, 4096)))


@cache
def embeddings(small: bool) -> np.ndarray:
    return np.concatenate(pairs(small))


@cache
def program(small: bool) -> ConvexProgram:
    X = embeddings(small)
    return planted.program_of(X, np.repeat(np.array([1, -1], np.float32), len(X) // 2))


@cache
def first_solve(small: bool) -> Result:
    return solve(program(small), Cronos(tol=TOL), time_limit=TIME_LIMIT)


def phase1(small: bool) -> dict[str, Any]:
    """To a network within the tolerance; then the same once more, when nothing is compiled."""
    row = seen(first_solve(small), small)
    if row["seconds"] < 15:
        again = seen(solve(program(small), Cronos(tol=TOL)), small)
        row["again"] = {key: again[key] for key in again if key != "history"}
    return row


def phase1_program(small: bool) -> dict[str, Any]:
    """To a point that solves the convex program itself, cones included, within the tolerance."""
    solver = Cronos(tol=TOL, certify="program")
    return seen(solve(program(small), solver, time_limit=TIME_LIMIT / 2), small)


def seen(result: Result, small: bool) -> dict[str, Any]:
    history = result.history
    clock, iterations = history["time"], history["iteration"]
    later = clock[-1] - clock[0]
    below = np.flatnonzero(history["stopping"] <= TOL)
    names = ("time", "iteration", "objective", "dual_bound", "stopping", "cg_iterations")
    return {
        "shape": [*embeddings(small).shape, planted.N_PATTERNS],
        "alpha": program(small).alpha,
        "status": result.status.value,
        "gap": result.gap,
        "objective": result.objective,
        "seconds": clock[-1],
        "seconds_to_tol": clock[below[0]] if len(below) else None,
        "seconds_to_first_check": clock[0],
        "iterations_per_second": (iterations[-1] - iterations[0]) / later if later else None,
        "n_iter": result.n_iter,
        "cg_per_iteration": history["cg_iterations"][-1] / result.n_iter,
        "history": {name: history[name] for name in names},
    }


def phase2(small: bool) -> dict[str, Any]:
    """Last layer on the hidden features of the first phase's network."""
    from cvxnn.preference import CoalaObjective

    blocks = first_solve(small).weights.blocks
    U = blocks.reshape(-1, blocks.shape[-1])
    U = U[np.linalg.norm(U, axis=1) > 0]
    H = np.maximum(np.asarray(jnp.asarray(embeddings(small)) @ U.T), 0)
    H = H[:, H.any(axis=0)]
    H /= np.sqrt((H**2).mean(axis=0))
    n = len(H) // 2
    margins = jnp.asarray(H[:n] - H[n:])
    weights = jnp.full(n, 1 / n, margins.dtype)
    objective = CoalaObjective(margins, weights, 1.0, 0.5, 1e-2)
    result = solve(objective, AcceleratedGradient(), start=np.zeros(H.shape[1], np.float32))
    return {
        "shape": [n, H.shape[1]],
        "status": result.status.value,
        "gap": result.gap,
        "objective": result.objective,
        "n_iter": result.n_iter,
        "seconds": result.history["time"][-1],
        "seconds_to_first_check": result.history["time"][0],
        "accuracy": float(((H[:n] - H[n:]) @ result.weights > 0).mean()),
    }


def closed_form(small: bool) -> dict[str, Any]:
    """The linear system of many gates on the host, and on the device twice: it compiles once."""
    op = program(small).operator
    n = len(op.X) // 2
    operator = PairedOperator(op.X, op.mask, pairs=np.arange(2 * n).reshape(2, n).T)
    targets = np.ones((n, 1), op.X.dtype)
    given = ConvexProgram(operator, targets, 1e-4, penalty=SquaredL2(), formulation="gated")
    solver = Ridge(tol=1e-3)
    work = solver.work(given)
    row: dict[str, Any] = {
        "shape": [*op.X.shape, planted.N_PATTERNS],
        "expected_seconds_host": work.seconds_on_host,
        "expected_seconds_device": work.seconds_on_accelerator,
        "sent_gb": work.sent / 1e9,
        "takes_device": work.accelerator() is not None,
    }
    mesh = jax.make_mesh((1,), ("rows",), devices=jax.devices()[:1])
    for name, devices in (("first", mesh), ("again", mesh), ("host", None)):
        with jax.default_device(jax.devices("cpu")[0]):  # where Ridge asks for an accelerator
            result = solve(given, solver, mesh=devices)
        row[name] = {
            "objective": result.objective,
            "gap": result.gap,
            "n_iter": result.n_iter,
            "status": result.status.value,
            "seconds": result.history["time"][-1],
            "seconds_to_first_check": result.history["time"][0],
        }
    difference = row["first"]["objective"] / row["host"]["objective"] - 1
    return {**row, "difference_objective": abs(difference)}


def head(small: bool) -> dict[str, Any]:
    """Both phases by the estimator, with its defaults, and where the time goes."""
    from cvxnn import COALAPreferenceHead

    fitted = COALAPreferenceHead(n_patterns=16 if small else planted.N_PATTERNS, random_state=0)
    n, d = pairs(small).chosen.shape
    row = {"shape": [2 * n, d], **record.profiled(lambda: fitted.fit_pairs(*pairs(small)))}
    if row["status"] == "done":
        row.update(
            gap=fitted.gap_,
            objective=fitted.objective_,
            n_iter=fitted.n_iter_,
            status_phase1=fitted.status_,
            seconds_phase1_solver=fitted.history_["time"][-1],
            seconds_phase2_solver=fitted.phase2_history_["time"][-1],
            gap_phase2=fitted.phase2_gap_,
            n_iter_phase2=fitted.phase2_history_["iteration"][-1],
            accuracy=fitted.phase2_history_["rewards/accuracies"][-1],
            history={key: fitted.history_[key] for key in ("time", "iteration", "stopping")},
        )
    return row


MEASUREMENTS: dict[str, record.Measurement] = {
    "phase I": (phase1, 90),
    "phase II": (phase2, 20),
    "closed form": (closed_form, 60),
    "COALAPreferenceHead": (head, 80),
    "phase I, certified as the program": (phase1_program, 45),
}

if __name__ == "__main__":
    print(f"arrays go to {jax.devices()[0]}")
    record.run("coala", MEASUREMENTS, "jax")
