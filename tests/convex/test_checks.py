"""What is refused at the door: broken programs, and parts that contradict themselves."""

import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    DualPoint,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    LogisticLoss,
    MultinomialLoss,
    NeuronGroupLasso,
    Penalty,
    ProximalGradient,
    Ridge,
    SquaredL2,
    SquaredLoss,
    Weights,
    automatic,
    register_pytree,
    regularization_path,
    solve,
    solve_on_working_sets,
    solve_with_cvxpy,
)
from cvxnn.training import train

N, D, P = 9, 3, 4
rng = np.random.default_rng(0)
X = rng.standard_normal((N, D))
Y = rng.standard_normal((N, 2))
MASK = X @ rng.standard_normal((D, P)) >= 0


def make(**changes: Any) -> ConvexProgram:
    return replace(ConvexProgram(GatedOperator(X, MASK), Y, 0.05, formulation="gated"), **changes)


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[0] = np.nan
    return array


BROKEN: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "1-d targets": ({"y": Y[:, 0]}, ValueError, r"y has shape \(9,\); .* y\[:, None\]"),
    "targets of other rows": ({"y": Y[:5]}, ValueError, r"y has shape \(5, 2\); expected"),
    "no outputs": ({"y": Y[:, :0]}, ValueError, "at least one row and one output"),
    "integer targets": ({"y": Y.astype(int)}, TypeError, "y has dtype int64; expected float32"),
    "a list of targets": ({"y": Y.tolist()}, TypeError, "y is a list; expected an array"),
    "nan in y": ({"y": with_nan(Y)}, ValueError, "y holds NaN or infinite values"),
    "nan in X": ({"operator": GatedOperator(with_nan(X), MASK)}, ValueError, "X holds NaN"),
    "1-d X": ({"operator": GatedOperator(X[:, 0], MASK)}, ValueError, r"X has shape \(9,\)"),
    "mask of other rows": (
        {"operator": GatedOperator(X, MASK[:4])},
        ValueError,
        r"mask has shape \(4, 4\); expected \(n_samples, n_patterns\)",
    ),
    "mask of numbers": (
        {"operator": GatedOperator(X, MASK * 1.0)},
        TypeError,
        "mask has dtype float64; expected bool",
    ),
    "no operator": ({"operator": X}, TypeError, r"expected GatedOperator\(X, mask\)"),
    "weights of other rows": (
        {"sample_weight": np.ones(3)},
        ValueError,
        r"sample_weight has shape \(3,\)",
    ),
    "negative weights": ({"sample_weight": -np.ones(N)}, ValueError, "must be non-negative"),
    "zero weights": ({"sample_weight": np.zeros(N)}, ValueError, "not zero everywhere"),
    "alpha of text": ({"alpha": "auto"}, ValueError, "alpha='auto'; expected a finite number"),
    "negative alpha": ({"alpha": -1.0}, ValueError, "alpha=-1.0; expected a finite number"),
    "a penalty's name": ({"penalty": "l1"}, TypeError, "penalty='l1'; expected an instance"),
    "a penalty's class": ({"penalty": SquaredL2}, TypeError, "expected an instance of a penalty"),
    "a loss's name": ({"loss": "squared"}, TypeError, "loss='squared'; expected an instance"),
    "formulation": ({"formulation": "cone"}, ValueError, "formulation='cone'; expected one of"),
    "classes 0 and 1": (
        {"y": (Y > 0) * 1.0, "loss": LogisticLoss()},
        ValueError,
        r"targets -1 and 1, .* 2 \* y - 1",
    ),
    "no one-hot targets": ({"loss": MultinomialLoss()}, ValueError, "takes one-hot targets"),
    "delta": ({"loss": HuberLoss(0.0)}, ValueError, "delta=0.0; expected a finite number above 0"),
}
DOORS: dict[str, Any] = {
    "solve": lambda program: solve(program, ProximalGradient()),
    "automatic": lambda program: automatic(program, tol=1e-2),
    "path": lambda program: regularization_path(program, n_alphas=2),
    "working sets": solve_on_working_sets,
    "cvxpy": solve_with_cvxpy,
    "check": ConvexProgram.check,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_program_is_refused_at_every_door(kind: str, door: str) -> None:
    changes, error, message = BROKEN[kind]
    if door == "path" and "alpha" in changes:
        pytest.skip("a path has strengths of its own")
    with pytest.raises(error, match=message):
        DOORS[door](make(**changes))


def test_arrays_of_another_program_are_refused() -> None:
    program = make()
    shape = (2, 1, P, D)
    for weights in (Weights(np.zeros((2, 2, P, D))), Weights(np.zeros(shape), np.zeros((2, D)))):
        for use in (program.evaluate, lambda w: solve(program, ProximalGradient(), start=w)):
            with pytest.raises(ValueError, match=r"weights\..* has shape .*program\.zeros\(\)"):
                use(weights)
    with pytest.raises(ValueError, match=r"dual\.residual has shape"):
        program.bound_of(DualPoint(Y[:, :1], None))
    with pytest.raises(ValueError, match="expected None in the gated formulation"):
        program.bound_of(DualPoint(Y, np.zeros((N, 2, 2, P))))
    with pytest.raises(ValueError, match=r"y\[:, None\]"):
        replace(program, y=Y[:, 0]).alpha_max()


@pytest.mark.parametrize("solver", ["cronos", Cronos, None])
def test_what_is_no_solver_is_refused(solver: Any) -> None:
    with pytest.raises(TypeError, match=r"solver=.*such as Cronos\(\)"):
        solve(make(), solver)


@pytest.mark.parametrize("problem", [None, "program", SquaredLoss(), {}])
def test_what_is_no_problem_is_refused(problem: Any) -> None:
    with pytest.raises(TypeError, match="expected a ConvexProgram"):
        solve(problem, ProximalGradient())


def test_options_out_of_range_are_refused() -> None:
    for tol in (-1, np.nan, np.inf, "small"):
        with pytest.raises(ValueError, match=r"tol=.*expected a finite number of at least 0"):
            automatic(make(), tol=tol)
    with pytest.raises(ValueError, match="max_iter=0; expected None or at least 1"):
        automatic(make(), tol=0.1, max_iter=0)
    for limit in (-1, np.nan):
        with pytest.raises(ValueError, match=r"time_limit=.*expected None or seconds"):
            solve(make(), ProximalGradient(), time_limit=limit)


def test_training_refuses_before_it_begins() -> None:
    with pytest.raises(ValueError, match=r"y\[:, None\]"):
        train(X, Y[:, 0], 0.1, 4)
    with pytest.raises(ValueError, match="y holds NaN"):
        train(X, with_nan(Y), 0.1, 4)


# Losses and penalties that contradict themselves ----------------------------------------------


class TenthOfRidge:
    """A penalty of the user, from which mistakes are made."""

    def value(self, U: Any) -> Any:
        return 0.05 * (U**2).sum()

    def prox(self, U: Any, step: Any) -> Any:
        return U / (1 + 0.1 * step)

    def conjugate(self, U: Any) -> Any:
        return 5 * (U.reshape(len(U), -1) ** 2).sum(axis=1)


class ConjugateOfTheRidge(TenthOfRidge):
    """The case of a false certificate: a bound of .0682 above an optimum of .0535."""

    def conjugate(self, U: Any) -> Any:
        return SquaredL2().conjugate(U)


class WrongProx(TenthOfRidge):
    def prox(self, U: Any, step: Any) -> Any:
        return U / (1 + step)


class OneNumber(TenthOfRidge):
    def conjugate(self, U: Any) -> Any:
        return 5 * (U**2).sum()


class WrongNorm(NeuronGroupLasso):
    """Twice the norm, whose dual norm is inherited."""

    def value(self, U: Any) -> Any:
        return 2 * super().value(U)

    def prox(self, U: Any, step: Any) -> Any:
        return super().prox(U, 2 * step)


class HalfNorm(NeuronGroupLasso):
    def value(self, U: Any) -> Any:
        return super().value(U) / 2

    def prox(self, U: Any, step: Any) -> Any:
        return super().prox(U, step / 2)


def own(part: type) -> Any:
    """An instance of a fresh class: one is registered once."""
    return register_pytree(dataclass(frozen=True)(type(part.__name__, (part,), {})))()


WRONG_PENALTIES = {
    ConjugateOfTheRidge: (ValueError, "value, prox and conjugate contradict each other"),
    WrongProx: (ValueError, "value, prox and conjugate contradict each other"),
    OneNumber: (ValueError, r"conjugate has shape \(\).* expected \(2,\), one number for each"),
    WrongNorm: (ValueError, "value, prox and dual_norm contradict each other"),
    HalfNorm: (ValueError, "value, prox and dual_norm contradict each other"),
}


@pytest.mark.parametrize("part", WRONG_PENALTIES)
def test_a_penalty_that_contradicts_itself_certifies_nothing(part: type) -> None:
    error, message = WRONG_PENALTIES[part]
    for formulation, solver in (("gated", ProximalGradient()), ("relu", Cronos())):
        with pytest.raises(error, match=message):
            solve(make(penalty=own(part), formulation=formulation), solver)


def test_a_penalty_has_to_declare_its_duality() -> None:
    @register_pytree
    @dataclass(frozen=True)
    class Undeclared:
        def value(self, U: Any) -> Any:
            return TenthOfRidge().value(U)

        def prox(self, U: Any, step: Any) -> Any:
            return TenthOfRidge().prox(U, step)

    assert isinstance(Undeclared(), Penalty)
    with pytest.raises(TypeError, match="Undeclared has neither dual_norm nor conjugate"):
        solve(make(penalty=Undeclared()), ProximalGradient())
    with pytest.raises(TypeError, match=r"TenthOfRidge is no pytree.*register_pytree"):
        solve(make(penalty=TenthOfRidge()), ProximalGradient())


class DoubledConjugate(SquaredLoss):
    def conjugate(self, dual: Any, target: Any) -> Any:
        return 2 * super().conjugate(dual, target)


class Doubled(SquaredLoss):
    """Consistent but for its curvature."""

    def value(self, prediction: Any, target: Any) -> Any:
        return (prediction - target) ** 2

    def gradient(self, prediction: Any, target: Any) -> Any:
        return 2 * (prediction - target)

    def conjugate(self, dual: Any, target: Any) -> Any:
        return dual**2 / 4 + dual * target


class Falling(Doubled):
    curvature: ClassVar[float] = 2.0

    def gradient(self, prediction: Any, target: Any) -> Any:
        return 2 * (target - prediction)


class OfRows(Doubled):
    coupled: ClassVar[bool] = True
    curvature: ClassVar[float] = 2.0


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (DoubledConjugate, "value, gradient and conjugate contradict each other"),
        (Doubled, "curvature=1.0 is too small: the gradient changes by 2 times as much"),
        (Falling, "value, gradient and conjugate contradict each other"),
        (OfRows, r"value and conjugate have shapes \(9, 2\).*expected \(9, 1\)"),
    ],
)
def test_a_loss_that_contradicts_itself_certifies_nothing(part: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(make(loss=own(part)), ProximalGradient())


def test_a_loss_without_all_methods_is_named() -> None:
    class Value:
        def value(self, prediction: Any, target: Any) -> Any:
            return 0 * prediction

    message = re.escape("It has no conjugate, coupled, curvature, dual_scale, gradient, hessian.")
    with pytest.raises(TypeError, match=message):
        solve(make(loss=Value()), ProximalGradient())


@pytest.mark.parametrize("solver", [InteriorPoint(), Ridge()])
def test_closed_formulas_are_for_the_classes_that_they_belong_to(solver: Any) -> None:
    """A subclass may be another function: solvers that would ignore that refuse it."""

    class Half(SquaredL2):
        def value(self, U: Any) -> Any:
            return super().value(U) / 2

        def prox(self, U: Any, step: Any) -> Any:
            return super().prox(U, step / 2)

        def conjugate(self, U: Any) -> Any:
            return 2 * super().conjugate(U)

    program = make(penalty=own(Half))
    with pytest.raises(TypeError, match=r"use .*ProximalGradient"):
        solve(program, solver)
    assert isinstance(automatic(program, tol=1e-3), ProximalGradient)
    with pytest.raises(TypeError, match=r"not .*Half"):
        solve_with_cvxpy(program)
    half = solve(program, automatic(program, tol=1e-8))
    same = solve(make(penalty=SquaredL2(), alpha=0.025), Ridge())
    assert half.objective == pytest.approx(same.objective, rel=1e-7)
    assert half.dual_bound <= same.objective * (1 + 1e-9)
