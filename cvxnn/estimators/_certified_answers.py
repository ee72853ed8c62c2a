"""What a fit answers from its solution and proof: influence, constraints, rows to label next."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_classifier

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.estimators._certified import Certified, Solved
from cvxnn.estimators._given_rows import Kind, Unit, functional, influence_of
from cvxnn.estimators._parameters import PatternsParameter
from cvxnn.explanation import Influence
from cvxnn.network import fold_scaling, recover

_TINY = np.finfo(np.float64).tiny

Floats = NDArray[np.floating]


class CertifiedAnswers(Certified):
    """Certified estimator that says what its program would give for other data or bounds."""

    patterns: PatternsParameter

    def influence(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        leave_out: Unit = "row",
    ) -> Influence:
        r"""Return what each row, or each group, does to the fit: predictions without it.

        The closed form needs no further fit. For the squared loss it is exact; for another loss of
        separate outputs, Newton's first step is repeated with the same matrix, with a bound on what
        is missing (:mod:`cvxnn.training.left_out` has the equations). Patterns, scaling and
        ``alpha_`` stay those of the fit, and the penalty keeps its weight against each row that
        stays.

        Parameters
        ----------
        X, y : array-like
            Data of the fit.
        sample_weight : array-like, shape (n_samples,), optional
            Weights of the fit.
        groups : array-like, shape (n_samples,), optional
            Groups of the fit.
        leave_out : {"row", "group"}, default="row"
            Whether each row is left out or each group.

        Returns
        -------
        cvxnn.explanation.Influence
            ``doubt`` of each label, ``unseen`` predictions, and ``on(X)`` for other rows.

        Raises
        ------
        ValueError
            If the data are not those of the fit.
        TypeError
            Unless ``formulation="gated"``, ``penalty="l2"``, and the loss is squared, logistic or
            another of separate outputs.

        Notes
        -----
        With ``n`` distinct rows, time is about ``3 n**3`` flops for each distinct ``alpha_``, and
        ``6 n**3`` for each output and step; memory ``8 n**2 n_outputs`` bytes and a few kernels of
        ``8 n**2``.
        """
        held = self._as_it_is()
        return held._influence(held._solved(X, y, sample_weight, groups), leave_out)

    def constrained(
        self,
        X: ArrayLike,
        y: ArrayLike,
        constraints: Sequence[training.SideConstraint],
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Return the fit under side constraints on its predictions, with the price of each.

        Patterns, scaling, strength and calibration stay those of the fit; the weights are those
        of least objective that satisfy the constraints
        (:mod:`cvxnn.training.constrained_solution`).

        Parameters
        ----------
        X, y : array-like
            Data of the fit.
        constraints : sequence of cvxnn.training.SideConstraint
            Such as ``SideConstraint.uncorrelated(X, lengths)``, on any rows; of several outputs,
            each has to satisfy them.
        sample_weight : array-like, shape (n_samples,), optional
            Weights of the fit.
        groups : array-like, shape (n_samples,), optional
            Groups of the fit.

        Returns
        -------
        estimator
            A fitted copy, with ``network_``, ``objective_``, ``dual_bound_`` and ``gap_`` of the
            program with constraints, and ``prices_``, shape (n_constraints, n_outputs): what the
            objective, in scaled units, falls by for each unit that a bound gives way. An
            inequality whose price is 0 costs nothing.

        Raises
        ------
        ValueError
            If the data are not those of the fit, or constraints contradict each other.
        TypeError
            Unless ``formulation="gated"``, ``penalty="l2"`` and ``loss="squared"``.

        Notes
        -----
        With ``n`` distinct rows, time is about ``n**3 / 3`` flops for each distinct ``alpha_``,
        memory two kernels of ``n**2`` numbers.
        """
        return self._constrained(constraints, self._solved(X, y, sample_weight, groups))

    def next_labels(
        self,
        X: ArrayLike,
        y: ArrayLike,
        candidates: ArrayLike,
        n: int = 1,
        *,
        criterion: training.Criterion = "variance",
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> training.Asked:
        """Return the rows whose labels would inform the fit most.

        Each choice lowers the mean variance of the candidates' predictions most, given those before
        it, or is D-optimal (:mod:`cvxnn.training.labelling` has the equations).

        Parameters
        ----------
        X, y : array-like
            Data of the fit.
        candidates : array-like, shape (n_candidates, n_features)
            Rows that could be labelled.
        n : int, default=1
            How many to choose.
        criterion : {"variance", "determinant"}, default="variance"
            What the labels should do most: lower the mean variance of all candidates' predictions,
            or raise the determinant of the Hessian (D-optimal).
        sample_weight : array-like, shape (n_samples,), optional
            Weights of the fit.
        groups : array-like, shape (n_samples,), optional
            Groups of the fit.

        Returns
        -------
        cvxnn.training.Asked
            ``order``, the numbers of the chosen candidates, with the ``gain`` of each.

        Raises
        ------
        ValueError
            If the data are not those of the fit, or ``n`` is out of range.
        TypeError
            Unless ``formulation="gated"``, ``penalty="l2"``, and the loss is squared, logistic or
            another of separate outputs.
        """
        solved = self._solved(X, y, sample_weight, groups)
        return self._next_labels(solved, candidates, n, criterion)

    def _influence(self, solved: Solved, leave_out: Unit) -> Influence:
        """Return what each unit of the data does to a solution."""
        kind: Kind = "pairs" if solved.given.rows.ndim == 2 else "numbers"
        if kind != "pairs" and is_classifier(self):
            kind = "classes"
        found = influence_of(
            solved.certificate,
            solved.given,
            solved.scaling,
            solved.look,
            self._outputs,
            leave_out=leave_out,
            kind=kind,
            gates_of_targets=self.patterns in ("local", "adaptive"),
        )
        self._require_units(solved)
        return found

    def _next_labels(
        self,
        solved: Solved,
        rows: Any,
        n: int,
        criterion: training.Criterion,
        pairs: NDArray[np.intp] | None = None,
    ) -> training.Asked:
        """Return the rows, or pairs of them, whose labels would inform a solution most."""
        found = training.most_informative(
            solved.certificate, *solved.look(rows), n, criterion, pairs
        )
        self._require_units(solved)
        return found

    def _constrained(self, constraints: Sequence[training.SideConstraint], solved: Solved) -> Self:
        """Return a fitted copy that satisfies side constraints."""
        if isinstance(constraints, training.SideConstraint) or not np.iterable(constraints):
            raise TypeError(
                f"constraints is a {type(constraints).__name__}; expected a list of "
                "cvxnn.training.SideConstraint."
            )
        functionals = [functional(c, solved.look, solved.scaling) for c in constraints]
        if not functionals:
            raise ValueError("constraints is empty; expected at least one SideConstraint.")
        found = training.constrain(solved.certificate, functionals)
        model = self._with(solved, found.weights.blocks, found.objective, found.dual_bound)
        model.prices_ = found.prices
        return model

    def _with(self, solved: Solved, blocks: Any, objective: float, dual_bound: float) -> Self:
        """Return a fitted copy with other weights, those of another program."""
        self._require_units(solved)
        gates = self._proof["gates"]
        weights = convex.Weights(np.asarray(blocks, gates.dtype), None)
        network = recover(weights, bias=solved.bias, gates=gates)
        model = copy.deepcopy(self)
        model._take(fold_scaling(network, *solved.scaling))
        model.objective_, model.dual_bound_ = objective, dual_bound
        model.gap_ = (objective - dual_bound) / max(abs(objective), _TINY)
        model._proof = {}
        model.__dict__.pop("_sums", None)  # which know no constraints
        return model
