"""The certificate of a preference head, what each pair does to it, and fits under constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.estimators._certified import Solved
from cvxnn.estimators._distinct_pairs import DistinctPairs
from cvxnn.estimators._given_rows import GivenRows, Unit
from cvxnn.estimators._incremental_pairs import IncrementalPairs
from cvxnn.estimators._pair_columns import ColumnFactors
from cvxnn.estimators._responses import Responses
from cvxnn.estimators._rows import DistinctRows, Rows, groups_of, labels_of, merge, weights_of
from cvxnn.estimators._scaling import Scaling
from cvxnn.estimators.trade_off import TradeOff
from cvxnn.explanation import Influence
from cvxnn.network import TwoLayerNetwork


class PairCertified(IncrementalPairs):
    """Preference head whose first phase is the solution of a convex program, of pairs or rows."""

    classes_: NDArray[Any]
    n_pairs_: int
    phase1_network_: TwoLayerNetwork

    def certificate(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        pair_id: ArrayLike | None = None,
    ) -> convex.Certificate:
        """Return the convex program of phase I, its solution, and the proof of ``dual_bound_``.

        Nothing has to be trusted: ``program.bound_of(dual)`` computes ``dual_bound_`` again, and
        ``program.evaluate(weights)`` the objective, up to rounding. The data are not kept, so
        they are given again.

        Parameters
        ----------
        X, y : array-like
            Embeddings and labels of the fit; after ``fit_pairs``, the chosen embeddings followed
            by the rejected ones, labelled 1 and 0.
        sample_weight : array-like, shape (n_samples,), optional
            Weights of the fit; after ``fit_pairs``, those of the pairs twice.
        groups : array-like, shape (n_samples,), optional
            Groups of the fit; after ``fit_pairs``, those of the pairs twice.
        pair_id : array-like, shape (n_samples,), optional
            As in ``fit``; it is not needed after ``fit_pairs``.

        Returns
        -------
        cvxnn.convex.Certificate
            ``program``, ``weights`` and ``dual``, in scaled units. ``dual`` is None for a ReLU
            network whose multipliers, ``2 n_samples n_patterns_`` numbers, are more than 2**22;
            ``solve(program, solver, start=weights)`` finds others.

        Raises
        ------
        ValueError
            If the data are not those of the fit.
        """
        return self._solved(X, y, sample_weight, groups, pair_id).certificate

    def influence(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        pair_id: ArrayLike | None = None,
        leave_out: Unit = "row",
    ) -> Influence:
        """Return what each pair, response or group does to phase I: rewards without it.

        The closed form needs no further fit; :mod:`cvxnn.training.left_out` has the equations.
        Gates, scaling and ``alpha_`` stay those of the fit, and so does the scale of phase II,
        which is not part of the predictions: pairs are fitted to a difference of 1.

        Parameters
        ----------
        X, y, sample_weight, groups : array-like
            Data of the fit, as for :meth:`certificate`.
        pair_id : array-like, shape (n_samples,), optional
            As in ``fit``; it is not needed after ``fit_pairs``.
        leave_out : {"row", "group"}, default="row"
            Whether each pair (without pairs, each response) is left out, or each group.

        Returns
        -------
        cvxnn.explanation.Influence
            ``doubt`` of each pair, ``unseen`` differences of rewards, and ``on(X)`` for other
            responses.

        Raises
        ------
        ValueError
            If the data are not those of the fit.
        TypeError
            With ``formulation="relu"``, which has no such form.
        """
        held = self._as_it_is()
        return held._influence(held._solved(X, y, sample_weight, groups, pair_id), leave_out)

    def constrained(
        self,
        X: ArrayLike,
        y: ArrayLike,
        constraints: Sequence[training.SideConstraint],
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        pair_id: ArrayLike | None = None,
    ) -> Self:
        """Return the head under side constraints on its logit, with the price of each.

        Gates, scaling and strength stay those of phase I, whose weights become those of least
        objective that satisfy the constraints (:mod:`cvxnn.training.constrained_solution`). The
        scale of phase II stays too.

        Parameters
        ----------
        X, y, sample_weight, groups : array-like
            Data of the fit, as for :meth:`certificate`.
        constraints : sequence of cvxnn.training.SideConstraint
            Such as ``SideConstraint.not_rising(X, lengths)``: bounds that are not 0 are in units of
            phase I, which asks for a difference of 1.
        pair_id : array-like, shape (n_samples,), optional
            As in ``fit``; it is not needed after ``fit_pairs``.

        Returns
        -------
        COALAPreferenceHead
            A fitted copy, with ``network_``, ``phase1_network_``, ``objective_``, ``dual_bound_``
            and ``gap_`` of the program with constraints, and ``prices_``, shape
            (n_constraints, 1): what the objective falls by for each unit that a bound gives way.

        Raises
        ------
        ValueError
            If the data are not those of the fit, or constraints contradict each other.
        TypeError
            With ``formulation="relu"``, which has no such form.
        """
        solved = self._solved(X, y, sample_weight, groups, pair_id)
        return self._constrained(constraints, solved)

    def next_labels(
        self,
        X: ArrayLike,
        y: ArrayLike,
        candidates: ArrayLike | tuple[ArrayLike, ArrayLike],
        n: int = 1,
        *,
        criterion: training.Criterion = "variance",
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        pair_id: ArrayLike | None = None,
    ) -> training.Asked:
        """Return the pairs whose preferences would inform phase I most.

        Each choice lowers the mean variance of the candidates' margins most, given those before it,
        or is D-optimal (:mod:`cvxnn.training.labelling` has the equations). Which reply will be
        preferred does not matter.

        Parameters
        ----------
        X, y, sample_weight, groups : array-like
            Data of the fit, as for :meth:`certificate`.
        candidates : tuple of two array-like, shape (n_candidates, n_features)
            Embeddings of the first replies and of the second ones. Of a head that was fitted
            without pairs, single replies.
        n : int, default=1
            How many to choose.
        criterion : {"variance", "determinant"}, default="variance"
            What the labels should do most: lower the mean variance of all candidates' predictions,
            or raise the determinant of the Hessian (D-optimal).
        pair_id : array-like, shape (n_samples,), optional
            As in ``fit``; it is not needed after ``fit_pairs``.

        Returns
        -------
        cvxnn.training.Asked
            ``order``, the numbers of the chosen candidates, with the ``gain`` of each.

        Raises
        ------
        ValueError
            If the data are not those of the fit, or ``n`` is out of range.
        TypeError
            With ``formulation="relu"``, which has no such form.
        """
        solved = self._solved(X, y, sample_weight, groups, pair_id)
        if self.n_pairs_ == 0:
            return self._next_labels(solved, candidates, n, criterion)
        if not (isinstance(candidates, tuple | list) and len(candidates) == 2):
            raise TypeError(
                "the head was fitted to pairs: expected candidates=(first, second), the embeddings "
                f"of both replies, not a {type(candidates).__name__}."
            )
        first, second = (np.asarray(part) for part in candidates)
        if first.shape != second.shape:
            raise ValueError(
                f"candidates have shapes {first.shape} and {second.shape}; expected one row of "
                "each for every pair."
            )
        rows = np.arange(len(first))
        pairs = np.column_stack([rows, rows + len(rows)])
        return self._next_labels(solved, np.concatenate([first, second]), n, criterion, pairs)

    def trade_off(
        self,
        X: ArrayLike,
        y: ArrayLike,
        objectives: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        pair_id: ArrayLike | None = None,
    ) -> TradeOff:
        """Return the exact trade-off between several objectives, such as helpful and harmless.

        Each objective is the squared loss of phase I over its own pairs. Gates, scaling, strength
        and the scale of phase II stay those of the head, which was fitted to all pairs.

        Parameters
        ----------
        X, y, sample_weight, groups : array-like
            Data of the fit, as for :meth:`certificate`.
        objectives : array-like, shape (n_samples,)
            Label of the objective of each response, the same for both of a pair. After
            ``fit_pairs``, those of the pairs twice.
        pair_id : array-like, shape (n_samples,), optional
            As in ``fit``; it is not needed after ``fit_pairs``.

        Returns
        -------
        cvxnn.estimators.trade_off.TradeOff
            Makes a head for weights of the objectives, or for thresholds on their losses.

        Raises
        ------
        ValueError
            If the data are not those of the fit, two responses of a pair have different objectives,
            or there are not at least two.
        TypeError
            With ``formulation="relu"``, or of a head that was fitted without pairs.
        """
        held = self._as_it_is()
        solved = held._solved(X, y, sample_weight, groups, pair_id)
        if self.formulation != "gated" or self.n_pairs_ == 0:
            raise TypeError(
                "trade_off needs formulation='gated' and a head that was fitted to pairs "
                "(fit_pairs, or pair_id)."
            )
        held._require_units(solved)
        return TradeOff.of(held, solved, X, objectives)

    def _solved(
        self, X: Any, y: Any, sample_weight: Any, groups: Any, pair_id: Any = None
    ) -> Solved:
        """Return the program of phase I, with its solution."""
        check_is_fitted(self)
        if self.n_pairs_ == 0:
            return super()._solved(X, y, sample_weight, groups)
        rows, kept = self._responses(X, y, sample_weight, groups, pair_id)
        assert rows.pairs is not None
        assert rows.pair_weight is not None
        pairs, columns, held = DistinctPairs.of(rows), self._columns, self._held_scaling()
        numbers = None if rows.groups is None else rows.groups[rows.pairs[:, 0]]
        given = GivenRows(kept[rows.pairs], pairs.place, rows.pair_weight, numbers)
        if held is None:
            settings = {"standardize": self.standardize, "fit_intercept": self.fit_intercept}
            scaling = pairs.scaling(**settings)
        else:
            scaling = held
        if held is None and not columns.alike:
            factors = ColumnFactors(getattr(self, "block_factors_", None), self.uses_context_)
            scaling = scaling.with_factors(columns.each(factors, len(scaling.x_scale)))
        seen = scaling.inputs(pairs.X, bias=False)
        with self._as_given(sample_weight=sample_weight, groups=groups):
            certificate = self._proven(
                columns.weighted(seen),
                pairs.targets,
                pairs.sample_weight,
                convex.SquaredLoss(),
                pairs.pairs,
                seen,
            )
        return Solved(certificate, given, scaling, partial(self._look, scaling), bias=False)

    def _program_rows(self, X: Rows, scaling: Scaling) -> tuple[Rows, NDArray[np.bool_]]:
        """Return raw rows as those of the program, with the gates that are open on them."""
        if not self.n_pairs_:
            return super()._program_rows(X, scaling)
        seen = scaling.inputs(X, bias=False)
        return self._seen(self._columns.weighted(seen), seen)

    def _own_network(self) -> TwoLayerNetwork:
        """Return the network of phase I."""
        return self.phase1_network_

    def _take(self, network: TwoLayerNetwork) -> None:
        """Take another network of phase I, at the scale that phase II chose."""
        scale, bias = self._scale_of_rewards(), self.network_.output_bias
        self.phase1_network_ = network
        self.network_ = replace(
            network, output_weights=network.output_weights * scale, output_bias=bias
        )

    def _scale_of_rewards(self) -> Any:
        """Return the factor by which phase II multiplies the network of phase I."""
        before, after = self.phase1_network_.output_weights, self.network_.output_weights
        if before.size == 0:
            raise ValueError(
                "the head has no neurons and rewards all replies alike; fit it to replies whose "
                "embeddings differ, or with a smaller strength."
            )
        largest = int(np.abs(before).argmax())
        return after[largest] / before[largest]

    def _fitted_data(
        self, X: Any, y: Any, sample_weight: Any, groups: Any
    ) -> tuple[DistinctRows, convex.Loss]:
        """Return the rows of the program, and its loss, from the data of the fit."""
        data, labels = self._validate(X, y, reset=False)
        weight = weights_of(sample_weight, len(data), data.dtype)
        rows = Responses(data, labels == self.classes_[1], weight)
        numbers = groups_of(groups, len(data))
        return merge(data, rows.signs, weight, numbers), convex.SquaredLoss()

    def _responses(
        self, X: Any, y: Any, sample_weight: Any, groups: Any, pair_id: Any
    ) -> tuple[Responses, NDArray[np.intp]]:
        """Return the responses of the fit, with their pairs, and the rows that they were given in.

        Those without weight are not among them.
        """
        data, labels = self._validate(X, y, reset=False)
        weight = weights_of(sample_weight, len(data), data.dtype)
        keep, numbers = np.flatnonzero(weight > 0), groups_of(groups, len(data))
        rows = Responses(data, labels == self.classes_[1], weight, groups=numbers).take(keep)
        if pair_id is not None:
            return rows.paired_by(labels_of(pair_id, len(data), "pair_id")[1][keep]), keep
        return rows.paired_in_halves(), keep
