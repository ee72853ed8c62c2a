"""pyscnn 0.0.10 (Mishkin et al., 2022): augmented Lagrangian for ReLU, R-FISTA for gated networks.

Its objective is the one of ``problems``: it divides the squared error by ``2n`` and takes
``lam = alpha``. Three habits would make it another problem, and are kept away from:

- ``unitize_data`` scales every column by itself, which changes the penalty. Dividing the whole
  matrix by one number instead would be harmless, but its iterations and its tolerance did not gain
  from it on the two smallest problems.
- It draws and sorts gates of its own, and opens a gate for ``x.g > 0`` only: it is given the mask.
- ``bias=True`` would append a second column of ones.

So its parts are put together here as its ``optimize_model`` does, with the mask in between. ``tol``
is its own: the squared norm of the smallest subgradient (default 1e-6), and of the constraints.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from problems import Array, Problem
from timing import Report

# The objective is looked at whenever this much more time has passed.
GROWTH = 1.15


def relu(problem: Problem, report: Report, **options: Any) -> None:
    """Train the ReLU model by the augmented Lagrangian."""
    _train(problem, report, "relu", **options)


def gated(problem: Problem, report: Report, **options: Any) -> None:
    """Train the gated model by R-FISTA."""
    _train(problem, report, "gated", **options)


def _train(problem: Problem, report: Report, formulation: str, tol: float, dtype: str) -> None:
    warnings.simplefilter("ignore")  # its invalid escape sequences and divisions by zero norms
    import lab
    from scnn.metrics import Metrics
    from scnn.models import ConvexGatedReLU, ConvexReLU
    from scnn.private.interface import build_optimizer, get_logger, set_device
    from scnn.private.models import AL_MLP, ConvexMLP, GroupL1Regularizer
    from scnn.regularizers import NeuronGL1
    from scnn.solvers import AL, RFISTA

    set_device("cpu", dtype, 0)
    alpha = problem.alpha
    report.begin()
    began = time.process_time()
    X, y, mask, gates = lab.all_to_tensor(
        [problem.X, problem.y, problem.mask.astype(dtype), problem.gates.T],
        dtype=lab.get_dtype(),
    )
    arguments = (X.shape[1], mask, gates, "einsum")
    if formulation == "relu":
        public = AL(ConvexReLU(problem.gates.T), tol=tol, constraint_tol=tol)
        model = AL_MLP(*arguments, delta=1000, regularizer=GroupL1Regularizer(alpha))
    else:
        public = RFISTA(ConvexGatedReLU(problem.gates.T), tol=tol)
        model = ConvexMLP(*arguments, regularizer=GroupL1Regularizer(alpha))
    procedure = build_optimizer(public, NeuronGL1(alpha), Metrics())
    paused, due, n_iter = 0.0, 0.0, 0

    def measure(seconds: float, weights: Array) -> None:
        if formulation == "relu":
            U = weights[:, 0]
            report(
                0,
                seconds,
                problem.network_objective(U),
                program=problem.program_objective(U),
                violation=problem.violation(U),
            )
        else:
            Z = weights[0]
            report(0, seconds, problem.gated_objective(Z), bound=problem.gated_bound(Z))

    def look(model: Any, *_: Any) -> Any:
        nonlocal paused, due, n_iter
        n_iter += 1
        now = time.process_time()
        if now - began - paused >= due:
            measure(now - began - paused, np.asarray(model.weights, np.float64))
            due = GROWTH * (now - began - paused)
            paused += time.process_time() - now
        return model

    status, model, _ = procedure(
        get_logger("scnn"), model, lambda model: model, (X, y), (X, y), ([], [], []), callback=look
    )
    seconds = time.process_time() - began - paused
    measure(seconds, np.asarray(model.weights, np.float64))
    report.detail(iterations=n_iter, success=float(status.get("success", False)))
