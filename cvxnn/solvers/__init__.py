"""Solvers: frozen bundles of options, all driven by ``solve``."""

from cvxnn.solvers._loop import Result, Solver, Status, solve
from cvxnn.solvers.accelerated_gradient import AcceleratedGradient
from cvxnn.solvers.automatic import automatic
from cvxnn.solvers.cronos import Cronos
from cvxnn.solvers.interior_point import InteriorPoint
from cvxnn.solvers.proximal_gradient import ProximalGradient
from cvxnn.solvers.ridge import Ridge
from cvxnn.solvers.working_set import solve_on_working_sets

__all__ = [
    "AcceleratedGradient",
    "Cronos",
    "InteriorPoint",
    "ProximalGradient",
    "Result",
    "Ridge",
    "Solver",
    "Status",
    "automatic",
    "solve",
    "solve_on_working_sets",
]
