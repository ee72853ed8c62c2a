"""The accelerator: asked for where it pays, and never where there is none."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from scipy import sparse

from cvxnn.convex import (
    ConvexProgram,
    GatedOperator,
    PairedOperator,
    Ridge,
    SquaredL2,
    accelerator,
    solve,
)
from cvxnn.convex.sharding import RowShards
from cvxnn.numerics.stored_rows import StoredRows


def program(X: np.ndarray, pairs: np.ndarray, n_patterns: int = 3) -> ConvexProgram:
    mask = np.ones((len(X), n_patterns), bool)
    mask[:, 1:] = X[:, 1:n_patterns] > 0
    operator = PairedOperator(X, mask, pairs=pairs)
    targets = np.ones((len(pairs), 1), X.dtype)
    return ConvexProgram(operator, targets, 1e-3, penalty=SquaredL2(), formulation="gated")


@pytest.fixture
def small() -> ConvexProgram:
    rng = np.random.default_rng(0)
    return program(rng.normal(size=(46, 4)), rng.integers(46, size=(40, 2)))


@pytest.mark.slow
def test_the_answer_on_an_accelerator_is_that_of_the_host(
    small: ConvexProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = solve(small, Ridge(tol=1e-9))
    sent: list[int] = []
    put = RowShards._put

    def counted(self: RowShards, *arguments: object) -> object:
        arrays = put(self, *arguments)  # type: ignore[arg-type]
        sent.append(self.bytes_sent)
        return arrays

    monkeypatch.setattr(RowShards, "_put", counted)
    mesh = jax.make_mesh((1,), ("rows",))
    monkeypatch.setattr(Ridge, "accelerator", lambda self, problem: mesh)
    found = solve(small, Ridge(tol=1e-9))
    np.testing.assert_allclose(found.weights.blocks, expected.weights.blocks, rtol=1e-5, atol=1e-7)
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    assert found.dual is not None
    assert small.bound_of(found.dual) == pytest.approx(found.dual_bound, rel=1e-9)
    # Data travel once, as the model says but for rows and patterns that round numbers up.
    n_bytes = Ridge().work(small).sent
    assert n_bytes < sent[-1] < 1.7 * n_bytes


def test_it_pays_for_many_rows_and_not_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "blas_threads", lambda: 16)

    def pays(n: int, d: int, dtype: type) -> bool:
        X = np.broadcast_to(dtype(1), (n, d))
        pairs = np.broadcast_to(0, (n // 2, 2))
        operator = PairedOperator(X, np.broadcast_to(True, (n, 64)), pairs=pairs)
        given = ConvexProgram(operator, np.broadcast_to(dtype(1), (n // 2, 1)), 1e-3)
        work = Ridge(tol=1e-2).work(given)
        return work.seconds_on_accelerator < work.seconds_on_host

    assert not pays(4000, 100, np.float32)
    assert not pays(100_000, 20, np.float32)
    assert pays(131_072, 4096, np.float32)
    # The cheap ones have little float64.
    assert not pays(131_072, 1024, np.float64)


def test_what_would_not_gain_stays_on_the_host_in_a_scope() -> None:
    def gains(X: Any, tol: float = 1e-2) -> bool:
        operator = GatedOperator(X, np.broadcast_to(True, (X.shape[0], 64)))
        given = ConvexProgram(operator, np.zeros((X.shape[0], 1)), 1e-3)
        return Ridge(tol=tol).gains_from_devices(given)

    many = np.broadcast_to(1.0, (20_000, 100))
    assert gains(many)
    assert not gains(many[:500])
    assert not gains(many[:5000], tol=1e-6)  # factored
    assert gains(StoredRows(many))
    assert not gains(sparse.csr_array((20_000, 100)))


def test_memory_is_looked_at_and_jax_not_asked_without_a_plugin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    single = np.dtype(np.float32)
    large = accelerator.Work(1e18, single, 1e9, single, 1e3, 1e9)
    monkeypatch.setattr(accelerator, "_device", lambda: jax.local_devices()[0])
    found = large.accelerator()
    assert found is not None
    assert found.devices.tolist() == jax.local_devices()[:1]
    assert large._replace(host_flops=1e9).accelerator() is None
    little = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 10**9})
    monkeypatch.setattr(accelerator, "_device", lambda: little)
    assert large.accelerator() is None
    monkeypatch.undo()
    monkeypatch.setattr(accelerator, "_is_installed", lambda: False)
    monkeypatch.setattr(jax.numpy, "zeros", lambda _: pytest.fail("JAX was started"))
    assert large.accelerator() is None
