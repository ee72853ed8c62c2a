"""CRONOS: conjugate-gradient iterations, time and certificate by linear solver."""

from dataclasses import replace

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

from cvxnn import patterns
from cvxnn.operators import GatedOperator
from cvxnn.problem import ConvexProgram
from cvxnn.solvers import Cronos, solve

N_PATTERNS = {"breast_cancer": 40, "digits": 50}


def program(name):
    """Standardised data, targets -1 and 1, Gaussian patterns; on the host, so any dtype fits."""
    load = {"breast_cancer": load_breast_cancer, "digits": load_digits}[name]
    X, y = load(return_X_y=True)
    y = np.where(y % 2, 1.0, -1.0)
    spread = X.std(axis=0)
    X = (X - X.mean(axis=0))[:, spread > 0] / spread[spread > 0] / np.sqrt((spread > 0).sum())
    X = patterns.add_bias(X)
    mask = patterns.sample(X, N_PATTERNS[name], random_state=0).mask
    return ConvexProgram(GatedOperator(X, mask), y[:, None], 1e-2)


class LinearSolvers:
    params = (
        ["breast_cancer", "digits"],
        ["dual", "mean_field", "block", "block_nystrom", "nystrom"],
    )
    param_names = ("data", "linear_solver")
    timeout = 300

    def setup(self, data, linear_solver):
        self.program = program(data)
        # The paper's settings: fixed rho = 0.01, no relaxation, rows as they are; every system
        # to the same accuracy.
        self.paper = Cronos(
            linear_solver=linear_solver,
            rho=0.01,
            balance=False,
            relaxation=1.0,
            scale_rows=False,
            cg_tol=1e-6,
            cg_max_iter=2000,
            tol=0.0,
            max_iter=50,
        )
        self.default = Cronos(linear_solver=linear_solver, certify="program", tol=1e-3)
        solve(self.program, self.default)

    def time_to_gap_1e_3(self, data, linear_solver):
        solve(self.program, self.default)

    def track_cg_iterations_per_step(self, data, linear_solver):
        result = solve(self.program, self.paper)
        return result.history["cg_iterations"][-1] / result.n_iter

    def track_cg_iterations_per_step_loss_not_averaged(self, data, linear_solver):
        # rho = 0.01 against the sum of squares, not their mean: far worse conditioned.
        solver = replace(self.paper, rho=0.01 / len(self.program.y))
        result = solve(self.program, solver)
        return result.history["cg_iterations"][-1] / result.n_iter

    def track_iterations_to_gap_1e_3(self, data, linear_solver):
        return solve(self.program, self.default).n_iter
