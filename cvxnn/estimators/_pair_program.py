"""The convex program of a preference head on pairs: many gates, and one linear system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sklearn.utils import check_random_state

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.estimators._base import ConvexReLUBase
from cvxnn.estimators._distinct_pairs import DistinctPairs
from cvxnn.estimators._fit_plan import Plan
from cvxnn.estimators._pair_columns import PairColumns

_MOST_PAIRS = 1024  # that the choice of a strength looks at


class PairProgram(ConvexReLUBase):
    """Estimator whose rewards differ by 1 between chosen and rejected responses."""

    loss: Literal["pairwise", "pointwise"]
    blocks: Sequence[int] | None
    context: int | None
    embedding: Mapping[str, Any] | None

    def _plan_pairs(self, rows: DistinctPairs) -> Plan:
        """Plan the fit of a gated network whose rewards differ by 1 between chosen and rejected."""
        rng = check_random_state(self.random_state)
        scaling = rows.scaling(standardize=self.standardize, fit_intercept=self.fit_intercept)
        columns = self._columns
        # An offset of the gates costs accuracy, and no margin knows an intercept.
        seen = scaling.inputs(rows.X, bias=False)
        factors = columns.choose_factors(seen, rows, rng)
        self.uses_context_ = factors.uses_context
        if factors.blocks is not None:
            self.block_factors_ = factors.blocks
        if not columns.alike:
            scaling = scaling.with_factors(columns.each(factors, seen.shape[1]))
            seen = scaling.inputs(rows.X, bias=False)
        shape, (penalty, origin, n_patterns) = seen.shape, self._choose(*seen.shape)
        if origin in ("local", "adaptive", "thresholds"):
            raise ValueError(
                f"patterns={origin!r} of the gated formulation needs responses without pairs; use "
                "patterns='gaussian' or 'data', or formulation='relu'."
            )
        if self.strength == 0:
            raise ValueError(
                "strength=0 of the gated formulation needs responses without pairs; use a positive "
                "one, which may be tiny, such as strength=1e-9, or formulation='relu'."
            )
        if self.solver is not None and not self.solver.takes_pairs:
            raise TypeError(
                f"{type(self.solver).__name__} in the gated formulation needs responses without "
                "pairs; use solver=None or Ridge(), or formulation='relu'."
            )
        uses_context = factors.uses_context
        found = columns.draw_gates(seen, n_patterns, origin, rng, uses_context=uses_context)
        inputs = columns.weighted(seen)
        operator = convex.PairedOperator(inputs, found.mask, pairs=rows.pairs)
        loss, weight = convex.SquaredLoss(), rows.sample_weight
        program = convex.ConvexProgram(operator, rows.targets, 0.0, loss, penalty, weight, "gated")
        measured = training.measure_strength(
            program,
            self.strength,
            rng,
            units=rows.several_units,
            groups=rows.groups,
            most=_MOST_PAIRS,
        )
        arguments = {
            "X": inputs,
            "y": rows.targets,
            "alpha": measured.alpha,
            "n_patterns": n_patterns,
            "sample_weight": weight,
            "skip": None,
            "patterns": found,
            "bias": False,
            "pairs": rows.pairs,
            "kernel": measured.kernel,
            "solver": self.solver,
            "tol": self.tol,
            "max_iter": self.max_iter,
        }
        request = self._request(*shape, n_outputs=1)
        return Plan(training.fit_direct, arguments, scaling, measured, request)

    @property
    def _columns(self) -> PairColumns:
        """What the columns of the embeddings stand for."""
        context = self.context
        if context is None:
            pairwise = self.formulation == "gated" and self.loss == "pairwise"
            described = {} if self.embedding is None or not pairwise else self.embedding
            context = int(described.get("context", 0))
        return PairColumns(self.blocks, context)
