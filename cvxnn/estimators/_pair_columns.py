"""Columns of embeddings of pairs: blocks with factors of their own, and those of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.estimators._distinct_pairs import DistinctPairs
from cvxnn.numerics.stored_rows import is_stored

# Pairs that the choice of factors looks at; blocks take many looks.
_MOST_PAIRS, _MOST_PAIRS_OF_BLOCKS = 1024, 512

Floats = NDArray[np.floating]


class ColumnFactors(NamedTuple):
    """What columns are multiplied by.

    Attributes
    ----------
    blocks : ndarray, shape (n_blocks,), or None
        Factor of each block; None where there are no blocks.
    uses_context : bool
        Whether gates look at the context.
    """

    blocks: NDArray[np.float64] | None = None
    uses_context: bool = False


class PairColumns(NamedTuple):
    """What the columns of embeddings stand for.

    Attributes
    ----------
    blocks : sequence of int, or None
        Widths of neighbouring columns that describe the response and have a strength of their own.
    n_context : int
        Number of last columns, which describe the prompt: they have gates and no weights.
    """

    blocks: Sequence[int] | None
    n_context: int

    @property
    def alike(self) -> bool:
        """Whether all columns are of one kind, so that there is nothing to choose."""
        return self.blocks is None and not self.n_context

    def check(self, n_features: int) -> None:
        """Refuse blocks and a context that do not add up to the features.

        Raises
        ------
        ValueError
            The message says what was expected.
        """
        c, blocks = self.n_context, self.blocks
        if not isinstance(c, int | np.integer) or not 0 <= c < n_features:
            raise ValueError(
                f"context={c!r}; expected a number of columns, at least 0 and less than the "
                f"{n_features} of X."
            )
        if blocks is None:
            return
        good = all(isinstance(width, int | np.integer) and width > 0 for width in blocks)
        if not good or sum(blocks) != n_features - c:
            raise ValueError(
                f"blocks={blocks!r}; expected widths of neighbouring columns, positive integers "
                f"that add up to the {n_features - c} features of responses."
            )

    def weighted(self, seen: Floats) -> Floats:
        """Return the columns that have weights: those of the responses."""
        own = seen[:, : seen.shape[1] - self.n_context]
        return own if is_stored(own) else np.ascontiguousarray(own)

    def draw_gates(
        self,
        seen: Floats,
        n_patterns: int,
        source: Any,
        rng: np.random.RandomState,
        *,
        uses_context: bool,
    ) -> convex.ActivationPatterns:
        """Draw gates of responses, and with each a random gate of prompts where these are used."""
        own, c = self.weighted(seen), self.n_context
        found = training.draw_patterns(own, np.zeros((len(own), 1)), n_patterns, source, rng)
        if not c:
            return found
        gates = np.pad(found.gates, ((0, 0), (0, c)))
        if not uses_context:
            return convex.ActivationPatterns(found.mask, gates)
        prompts = np.zeros_like(gates)
        prompts[:, -c:] = rng.standard_normal((len(gates), c))
        return convex.ActivationPatterns.from_gates(seen, np.stack([gates, prompts], axis=1))

    def choose_factors(
        self, inputs: Floats, rows: DistinctPairs, rng: np.random.RandomState
    ) -> ColumnFactors:
        """Return the factors of scaled embeddings that predict best the pairs that are left out."""
        if self.alike:
            return ColumnFactors()
        most = _MOST_PAIRS if self.blocks is None else _MOST_PAIRS_OF_BLOCKS
        if len(rows.pairs) <= most:
            inputs = np.asarray(inputs)
        no_gates = np.zeros((len(inputs), 0), bool)
        operator = convex.PairedOperator(inputs, no_gates, pairs=rows.pairs)
        program = convex.ConvexProgram(
            operator, rows.targets, 0.0, sample_weight=rows.sample_weight, formulation="gated"
        )
        sample = training.sample_rows(
            program, rng, units=rows.several_units, groups=rows.groups, most=most
        )
        c = self.n_context
        blocks = (inputs.shape[1] - c,) if self.blocks is None else self.blocks
        found = training.block_factors(sample, blocks, c)
        chosen = None if self.blocks is None else found[: len(blocks)]
        return ColumnFactors(chosen, bool(c and found[-1]))

    def each(self, factors: ColumnFactors, n_features: int) -> NDArray[np.float64]:
        """Return the factor of each column; a context that does not help has 0."""
        own = np.ones(n_features - self.n_context)
        if self.blocks is not None and factors.blocks is not None:
            own = np.repeat(factors.blocks, self.blocks)
        return np.append(own, np.full(self.n_context, float(factors.uses_context)))
