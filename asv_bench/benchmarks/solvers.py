"""Solvers: time to a certificate, iterations, rate against plain products, growth, memory."""

import itertools
import resource
import time
from dataclasses import replace

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    GatedOperator,
    InteriorPoint,
    ProximalGradient,
    add_bias,
    regularization_path,
    sample_patterns,
    solve,
)
from cvxnn.training import train

N_PATTERNS = {"breast_cancer": 40, "digits": 50}


def program(name):
    """Standardised data, targets -1 and 1, Gaussian patterns; on the host, so any dtype fits."""
    load = {"breast_cancer": load_breast_cancer, "digits": load_digits}[name]
    X, y = load(return_X_y=True)
    y = np.where(y % 2, 1.0, -1.0)
    spread = X.std(axis=0)
    X = (X - X.mean(axis=0))[:, spread > 0] / spread[spread > 0] / np.sqrt((spread > 0).sum())
    X = add_bias(X)
    mask = sample_patterns(X, N_PATTERNS[name], random_state=0).mask
    return ConvexProgram(GatedOperator(X, mask), y[:, None], 1e-2)


# Solvers of the linear systems of CRONOS.
LINEAR_SOLVERS = ["dual", "mean_field", "block", "block_nystrom", "nystrom"]


class LinearSolvers:
    """Seconds of CRONOS to a gap of 1e-3, with nothing left to compile."""

    params = (list(N_PATTERNS), LINEAR_SOLVERS)
    param_names = ("data", "linear_solver")
    timeout = 300
    number = 1
    repeat = 3

    def setup(self, data, linear_solver):
        self.program = program(data)
        self.solver = Cronos(linear_solver=linear_solver, certify="program", tol=1e-3)
        solve(self.program, self.solver)

    def time_to_gap_1e_3(self, data, linear_solver):
        solve(self.program, self.solver)


class LinearIterations:
    """Iterations of CRONOS and of its linear systems, all counted in one process."""

    params = LinearSolvers.params
    param_names = LinearSolvers.param_names
    timeout = 600

    def setup_cache(self):
        return {
            (data, linear_solver): self.count(program(data), linear_solver)
            for data, linear_solver in itertools.product(*self.params)
        }

    setup_cache.timeout = 600  # type: ignore[attr-defined]

    @staticmethod
    def count(problem, linear_solver):
        """Numbers of iterations on one problem."""
        # The paper's settings: fixed rho = 0.01, no relaxation, rows as they are; every system
        # to the same accuracy.
        paper = Cronos(
            linear_solver=linear_solver,
            rho=0.01,
            balance=False,
            relaxation=1.0,
            scale_rows=False,
            cg_tol=1e-6,
            cg_max_iter=2000,
            tol=0.0,
            max_iter=20,
        )
        # rho = 0.01 against the sum of squares, not their mean: far worse conditioned. Of digits,
        # a step has up to 1,100 iterations of conjugate gradient.
        summed = replace(paper, rho=0.01 / len(problem.y), max_iter=4)
        mean, total = (solve(problem, solver) for solver in (paper, summed))
        default = Cronos(linear_solver=linear_solver, certify="program", tol=1e-3)
        return {
            "mean": mean.history["cg_iterations"][-1] / mean.n_iter,
            "sum": total.history["cg_iterations"][-1] / total.n_iter,
            "to_gap_1e_3": solve(problem, default).n_iter,
        }

    def track_cg_iterations_per_step(self, counts, data, linear_solver):
        return counts[data, linear_solver]["mean"]

    def track_cg_iterations_per_step_loss_not_averaged(self, counts, data, linear_solver):
        return counts[data, linear_solver]["sum"]

    def track_iterations_to_gap_1e_3(self, counts, data, linear_solver):
        return counts[data, linear_solver]["to_gap_1e_3"]


class Certified:
    """Seconds to a gap of 1e-6 (interior point) or 1e-4 (first-order), in either form."""

    params = (["breast_cancer", "digits"], ["relu", "gated"])
    param_names = ("data", "formulation")
    timeout = 300

    def setup(self, data, formulation):
        self.program = replace(program(data), formulation=formulation)
        self.first_order = Cronos(tol=1e-4) if formulation == "relu" else ProximalGradient(tol=1e-4)
        solve(self.program, replace(self.first_order, max_iter=10))

    def time_interior_point(self, data, formulation):
        solve(self.program, InteriorPoint(tol=1e-6))

    def time_first_order(self, data, formulation):
        solve(self.program, self.first_order)


class InteriorPointNumbers:
    """Gap and iterations of interior point at a tolerance of 1e-6, from one solve for both."""

    params = Certified.params
    param_names = Certified.param_names
    timeout = 300

    def setup_cache(self):
        found = {}
        for data, formulation in itertools.product(*self.params):
            problem = replace(program(data), formulation=formulation)
            result = solve(problem, InteriorPoint(tol=1e-6))
            found[data, formulation] = result.gap, result.n_iter
        return found

    def track_gap(self, found, data, formulation):
        return found[data, formulation][0]

    def track_iterations(self, found, data, formulation):
        return found[data, formulation][1]


class Training:
    """Objective and seconds of the ways to choose patterns."""

    params = (["breast_cancer"], ["gaussian", "local", "three runs", "adaptive"])
    param_names = ("data", "patterns")
    timeout = 600

    def setup(self, data, patterns):
        problem = program(data)
        self.X, self.y = np.asarray(problem.operator.X), np.asarray(problem.y)
        self.options = {
            "gaussian": {"patterns": "gaussian"},
            "local": {},
            "three runs": {"n_runs": 3},
            "adaptive": {"n_rounds": 3},
        }[patterns]

    def fit(self):
        return train(self.X, self.y, 1e-3, 64, tol=1e-3, random_state=0, **self.options)

    def time_train(self, data, patterns):
        self.fit()

    def track_objective(self, data, patterns):
        return self.fit().result.objective


class Path:
    """A path of 20 strengths against as many cold solves."""

    timeout = 300

    def setup(self):
        self.program = replace(program("breast_cancer"), formulation="gated")
        self.alphas = regularization_path(self.program, tol=1e-3).alphas

    def time_path(self):
        regularization_path(self.program, alphas=self.alphas, tol=1e-3)

    def time_cold(self):
        for alpha in self.alphas:
            solve(replace(self.program, alpha=alpha), InteriorPoint(tol=1e-3))


def gaussian_program(n, d, P, dtype=np.float32):
    """Gaussian data and gates, without temporary copies of the data."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=dtype)
    X /= np.sqrt(d, dtype=dtype)
    mask = X @ rng.standard_normal((d, P), dtype=dtype) >= 0
    return ConvexProgram(GatedOperator(X, mask), X[:, :1].copy(), 1e-3)


def fixed_iterations(n_iter=20, **options):
    """CRONOS with a fixed amount of work."""
    return Cronos(
        tol=0.0, max_iter=n_iter, check_every=n_iter, balance=False, cg_max_iter=3, **options
    )


def seconds_per_iteration(n, d, P, n_iter=10, **options):
    """Median time of a CRONOS iteration, compiled before."""
    problem, solver = gaussian_program(n, d, P), fixed_iterations(n_iter, **options)
    solve(problem, solver)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        solve(problem, solver)
        times.append(time.perf_counter() - began)
    return float(np.median(times)) / n_iter


class Growth:
    """An iteration's time along a decade of each size, from n = 4,000, d = 80, P = 20."""

    params = (["n", "d", "P"], [1, 3, 10])
    param_names = ("size", "factor")
    timeout = 300

    def track_seconds_per_iteration(self, size, factor):
        sizes = {"n": 4000, "d": 80, "P": 20}
        sizes[size] *= factor
        return seconds_per_iteration(linear_solver="mean_field", **sizes)


class Rate:
    """Rate of an ADMM iteration over that of the plain products it consists of."""

    params = ([(12_000, 784, 64), (5_000, 100, 50)],)
    param_names = ("shape",)
    timeout = 300

    def track_share_of_matrix_product_rate(self, shape):
        n, d, P = shape
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n, d)).astype(np.float32)
        U = rng.standard_normal((2 * P, d)).astype(np.float32)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            S = X @ U.T
            S.T @ X
            times.append(time.perf_counter() - began)
        # Both signs there and back; then PCG, whose iterations move half as many blocks.
        plain = float(np.median(times)) * (1 + (3 + 1) / 2)
        return plain / seconds_per_iteration(*shape, linear_solver="mean_field")


class Memory:
    """Peak memory of a solve, of a process of its own, over data plus masks."""

    params = ([(50_000, 784, 64), (50_000, 100, 50)],)
    param_names = ("shape",)

    def track_peak_over_data(self, shape):
        problem = gaussian_program(*shape)
        data = problem.operator.X.nbytes + problem.operator.mask.nbytes
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        solve(problem, fixed_iterations(2, linear_solver="mean_field"))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return (after - before + data) / data
