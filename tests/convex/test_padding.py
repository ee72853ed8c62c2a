"""Padding: rounder shapes, the same optimum, one compilation for folds of nearly equal size."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    DualPoint,
    GatedOperator,
    HuberLoss,
    LogisticLoss,
    Loss,
    MultinomialLoss,
    ProximalGradient,
    SquaredLoss,
    _padding,
    loop,
    solve,
)
from cvxnn.numerics.jax_import import precision

D, C = 3, 2
LOSSES: dict[str, Loss] = {
    "squared": SquaredLoss(),
    "huber": HuberLoss(0.5),
    "logistic": LogisticLoss(),
    "multinomial": MultinomialLoss(),
}
CRONOS = Cronos(linear_solver="dual", certify="program", tol=1e-6, max_iter=5000)
GRADIENT = ProximalGradient(tol=1e-6, max_iter=5000)


def make(
    n: int = 13,
    P: int = 5,
    loss: str = "squared",
    *,
    formulation: Any = "relu",
    skip: float | None = None,
    weighted: bool = False,
) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, D))
    y = np.maximum(X @ rng.standard_normal((D, C)), 0) + 0.3 * rng.standard_normal((n, C)) - 0.3
    if loss == "logistic":
        y = np.where(y >= 0, 1.0, -1.0)
    elif loss == "multinomial":
        y = np.eye(C)[y.argmax(axis=1)]
    mask = X @ rng.standard_normal((D, P)) >= 0
    weight = rng.exponential(size=n) if weighted else None
    program = ConvexProgram(
        GatedOperator(X, mask), y, 0.03, LOSSES[loss], sample_weight=weight, formulation=formulation
    )
    return program if skip is None else replace(program, skip=skip)


@given(n=st.integers(0, 10**7))
def test_rounding_up_is_small_and_settles(n: int) -> None:
    rounded = _padding.bucket(n)
    assert n <= rounded <= max(n + 7, n * 17 / 16)
    assert _padding.bucket(rounded) == rounded
    assert _padding.bucket(n + 1) >= rounded


def test_few_sizes_are_left() -> None:
    assert len({_padding.bucket(n) for n in range(1000, 2000)}) <= 20


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("skip", [None, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_padded_program_is_the_same_program(
    loss: str, formulation: Any, skip: float | None, weighted: bool
) -> None:
    program = make(loss=loss, formulation=formulation, skip=skip, weighted=weighted).stacked()
    padded = _padding.pad(program, _padding.bucket(13))
    n, P = padded.operator.mask.shape
    assert (n, P) == (16, 8)
    assert padded.y.shape == (n, C)
    if skip is not None:
        assert padded.operator.mask[:13, -1].all()
    rng = np.random.default_rng(1)
    U = rng.standard_normal(program.stacked_shape)
    wide = _padding.pad_weights(program, U)
    assert wide.shape == padded.stacked_shape
    np.testing.assert_array_equal(_padding.unpad_weights(program, wide), U)
    before, after = program.evaluate(U), padded.evaluate(wide)
    for name in ("objective", "network_objective", "violation"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-12, abs=1e-15)
    multipliers = None
    if formulation == "relu":
        multipliers = rng.exponential(size=(13, C, 2, program.operator.n_patterns))
    dual = DualPoint(before.residual, multipliers)
    wide_dual = _padding.pad_dual(program, dual, 16)
    assert wide_dual is not None
    # As in what a solver finds: rows that do not count have a gradient all the same.
    wide_dual = wide_dual._replace(residual=np.r_[wide_dual.residual[:13], after.residual[13:]])
    assert padded.bound_of(wide_dual) == pytest.approx(program.bound_of(dual), rel=1e-12)
    back = _padding.unpad_dual(program, wide_dual)
    assert back is not None
    np.testing.assert_array_equal(back.residual, dual.residual)
    if multipliers is not None:
        np.testing.assert_array_equal(back.multipliers, multipliers)
    assert _padding.pad_dual(program, None, 16) is _padding.unpad_dual(program, None) is None


def test_round_shapes_are_left_alone() -> None:
    program = make(n=16, P=8)
    padded = _padding.pad(program, 16)
    np.testing.assert_array_equal(padded.operator.X, program.operator.X)
    np.testing.assert_array_equal(padded.operator.mask, program.operator.mask)
    np.testing.assert_allclose(padded.share[:, 0], 1 / 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "solver"),
    [
        ({}, CRONOS),
        ({"weighted": True, "skip": 0.1}, CRONOS),
        ({"loss": "huber", "formulation": "gated"}, GRADIENT),
        ({"loss": "multinomial", "formulation": "gated", "skip": 0.1}, GRADIENT),
    ],
)
def test_padding_changes_no_optimum(
    options: dict[str, Any], solver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make(**options)
    rounded = solve(program, solver)
    for name, same in (("pad", 0), ("pad_weights", 1), ("pad_dual", 1)):
        monkeypatch.setattr(loop, name, lambda *args, same=same: args[same])
    for name in ("unpad_weights", "unpad_dual"):
        monkeypatch.setattr(loop, name, lambda _, value: value)
    plain = solve(program, solver)
    outputs, signs, _, d = program.stacked_shape
    blocks = (outputs, signs, program.operator.mask.shape[1], d)
    assert plain.weights.blocks.shape == rounded.weights.blocks.shape == blocks
    for result in (plain, rounded):
        linear = result.weights.linear
        assert (None if linear is None else linear.shape) == ((C, d) if "skip" in options else None)
    assert rounded.objective == pytest.approx(plain.objective, rel=3e-6)
    # The objective of the program may be that of weights slightly outside its cones.
    last = plain.history.get("network_objective", [plain.objective])[-1]
    assert max(plain.dual_bound, rounded.dual_bound) <= last * (1 + 1e-9)
    assert plain.dual is not None
    assert rounded.dual is not None
    assert rounded.dual.residual.shape == plain.dual.residual.shape == (13, C)
    if program.formulation == "relu":
        expected = (13, C, 2, program.operator.n_patterns)
        assert rounded.dual.multipliers.shape == expected
    assert program.bound_of(rounded.dual) == pytest.approx(rounded.dual_bound, rel=1e-9)


@pytest.mark.slow
def test_folds_of_nearly_equal_size_compile_once(compilations: Callable[[], int]) -> None:
    few = replace(GRADIENT, max_iter=20)
    before = compilations()
    first = solve(make(n=33, P=9, formulation="gated"), few)
    once = compilations()
    assert once > before
    second = solve(make(n=34, P=12, formulation="gated"), few)
    weighted = solve(make(n=40, P=16, formulation="gated", weighted=True), few)
    # A start, from NumPy or JAX arrays, is one compilation of the first state.
    assert compilations() == once
    assert first.weights.blocks.shape[2] == 9
    assert second.weights.blocks.shape[2] == 12
    assert weighted.weights.blocks.shape[2] == 16
    with precision(np.float64):
        program = jax.tree.map(jnp.asarray, make(n=35, P=10, formulation="gated"))
    once = compilations()
    assert solve(program, few).weights.blocks.shape[2] == 10
    assert compilations() == once
    solve(make(n=41, P=16, formulation="gated"), few)
    assert compilations() > once


@pytest.mark.slow
def test_a_warm_start_fits_where_it_came_from() -> None:
    program = make(n=33, P=9, formulation="gated", skip=0.1)
    first = solve(program, GRADIENT)
    again = solve(program, GRADIENT, start=first)
    assert again.n_iter <= GRADIENT.check_every
    assert again.objective <= first.objective * (1 + 1e-12)
    np.testing.assert_allclose(again.weights.blocks, first.weights.blocks, atol=1e-4)
