"""The certificate of a fit: its program, solution and proof, found again from the data."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from cvxnn import convex  # names load when first used: JAX is for fits only
from cvxnn.convex.patterns import Formulation
from cvxnn.convex.solver import Result, Solver
from cvxnn.estimators._given_rows import GivenRows
from cvxnn.estimators._rows import DistinctRows, Rows, groups_of, weights_of
from cvxnn.estimators._scaling import Scaled, Scaling, in_units
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.gates import open_where
from cvxnn.numerics.threads import limits_threads

# Most multipliers of cones that are kept for the certificate: 32 MiB.
_MOST_MULTIPLIERS = 2**22
_OTHER_DATA = (
    "X, y, sample_weight and groups are not those of the fit, or parameters were changed since: "
    "give the same data, and with early_stopping an integer random_state."
)


class OtherDataError(ValueError):
    """Data that are not those of a fit."""


# Rows at which units are compared.
_PROBES = 8

Floats = NDArray[np.floating]


def names_of(**given: Any) -> str:
    """Return the names of the data that were given, which a certificate needs again."""
    return " ".join(name for name, value in given.items() if value is not None)


class Solved(NamedTuple):
    """The program of a fit with its solution, and how data become rows of it.

    Attributes
    ----------
    certificate : Certificate
        Program, solution and proof.
    given : GivenRows
        The data of the fit, row by row or pair by pair.
    scaling : Scaling
        Units of the program.
    look : callable
        Takes raw rows to rows of the program and the gates that are open on them.
    bias : bool
        Whether rows of the program end with a one.
    """

    certificate: convex.Certificate
    given: GivenRows
    scaling: Scaling
    look: Callable[[Any], tuple[Rows, NDArray[np.bool_]]]
    bias: bool


class Certified:
    """Estimator whose fit is the solution of a convex program, with a proof that is kept."""

    formulation: Formulation
    skip: float | None
    fit_intercept: bool
    early_stopping: bool
    solver: Solver | None
    alpha_: float
    objective_: float
    dual_bound_: float
    gap_: float
    prices_: Floats
    network_: TwoLayerNetwork
    feature_factors_: Floats
    _proof: dict[str, Any]
    # Sums over rows that partial_fit keeps, if it was called.
    _sums: dict[str, Any]
    _scale: Callable[[Rows, Floats, Floats, convex.Loss], Scaled]
    _choose: Callable[..., Any]
    _network_input: Callable[[Any], Rows]

    def certificate(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> convex.Certificate:
        """Return the convex program of the fit, its solution, and the proof of ``dual_bound_``.

        Nothing has to be trusted: ``program.bound_of(dual)`` computes ``dual_bound_`` again, and
        ``program.evaluate(weights)`` the objective, up to rounding. The data are not kept, so
        they are given again.

        Parameters
        ----------
        X, y : array-like
            Data of the fit.
        sample_weight : array-like, shape (n_samples,), optional
            Weights of the fit.
        groups : array-like, shape (n_samples,), optional
            Groups of the fit.

        Returns
        -------
        cvxnn.convex.Certificate
            ``program``, ``weights`` and ``dual``, in scaled units, and in the precision of the
            proof: float64 where a solver on the host fitted rows in float32. ``dual`` is None for
            a ReLU network whose multipliers, ``2 n_samples n_outputs n_patterns_`` numbers, are
            more than 2**22; ``solve(program, solver, start=weights)`` finds others.

        Raises
        ------
        ValueError
            If the data are not those of the fit.
        """
        return self._solved(X, y, sample_weight, groups).certificate

    def _solved(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> Solved:
        """Return the program of the fit to these data, with its solution."""
        check_is_fitted(self)
        rows, loss = self._fitted_data(X, y, sample_weight, groups)
        held = self._held_scaling()
        if held is None:
            scaled = self._scale(rows.X, rows.y, rows.weight, loss)
            scaled = scaled.with_factors(rows.X, self.feature_factors_, bias=self.fit_intercept)
        else:
            scaled = in_units(rows.X, rows.y, rows.weight, held, bias=self.fit_intercept)
        inputs, targets, weight, scaling, _ = scaled
        n, bias = len(rows.place), self.fit_intercept
        own_weight = weights_of(sample_weight, n, inputs.dtype)
        given = GivenRows(np.arange(n), rows.place, own_weight, groups_of(groups, n))
        with self._as_given(sample_weight=sample_weight, groups=groups):
            certificate = self._proven(inputs, targets, weight, loss)
        return Solved(certificate, given, scaling, partial(self._look, scaling), bias)

    @contextmanager
    def _as_given(self, **now: Any) -> Iterator[None]:
        """Say which of the data the fit had, or had not, where others are refused."""
        try:
            yield
        except OtherDataError as error:
            known = getattr(self, "_given", None)
            if known is None:  # a saved fit of before
                raise
            had = known.split()
            missing = [name for name, value in now.items() if value is None and name in had]
            more = [name for name, value in now.items() if value is not None and name not in had]
            hints = [f" The fit was given {name}: pass {name}=..., too." for name in missing]
            hints += [f" The fit was given no {name}: leave it out." for name in more]
            raise OtherDataError("".join([str(error), *hints])) from None

    def _look(self, scaling: Scaling, new: Any) -> tuple[Rows, NDArray[np.bool_]]:
        """Return rows as they are given to ``predict`` in the form of :meth:`_program_rows`."""
        return self._program_rows(self._network_input(new), scaling)

    def _held_scaling(self) -> Scaling | None:
        """Return the units that the first call of ``partial_fit`` chose, if there was one."""
        if not hasattr(self, "_sums"):
            return None
        return Scaling(**{name: self._sums[f"scaling.{name}"] for name in Scaling._fields})

    def _program_rows(self, X: Rows, scaling: Scaling) -> tuple[Rows, NDArray[np.bool_]]:
        """Return raw rows as those of the program, with the gates that are open on them."""
        return self._seen(scaling.inputs(X, bias=self.fit_intercept))

    def _require_units(self, solved: Solved) -> None:
        """Refuse data that have the program of the fit, but are those of it in other units.

        Early stopping returns another iterate than the last one, whose network says nothing here.
        """
        if self.early_stopping:
            return
        scaling, network = solved.scaling, self._own_network()
        scale = np.where(np.isfinite(scaling.x_scale), scaling.x_scale, 0)
        steps = np.random.default_rng(0).standard_normal((_PROBES, len(scale)))
        probes = (scaling.x_mean + scale * steps).astype(scale.dtype)
        inputs, mask = self._program_rows(probes, scaling)
        blocks = np.asarray(solved.certificate.weights.blocks)[:, 0]
        sums = [
            np.tensordot(blocks, on[:, None] * x, 2) for x, on in zip(inputs, mask, strict=True)
        ]
        found = np.array(sums) * scaling.y_scale + scaling.y_mean
        known = network.forward(probes)
        terms = np.abs(probes) @ np.abs(network.hidden_weights.T) + np.abs(network.hidden_bias)
        rounding = np.finfo(probes.dtype).eps * (terms @ np.abs(network.output_weights)).max()
        unit = max(float(np.abs(known).max()), float(np.max(scaling.y_scale)))
        # Where rounding opens a gate, a probe tells nothing; most do.
        if not np.median(np.abs(found - known).max(axis=1)) <= 1e-3 * unit + 8 * rounding:
            raise OtherDataError(f"{_OTHER_DATA} They are in other units, or moved.")

    def _as_it_is(self) -> Self:
        """Return a copy that later fits of the estimator leave as it is."""
        return copy.copy(self)

    def _outputs(self, new: Any) -> Floats:
        """Return what the network of the program says of raw rows."""
        return self._own_network().forward(self._network_input(new))

    def _own_network(self) -> TwoLayerNetwork:
        """Return the network that the program stands for."""
        return self.network_

    def _take(self, network: TwoLayerNetwork) -> None:
        """Take another network of the same patterns in place of that of the fit."""
        self.network_ = network

    @limits_threads(lambda self, inputs, *_: self._product_flops(inputs))
    def _seen(self, inputs: Rows, seen: Rows | None = None) -> tuple[Rows, NDArray[np.bool_]]:
        """Return rows of the program with the gates that are open on them, or on ``seen``."""
        gates = self._proof["gates"].astype(inputs.dtype)
        return inputs, open_where(inputs if seen is None else seen, gates)

    def _product_flops(self, inputs: Rows) -> float:
        """Return the operations of a product of rows with all patterns."""
        return 2.0 * inputs.shape[0] * inputs.shape[1] * len(self._proof.get("gates", ()))

    @abstractmethod
    def _fitted_data(
        self, X: Any, y: Any, sample_weight: Any, groups: Any
    ) -> tuple[DistinctRows, convex.Loss]:
        """Return the rows of the program, and its loss, from the data of the fit."""

    def _proof_of(self, result: Result, gates: Floats, *, direct: bool) -> dict[str, Any]:
        """Return what :meth:`certificate` needs beside the data."""
        weights, dual = result.weights, result.dual
        proof: dict[str, Any] = {"gates": gates}
        # Of the closed form, which needs a penalty on all weights, they follow from the residual.
        closed = direct and (self.solver is None or isinstance(self.solver, convex.Ridge))
        if not (closed and np.all(self.alpha_ > 0) and self.skip != 0):
            proof |= {"blocks": weights.blocks, "linear": weights.linear}
        if dual is not None and np.size(dual.multipliers) <= _MOST_MULTIPLIERS:
            proof |= {"residual": dual.residual, "multipliers": dual.multipliers}
        return {name: np.asarray(part) for name, part in proof.items() if part is not None}

    @limits_threads(lambda self, inputs, *_, **__: self._product_flops(inputs))
    def _proven(
        self,
        inputs: Rows,
        targets: Floats,
        weight: Floats | None,
        loss: convex.Loss,
        pairs: NDArray[np.intp] | None = None,
        seen: Floats | None = None,
    ) -> convex.Certificate:
        """Return the certificate of the program of these data, in its units.

        Gates see the same rows as the weights, or those of ``seen``.
        """
        proof = self._proof
        if not proof:
            raise ValueError(
                "this fit has side constraints, or several objectives, so that it does not solve "
                "the program of a certificate; call certificate of the fit that it was made "
                "from, or see objective_ and dual_bound_."
            )
        inputs, mask = self._seen(inputs, seen)
        # A solver on the host works in float64, and what it proves of rows in float32 holds there.
        dtype = inputs.dtype
        if "residual" in proof:
            dtype = np.result_type(dtype, proof["residual"].dtype)
        inputs, targets = inputs.astype(dtype, copy=False), targets.astype(dtype, copy=False)
        weight = None if weight is None else weight.astype(dtype, copy=False)
        program = convex.ConvexProgram(
            convex.paired(inputs, mask, pairs),
            targets,
            self.alpha_,
            loss,
            self._choose(*inputs.shape).penalty,
            weight,
            self.formulation,
            self.skip,
        )
        dual = None
        if "residual" in proof:
            if len(proof["residual"]) != len(targets):
                raise OtherDataError(_OTHER_DATA)
            dual = convex.DualPoint(proof["residual"], proof.get("multipliers"))
        if "blocks" in proof:
            weights = convex.Weights(proof["blocks"], proof.get("linear"))
        else:
            assert dual is not None, "Ridge proves its bounds"
            stacked = program.stacked()
            blocks, linear = stacked.operator.split(stacked.slope(dual.residual), axis=2)
            if linear is not None:
                linear = linear[:, 0, 0] / self.skip
            weights = convex.Weights(blocks / np.reshape(self.alpha_, (-1, 1, 1, 1)), linear)
        if hasattr(self, "_sums"):
            dual = convex.DualPoint(np.asarray(program.evaluate(weights).residual), None)
            found = float(program.bound_of(dual))
            known = float(np.clip(found, self.dual_bound_, self.objective_))
        elif dual is None:
            found, known = float(program.evaluate(weights).network_objective), self.objective_
        else:
            found, known = float(program.bound_of(dual)), self.dual_bound_
        # Far above rounding, far below what other data change.
        room = 1e-4 * max(abs(known), program.rounding())
        if not abs(found - known) <= room:
            name = "a lower bound" if dual is not None else "an objective"
            raise OtherDataError(
                f"{_OTHER_DATA} They give {name} of {found + 0.0:.6g}, and those of the fit gave "
                f"{known + 0.0:.6g}."
            )
        return convex.Certificate(program, weights, dual)
