"""Solvers: frozen bundles of options, all driven by ``solve``."""

from cvxnn.solvers._loop import Result, Solver, Status, solve
from cvxnn.solvers.accelerated_gradient import AcceleratedGradient
from cvxnn.solvers.cronos import Cronos

__all__ = ["AcceleratedGradient", "Cronos", "Result", "Solver", "Status", "solve"]
