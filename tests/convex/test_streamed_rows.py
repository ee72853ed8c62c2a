"""Rows on the disk that compiled code multiplies: the products and solutions of rows in memory."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cvxnn.convex import (
    ConvexProgram,
    GatedOperator,
    ProximalGradient,
    Ridge,
    SquaredL2,
    paired,
    solve,
    streamed_rows,
)
from cvxnn.convex.streamed_rows import StreamedRows, put_stored
from cvxnn.numerics import stored_rows
from cvxnn.numerics.jax_import import precision
from cvxnn.numerics.stored_rows import StoredRows


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "_BLOCK_NUMBERS", 12)


def one_device() -> jax.sharding.Mesh:
    return jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))


@jax.jit
def products(X: Any, right: Any, left: Any, some: Any) -> Any:
    return X @ right, left @ X, X[some], left @ abs(X), abs(X)[some]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_rows", [2, 7, 12])  # less than a block, an incomplete one, whole ones
def test_products_are_those_of_the_array(dtype: type, n_rows: int) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 4)).astype(dtype)
    right, left = rng.normal(size=(4, 3)).astype(dtype), rng.normal(size=(2, n_rows)).astype(dtype)
    some = np.array([[n_rows - 1, 0], [1, 1]])
    where = NamedSharding(one_device(), PartitionSpec(("rows",)))
    with precision(dtype):
        matrix, readers, sent = put_stored(StoredRows(X), where, one_device())
        assert isinstance(matrix, StreamedRows)
        assert sent == 0
        for _ in range(2):  # the second time begins with the block that was read ahead
            found = products(matrix, right, left, some)
            expected = (X @ right, left @ X, X[some], left @ abs(X), abs(X)[some])
            for a, b in zip(found, expected, strict=True):
                assert a.dtype == dtype
                np.testing.assert_allclose(a, b, rtol=1e-5 if dtype == np.float32 else 1e-12)
    assert len(readers) == 1


@pytest.mark.parametrize(
    ("solver", "build", "streams"),
    [
        (Ridge(tol=1e-9), lambda X: program(X, pairs=True), True),
        (ProximalGradient(tol=1e-6), lambda X: program(X, lasso=True), True),
        (ProximalGradient(tol=1e-6), lambda X: program(X, lasso=True, skip=1e-2), False),
    ],
)
@pytest.mark.slow
def test_solutions_are_those_of_rows_in_memory(
    solver: Any,
    build: Callable[[Any], ConvexProgram],
    streams: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    reader = streamed_rows.RowReader
    block = reader.block

    def counted(self: Any, first: int, n_rows: int) -> Any:
        asked.append(first)
        return block(self, first, n_rows)

    monkeypatch.setattr(reader, "block", counted)
    X = np.random.default_rng(0).normal(size=(20, 4))
    expected = solve(build(X), solver, mesh=one_device())
    assert not asked
    found = solve(build(StoredRows(X)), solver, mesh=one_device())
    assert bool(asked) == streams
    np.testing.assert_allclose(found.weights.blocks, expected.weights.blocks, rtol=1e-6, atol=1e-9)
    assert found.dual_bound == pytest.approx(expected.dual_bound, rel=1e-9)
    gc.collect()
    assert not streamed_rows._readers  # nor are their threads and blocks


def program(
    X: Any, *, pairs: bool = False, lasso: bool = False, skip: float | None = None
) -> ConvexProgram:
    rng = np.random.default_rng(1)
    mask = rng.uniform(size=(len(X), 3)) > 0.4
    operator = paired(X, mask, rng.integers(len(X), size=(13, 2)) if pairs else None)
    y = rng.normal(size=(operator.n_rows, 1))
    options: dict[str, Any] = {} if lasso else {"penalty": SquaredL2()}
    return ConvexProgram(operator, y, 1e-2, formulation="gated", skip=skip, **options)


def test_a_device_with_memory_of_its_own_gets_the_rows_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    where = NamedSharding(one_device(), PartitionSpec(("rows",)))
    monkeypatch.setattr(streamed_rows, "_memory", lambda device: 2.0 * X.nbytes)
    matrix, readers, sent = put_stored(StoredRows(X), where, one_device())
    assert (readers, sent) == ([], X.nbytes)
    np.testing.assert_array_equal(jnp.asarray(matrix), X)
    monkeypatch.setattr(streamed_rows, "_memory", lambda device: 2.0 * X.nbytes - 1)
    assert isinstance(put_stored(StoredRows(X), where, one_device()).X, StreamedRows)


def test_what_cannot_be_read_ends_the_solve() -> None:
    class Broken(StoredRows):
        def __getitem__(self, key: Any) -> Any:
            raise OSError("the disk is gone")

    X = np.random.default_rng(0).normal(size=(20, 4))
    good = program(StoredRows(X), lasso=True)
    broken = ConvexProgram(
        GatedOperator(Broken(X), good.operator.mask), good.y, 1e-2, formulation="gated"
    )
    broken.operator.X.is_finite = lambda: True
    with pytest.raises((RuntimeError, ValueError), match="the disk is gone"):
        solve(broken, ProximalGradient(), mesh=one_device())


# What the rows themselves take would be 128 MiB, read whole.
MEMORY = """
import resource, sys
import jax, numpy as np
from cvxnn.convex import ConvexProgram, GatedOperator, Ridge, SquaredL2, solve
from cvxnn.numerics.stored_rows import StoredRows

n, d, P, rank, two = 32_768, 1024, 8, 20, jax.device_count()
assert two == 2
rows = np.memmap(sys.argv[1], np.float32, "w+", shape=(n, d))
rng = np.random.default_rng(0)
for first in range(0, n, 2048):
    rows[first : first + 2048] = rng.standard_normal((2048, d), np.float32)
rows.flush()
del rows
mask = rng.uniform(size=(n, P)) > 0.5
mesh = jax.make_mesh((two,), ("rows",))
solver = Ridge(tol=1e-3, rank=rank, max_dense=1, max_iter=4)
y = rng.standard_normal((n, 1), np.float32)

def fit(X):
    operator, options = GatedOperator(X, mask[: len(X)]), {"formulation": "gated"}
    program = ConvexProgram(operator, y[: len(X)], 1e-2, penalty=SquaredL2(), **options)
    return solve(program, solver, mesh=mesh)

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

fit(StoredRows(np.zeros((n // 16, d), np.float32)))  # what JAX and its compiler take
before = most()
fit(StoredRows(np.memmap(sys.argv[1], np.float32, "r", shape=(n, d))))
print(most() - before, n, d, P, rank, two)
"""


@pytest.mark.slow
def test_memory_is_bounded_by_the_formula_of_the_guide(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "rows")],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    grown, n, d, P, rank, n_devices = map(int, done.stdout.split())
    bound = n_devices * (4 * 2**24 + 2**25) + 4 * n * (3 * rank + 6 * P) + 16 * P * d
    assert grown < bound
    assert bound < 4 * n * d * 2.2
