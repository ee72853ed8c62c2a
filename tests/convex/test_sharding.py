"""Rows on several devices, of one process and of two: the solution of one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    GatedOperator,
    InteriorPoint,
    PairedOperator,
    ProximalGradient,
    solve,
)

# Each process has its part of 101 rows, two devices hold a part of that each. All of them also
# solve the whole program, on one device, for comparison.
SHARED = """
import os
import sys
import jax
import numpy as np

rank, n_processes, port = map(int, sys.argv[1:4])
folder = sys.argv[4]
if n_processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", n_processes, rank)
from cvxnn.convex import (
    AcceleratedGradient, Certificate, ConvexProgram, Cronos, PairedOperator, ProximalGradient,
    Ridge, SquaredL2, paired, sample_patterns, solve
)
from cvxnn.numerics import stored_rows
from cvxnn.numerics.stored_rows import StoredRows
from cvxnn.preference import CoalaObjective
from cvxnn.training import Units, leave_each_out, leave_out

stored_rows._BLOCK_NUMBERS = 40
rng = np.random.default_rng(0)
X = rng.normal(size=(101, 4))
y = np.abs(X[:, :1]) - X[:, 1:2]
weight = rng.uniform(size=101)
mask = sample_patterns(X, 5, random_state=0).mask
own = slice(None) if n_processes == 1 else slice(0, 70) if rank == 0 else slice(70, None)
# Pairs of the rows that one process has, and what each pair weighs.
of_first, of_second = rng.integers(70, size=(50, 2)), rng.integers(70, 101, size=(13, 2))
pairs = np.concatenate([of_first, of_second])
own_pairs = pairs if n_processes == 1 else of_first if rank == 0 else of_second - 70
own_weight = slice(None) if n_processes == 1 else slice(0, 50) if rank == 0 else slice(50, 63)
mesh = jax.make_mesh((jax.device_count(),), ("rows",))
assert jax.device_count() == 4

def program(whole, pairs=None, stored=False, **options):
    rows, weights = (slice(None), slice(None)) if whole else (own, own)
    targets = y
    if pairs is not None:
        weights, targets = slice(None) if whole else own_weight, np.ones((63, 1))
    given = StoredRows(X[rows]) if stored else X[rows]
    return ConvexProgram(
        paired(given, mask[rows], pairs), targets[weights], 1e-3,
        sample_weight=weight[: len(targets)][weights], **options
    )

gated = {"formulation": "gated", "penalty": SquaredL2()}
for solver, options, of_all, of_own in (
    (ProximalGradient(tol=1e-7), {"formulation": "gated"}, None, None),
    (Cronos(tol=1e-4), {"skip": 1e-2}, None, None),
    (Ridge(tol=1e-13), gated, pairs, own_pairs),
    (Ridge(tol=1e-13), gated | {"skip": 1e-2}, None, None),
):
    # The closed form is factored on one device, in NumPy.
    alone = solver if isinstance(solver, Ridge) else solver.across_devices()
    all_rows, own_rows = program(True, of_all, **options), program(False, of_own, **options)
    whole = solve(all_rows, alone)
    shared = solve(own_rows, solver, mesh=mesh)
    np.testing.assert_allclose(shared.weights.blocks, whole.weights.blocks, rtol=1e-5, atol=1e-6)
    of_process = own if of_all is None else own_weight
    np.testing.assert_allclose(
        shared.dual.residual, whole.dual.residual[of_process], rtol=0, atol=1e-5,
        err_msg=type(solver).__name__,
    )
    if of_all is not None:  # each process streams rows of its own disk
        streamed = solve(program(False, of_own, stored=True, **options), solver, mesh=mesh)
        for found, expected in (
            (streamed.weights.blocks, shared.weights.blocks),
            (streamed.dual.residual, shared.dual.residual),
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if n_processes == 1:
        assert abs(own_rows.bound_of(shared.dual) / shared.dual_bound - 1) < 1e-9
    assert abs(own_rows.evaluate(shared.weights).objective) < np.inf
    assert abs(shared.objective / whole.objective - 1) < 1e-9
    assert abs(shared.dual_bound / whole.dual_bound - 1) < 1e-5
    assert shared.status == whole.status
    again = solve(own_rows, solver, start=shared, mesh=mesh)
    assert again.n_iter <= shared.n_iter
    if of_all is not None:  # predictions without each pair, in this process and by all
        certificate = Certificate(all_rows, whole.weights, None)
        expected = leave_out(certificate, Units(np.arange(63), np.ones(63))).predictions
        found = leave_each_out(own_rows)
        np.testing.assert_allclose(found, expected[of_process], rtol=1e-6, atol=1e-9)
    # A callback may stop in one process alone.
    file = os.path.join(folder, f"{type(solver).__name__}{of_all is None}")
    stopped = solve(
        own_rows, solver, mesh=mesh, callback=lambda *_: rank == 0, checkpoint=file
    )
    assert stopped.n_iter == solver.check_every
    # It goes on from there.
    resumed = solve(own_rows, solver, mesh=mesh, checkpoint=file)
    assert resumed.n_iter <= shared.n_iter
    assert resumed.gap <= solver.tol

# The second phase of a head, whose replies need not be paired.
def second_phase(rows):
    beta, gamma, ridge = 1.0, 0.5, 1e-2
    omega = weight[rows] / weight.sum()
    chosen, rejected = X[rows][y[rows, 0] > 0], X[rows][y[rows, 0] <= 0]
    return CoalaObjective(X[rows] + 0.3, omega, beta, gamma, ridge, chosen, rejected)

whole = solve(second_phase(slice(None)), AcceleratedGradient(tol=1e-9, on_host=True), start=X[0])
shared = solve(second_phase(own), AcceleratedGradient(tol=1e-9), start=X[0], mesh=mesh)
np.testing.assert_allclose(shared.weights, whole.weights, rtol=1e-5)
assert abs(shared.objective / whole.objective - 1) < 1e-9
for name in ("chosen", "rejected", "margins"):
    found, expected = (result.history[f"rewards/{name}"][-1] for result in (shared, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-5)

if n_processes == 1:
    from cvxnn import ConvexReLURegressor
    from cvxnn.convex import on_mesh

    solver = Cronos(tol=1e-4, linear_solver="mean_field")
    model = ConvexReLURegressor(
        formulation="relu", patterns="gaussian", n_patterns=5, solver=solver, random_state=0
    )
    expected = model.fit(X, y[:, 0]).predict(X)
    with on_mesh(mesh):
        found = model.fit(X, y[:, 0])
    np.testing.assert_allclose(found.predict(X), expected, rtol=1e-5, atol=1e-7)
else:
    from cvxnn.convex import on_mesh

    try:
        with on_mesh(mesh):
            raise AssertionError
    except ValueError as error:
        assert "belong to several processes" in str(error)

if n_processes > 1:
    print("about to end", flush=True)
    forever = ProximalGradient(tol=0.0, max_iter=10**9)
    end = lambda *_: os._exit(9) if rank == 1 else False
    try:
        solve(program(own, formulation="gated"), forever, mesh=mesh, callback=end)
    except ConnectionError as error:
        assert "start all processes again" in str(error)
        print("noticed", flush=True)
        os._exit(0)
print("done", flush=True)
"""


def shared_solves(n_processes: int, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    devices = f"--xla_force_host_platform_device_count={4 // n_processes}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {devices}"  # those of conftest.py compile quickly
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED, str(rank), str(n_processes), str(port), str(folder)],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n_processes)
    ]
    try:
        expected = ["done"] if n_processes == 1 else ["noticed", "about to end"]
        for process, last in zip(processes, expected, strict=True):
            out, error = process.communicate(timeout=400)
            assert out.endswith(f"{last}\n"), error
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_four_devices_of_one_process_solve_as_one_does(tmp_path: Path) -> None:
    shared_solves(1, tmp_path)


@pytest.mark.slow
def test_two_processes_of_two_devices_solve_as_one_does(tmp_path: Path) -> None:
    shared_solves(2, tmp_path)


def test_a_mesh_of_one_device_changes_nothing() -> None:
    X = np.random.default_rng(0).normal(size=(13, 2))
    program = ConvexProgram(GatedOperator(X, X > 0), X[:, :1], 1e-2, formulation="gated")
    plain = solve(program, ProximalGradient())
    meshed = solve(program, ProximalGradient(), mesh=jax.make_mesh((1,), ("rows",)))
    np.testing.assert_allclose(meshed.weights.blocks, plain.weights.blocks, rtol=1e-12)
    np.testing.assert_allclose(meshed.dual.residual, plain.dual.residual, rtol=1e-12)
    assert (meshed.gap, meshed.n_iter) == (pytest.approx(plain.gap), plain.n_iter)


def test_a_solver_that_is_not_compiled_is_refused() -> None:
    X = np.random.default_rng(0).normal(size=(13, 2))
    program = ConvexProgram(GatedOperator(X, X > 0), X[:, :1], 1e-2, formulation="gated")
    with pytest.raises(TypeError, match="Ridge, AcceleratedGradient; got InteriorPoint"):
        solve(program, InteriorPoint(), mesh=jax.make_mesh((1,), ("rows",)))


@pytest.mark.slow
def test_pairs_of_a_device_need_its_own_rows_alone() -> None:
    rng = np.random.default_rng(0)
    X, pairs, R = rng.normal(size=(23, 2)), rng.integers(23, size=(12, 2)), rng.normal(size=(12, 1))
    operator = PairedOperator(X, X > 0, pairs=pairs)
    parts = operator.grouped(3, lambda n: n + 1)
    assert len(parts.X) % 3 == 0
    assert parts.pairs.max() < len(parts.X) // 3
    np.testing.assert_array_equal(parts.X[parts.inputs(np.arange(12))], X[pairs])
    U = jnp.asarray(rng.normal(size=(1, 2, 2)), jnp.float32)
    on_device = jax.tree.map(jnp.asarray, parts)
    np.testing.assert_allclose(
        on_device.forward_difference(U), operator.forward_difference(np.asarray(U)), rtol=1e-4
    )
    np.testing.assert_allclose(
        on_device.adjoint_difference(jnp.asarray(R)), operator.adjoint_difference(R), rtol=1e-4
    )


def test_a_matrix_of_all_rows_is_refused() -> None:
    X = np.random.default_rng(0).normal(size=(13, 2))
    program = ConvexProgram(GatedOperator(X, X > 0), X[:, :1], 1e-2)
    with pytest.raises(ValueError, match="which a mesh divides; leave linear_solver='auto'"):
        solve(program, Cronos(linear_solver="dual"), mesh=jax.make_mesh((1,), ("rows",)))


@pytest.mark.parametrize("mesh", [None, "cpu", 2, [1]])
def test_what_is_no_mesh_is_refused(mesh: object) -> None:
    from cvxnn.convex import on_mesh

    with pytest.raises(TypeError, match=r"expected a jax\.sharding\.Mesh"), on_mesh(mesh):
        pass
