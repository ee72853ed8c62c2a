"""F, G and their adjoints against naive loops in float64."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.convex import (
    ConvexProgram,
    GatedOperator,
    PairedOperator,
    ProximalGradient,
    SquaredL2,
    SquaredLoss,
    solve,
)
from cvxnn.numerics.jax_import import precision

TOLERANCE = {np.float64: 1e-12, np.float32: 2e-5}

# Every new shape costs a compilation, so invariants draw from a few, the extremes among them.
SHAPES = [(1, 1, 1, 1), (6, 1, 4, 2), (1, 3, 2, 1), (3, 5, 2, 3)]


@jax.jit
def all_maps(
    operator: GatedOperator, U: jax.Array, R: jax.Array, S: jax.Array
) -> tuple[jax.Array, ...]:
    return (
        operator.forward(U),
        operator.adjoint(R),
        operator.constraints(U),
        operator.constraints_adjoint(S),
        operator.network_forward(U),
    )


@jax.jit
def other_maps(
    operator: GatedOperator, U: jax.Array, R: jax.Array, S: jax.Array
) -> tuple[jax.Array, ...]:
    return (
        operator.forward(U[:, :1]),
        operator.adjoint(R, 1),
        operator.forward_difference(U[:, 0]),
        operator.adjoint_difference(R),
        operator.scores(U, 3 * operator.X),
        operator.back(S, 3 * operator.X),
        operator.orient(S),
        operator.gate(S),
    )


class Case:
    """An operator, and arrays in its four spaces."""

    def __init__(self, shape: tuple[int, int, int, int], seed: int, dtype: type) -> None:
        n, d, P, C = shape
        rng = np.random.default_rng(seed)
        self.X = rng.standard_normal((n, d)).astype(dtype)
        self.mask = rng.random((n, P)) < 0.5
        self.U = rng.standard_normal((C, 2, P, d)).astype(dtype)
        self.R = rng.standard_normal((n, C)).astype(dtype)
        self.S = rng.standard_normal((n, C, 2, P)).astype(dtype)
        self.operator = GatedOperator(self.X, self.mask)


@pytest.fixture
def case(dtype: type) -> Iterator[Case]:
    with precision(dtype):
        yield Case((6, 3, 4, 2), 0, dtype)


def close(actual: Any, expected: np.ndarray, dtype: type) -> None:
    assert actual.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


def naive_forward(case: Case) -> np.ndarray:
    n, C = case.R.shape
    out = np.zeros((n, C))
    for k in range(n):
        for c in range(C):
            for i in range(case.mask.shape[1]):
                if case.mask[k, i]:
                    for j in range(case.X.shape[1]):
                        q = float(case.U[c, 0, i, j]) - float(case.U[c, 1, i, j])
                        out[k, c] += float(case.X[k, j]) * q
    return out


def naive_adjoint(case: Case) -> np.ndarray:
    out = np.zeros(case.U.shape)
    C, _, P, d = out.shape
    for c in range(C):
        for i in range(P):
            for j in range(d):
                for k in range(len(case.X)):
                    if case.mask[k, i]:
                        out[c, 0, i, j] += float(case.X[k, j]) * float(case.R[k, c])
                        out[c, 1, i, j] -= float(case.X[k, j]) * float(case.R[k, c])
    return out


def naive_constraints(case: Case) -> np.ndarray:
    out = np.zeros(case.S.shape)
    for k, c, b, i in np.ndindex(*out.shape):
        sign = 1.0 if case.mask[k, i] else -1.0
        for j in range(case.X.shape[1]):
            out[k, c, b, i] += sign * float(case.X[k, j]) * float(case.U[c, b, i, j])
    return out


def naive_constraints_adjoint(case: Case) -> np.ndarray:
    out = np.zeros(case.U.shape)
    for c, b, i, j in np.ndindex(*out.shape):
        for k in range(len(case.X)):
            sign = 1.0 if case.mask[k, i] else -1.0
            out[c, b, i, j] += sign * float(case.X[k, j]) * float(case.S[k, c, b, i])
    return out


def test_forward_is_the_sum_over_open_patterns(case: Case, dtype: type) -> None:
    close(case.operator.forward(case.U), naive_forward(case), dtype)


def test_adjoint_gathers_open_rows(case: Case, dtype: type) -> None:
    close(case.operator.adjoint(case.R), naive_adjoint(case), dtype)


def test_constraints_orient_each_score(case: Case, dtype: type) -> None:
    close(case.operator.constraints(case.U), naive_constraints(case), dtype)


def test_constraints_adjoint_gathers_oriented_rows(case: Case, dtype: type) -> None:
    actual = case.operator.constraints_adjoint(case.S)
    close(actual, naive_constraints_adjoint(case), dtype)


def test_network_forward_is_a_relu_network(case: Case, dtype: type) -> None:
    expected = np.zeros(case.R.shape)
    for k, c in np.ndindex(*expected.shape):
        for sign, side in ((1, 0), (-1, 1)):
            for u in case.U[c, side].astype(float):
                expected[k, c] += sign * max(float(case.X[k].astype(float) @ u), 0)
    close(case.operator.network_forward(case.U), expected, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_adjoint_identities(dtype: type, shape: tuple[int, int, int, int], seed: int) -> None:
    with precision(dtype):
        case = Case(shape, seed, dtype)
        maps = all_maps(case.operator, case.U, case.R, case.S)
        Fu, Ftr, Gu, Gts = (np.asarray(part, float) for part in maps[:4])
    U, R, S = (part.astype(float) for part in (case.U, case.R, case.S))
    size = np.linalg.norm(U) * (1 + np.linalg.norm(case.X)) * len(case.mask.T)
    assert abs(np.vdot(Fu, R) - np.vdot(U, Ftr)) <= TOLERANCE[dtype] * size * np.linalg.norm(R)
    assert abs(np.vdot(Gu, S) - np.vdot(U, Gts)) <= TOLERANCE[dtype] * size * np.linalg.norm(S)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_network_equals_program_on_the_cones(
    dtype: type, shape: tuple[int, int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    P, d = shape[2], shape[1]
    with precision(dtype):
        case = Case(shape, seed, dtype)
        # Gates lie in their own cones, and so do all positive multiples of them.
        gates = rng.standard_normal((P, d)).astype(dtype)
        U = (rng.exponential(size=(*case.U.shape[:-1], 1)) * gates).astype(dtype)
        operator = GatedOperator(case.operator.X, case.X @ gates.T >= 0)
        maps = all_maps(operator, U, case.R, case.S)
        close(maps[4], np.asarray(maps[0]), dtype)


def test_network_differs_from_the_program_off_the_cones() -> None:
    operator = GatedOperator(np.ones((1, 1)), np.ones((1, 1), bool))
    U = np.array([[[[-2.0]], [[0.0]]]])
    assert operator.forward(U).item() == -2
    assert operator.network_forward(U).item() == 0


def test_one_sign_is_the_difference_of_two(case: Case, dtype: type) -> None:
    Q = case.U[:, :1] - case.U[:, 1:]
    close(case.operator.forward(Q), naive_forward(case), dtype)
    close(case.operator.adjoint(case.R, 1), naive_adjoint(case)[:, :1], dtype)


@pytest.mark.parametrize("maps", [all_maps, other_maps])
def test_jax_gives_the_values_of_numpy(case: Case, dtype: type, maps: Any) -> None:
    on_device = maps(case.operator, case.U, case.R, case.S)
    on_host = maps.__wrapped__(case.operator, case.U, case.R, case.S)
    for left, right in zip(on_host, on_device, strict=True):
        assert isinstance(left, np.ndarray)
        close(right, left, dtype)


def test_difference_maps_see_only_v_minus_w(case: Case, dtype: type) -> None:
    Q = case.U[:, 0] - case.U[:, 1]
    close(case.operator.forward_difference(Q), naive_forward(case), dtype)
    close(case.operator.adjoint_difference(case.R), naive_adjoint(case)[:, 0], dtype)


def test_scores_and_back_take_scaled_data(case: Case, dtype: type) -> None:
    scaled = 3 * case.X
    U, S = case.U.astype(float), case.S.astype(float)
    close(
        case.operator.scores(case.U, scaled),
        np.einsum("kj,cbij->kcbi", scaled.astype(float), U),
        dtype,
    )
    close(
        case.operator.back(case.S, scaled),
        np.einsum("kj,kcbi->cbij", scaled.astype(float), S),
        dtype,
    )


def test_orient_twice_changes_nothing(case: Case) -> None:
    S = case.S
    np.testing.assert_array_equal(case.operator.orient(case.operator.orient(S)), S)
    np.testing.assert_array_equal(2 * case.operator.gate(S) - S, case.operator.orient(S))


def test_predictions_of_pairs_are_differences() -> None:
    rng = np.random.default_rng(0)
    X, mask = rng.standard_normal((7, 3)), rng.random((7, 4)) < 0.5
    pairs = np.array([[0, 1], [2, 1], [6, 0], [2, 1]])
    plain, op = GatedOperator(X, mask), PairedOperator(X, mask, pairs=pairs)
    U, R = rng.standard_normal((2, 1, 4, 3)), rng.standard_normal((4, 2))
    out = plain.forward(U)
    np.testing.assert_allclose(op.forward(U), [out[i] - out[j] for i, j in pairs])
    assert np.vdot(op.forward(U), R) == pytest.approx(np.vdot(U, op.adjoint(R, 1)))
    some = op.take(np.array([3, 2]))
    assert some.X.shape == (4, 3)
    np.testing.assert_allclose(some.forward(U), op.forward(U)[[3, 2]])


def test_programs_of_pairs_say_what_they_take() -> None:
    op = PairedOperator(np.eye(3), np.ones((3, 2), bool), pairs=np.array([[0, 1], [2, 1]]))
    y = np.ones((2, 1))
    program = ConvexProgram(op, y, 0.1, SquaredLoss(), SquaredL2(), None, "gated")
    program.check()
    with pytest.raises(TypeError, match="ProximalGradient takes no PairedOperator; use Ridge"):
        solve(program, ProximalGradient())
    for changed in (replace(program, skip=0.1), replace(program, formulation="relu")):
        with pytest.raises(ValueError, match="gated formulation without a linear part"):
            changed.check()
    with pytest.raises(ValueError, match="from 0 to 2"):
        replace(program, operator=replace(op, pairs=np.array([[0, 3], [2, 1]]))).check()
    with pytest.raises(TypeError, match="int64"):
        replace(program, operator=replace(op, pairs=np.ones((2, 2)))).check()
