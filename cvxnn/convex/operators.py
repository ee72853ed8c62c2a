r"""Matrix-free linear operators of the convex program.

With activation patterns :math:`D_1, \dots, D_P` (mask ``D``) and :math:`E_i = 2 D_i - I`, weights
:math:`u = (v_i, w_i)` meet the data through

.. math::

    F u = \sum_i D_i X (v_i - w_i), \qquad G u = (E_i X v_i, E_i X w_i)_i .

Each is one dense matrix product and an elementwise mask; nothing of size ``n x dP`` is formed.

Blocks of weights have shape ``(n_outputs, n_signs, n_patterns, n_features)``. With two signs, as in
the ReLU formulation, entry 0 of the second axis holds the :math:`v_i` (positive output weight),
entry 1 the :math:`w_i` (negative). With one, as in the gated formulation, it holds the difference
:math:`z_i = v_i - w_i`.

Everything works on NumPy arrays on the host and on JAX arrays inside compiled solvers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.numerics.arrays import Array, by_columns, namespace, register_pytree
from cvxnn.numerics.stored_rows import is_stored

# Units of rounding of the sum of all terms' sizes: above what sums of any length were seen to lose.
_ROUNDING = 4.0


class Weights(NamedTuple):
    """Weights of a two-layer network, as the convex program has them.

    Attributes
    ----------
    blocks : Array, shape (n_outputs, n_signs, n_patterns, n_features)
        One block for each pattern and sign: ``n_signs`` is 2 in the ReLU formulation (first the
        blocks that add to the output, then those that subtract from it), 1 in the gated one.
    linear : Array, shape (n_outputs, n_features), or None
        The linear part of a program; None without one.
    """

    blocks: Any
    linear: Any = None


@register_pytree
@dataclass(frozen=True)
class GatedOperator:
    """Maps F and G of fixed activation patterns, and their adjoints.

    Attributes
    ----------
    X : Array, shape (n_samples, n_features)
        Data; its dtype is the dtype of every result.
    mask : Array of bool, shape (n_samples, n_patterns)
        Activation patterns, a byte an entry.
    linear : bool, default=False
        Whether the last column of ``mask`` stands for the linear part of the network: it is then
        open on every row and has no cones. ``solve`` prepares programs with a linear part in
        this way (:meth:`with_linear`); programs that you build yourself leave it False.

    Notes
    -----
    A product with all weights costs ``4 n d P n_outputs`` flops and one temporary of
    ``2 n P n_outputs`` floats.

    **Stacked arrays.** Solvers carry all weights in one array: the blocks of
    :class:`Weights`, followed along the axis of the patterns by the linear part, if there is one;
    of two signs, each has half of it. The multipliers of :class:`~cvxnn.convex.DualPoint` have the
    same axis. :meth:`stack`, :meth:`unstack`, :meth:`split` and :meth:`join` are the only places
    that know this layout.

    The methods take

    U : Array, shape (n_outputs, n_signs, P, n_features)
        Stacked weights; :meth:`scores` takes any shape that ends in ``n_features``.
    weights : Weights
        The same as blocks and linear part.
    n_signs : int
        2 in the ReLU formulation, 1 in the gated one.
    Q : Array, shape (n_outputs, P, n_features)
        Differences ``v - w``.
    S : Array, shape (n_samples, ..., P)
        Scores, or multipliers of the cones.
    R : Array, shape (n_rows, n_outputs)
        Residuals of predictions.
    F : Array, shape (n_samples, n_outputs)
        Outputs of the network for the rows of ``X``.
    X : Array, shape (n, n_features), optional
        Rows in the place of the own ones.
    rows : ndarray of int
        Numbers of predictions.
    stacked, patterns, linear : Array
        Array along whose ``axis`` patterns lie, and its two parts.
    axis : int
        Axis of the patterns.
    """

    X: Array
    mask: Array
    linear: bool = field(default=False, metadata={"static": True})

    @property
    def n_rows(self) -> int:
        """Number of predictions, each with a target and a weight."""
        return self.X.shape[0]

    @property
    def n_patterns(self) -> int:
        """Number of columns of the mask, P; with ``linear`` one more than there are patterns."""
        return self.mask.shape[1]

    def take(self, rows: NDArray[np.intp]) -> GatedOperator:
        """Return the operator of some of the predictions, on the host."""
        return replace(self, X=self.X[rows], mask=self.mask[rows])

    def inputs(self, rows: Array) -> Array:
        """Return the rows of ``X`` that predictions need, shape (n_rows, 1), or 2 of pairs."""
        return rows[:, None]

    def compare(self, F: Array) -> Array:
        """Turn outputs of the network for the rows of ``X`` into predictions: here, themselves."""
        return F

    def compare_adjoint(self, R: Array) -> Array:
        """Apply the adjoint of :meth:`compare`."""
        return R

    # The layout of stacked arrays ---------------------------------------------------------

    def with_linear(self) -> GatedOperator:
        """Return the operator with one more column, for the linear part."""
        xp = namespace(self.mask)
        column = xp.ones((self.mask.shape[0], 1), bool)
        return replace(self, mask=xp.concatenate([self.mask, column], axis=1), linear=True)

    def stack(self, weights: Weights, n_signs: int) -> Array:
        """Return weights as one array, (n_outputs, n_signs, P, n_features)."""
        blocks, linear = weights
        if not self.linear:
            return blocks
        xp = namespace(blocks)
        if linear is None:
            linear = xp.zeros((blocks.shape[0], blocks.shape[3]), blocks.dtype)
        # z = v - w with v = -w, as at the optimum.
        signs = xp.stack([linear / 2, -linear / 2], axis=1) if n_signs == 2 else linear[:, None]
        return xp.concatenate([blocks, signs[:, :, None]], axis=2)

    def unstack(self, U: Array) -> Weights:
        """Return the weights that one array of shape (n_outputs, n_signs, P, n_features) holds."""
        blocks, linear = self.split(U, axis=2)
        if linear is None:
            return Weights(blocks)
        linear = linear[:, :, 0]
        return Weights(blocks, linear[:, 0] - linear[:, 1] if U.shape[1] == 2 else linear[:, 0])

    def split(self, stacked: Array, axis: int) -> tuple[Array, Array | None]:
        """Divide an array along its axis of patterns into the patterns' part and the linear one.

        The linear part keeps the axis, with length 1; it is None for an operator without one.
        """
        if not self.linear:
            return stacked, None
        last = stacked.shape[axis] - 1
        before = (slice(None),) * (axis % stacked.ndim)
        return stacked[(*before, slice(last))], stacked[(*before, slice(last, None))]

    def join(self, patterns: Array, linear: Array | None, axis: int) -> Array:
        """Put the two parts that :meth:`split` gives together again."""
        if linear is None:
            return patterns
        return namespace(patterns).concatenate([patterns, linear], axis=axis)

    # The maps -----------------------------------------------------------------------------

    def scores(self, U: Array, X: Array | None = None) -> Array:
        """Return the products ``x_k . u`` of every row with every block.

        ``U`` has shape ``(..., n_features)``; the result ``(n_samples, ...)``.
        """
        X = self.X if X is None else X
        flat = U.reshape(-1, U.shape[-1])
        return (X @ flat.T).reshape(X.shape[0], *U.shape[:-1])

    def back(self, S: Array, X: Array | None = None) -> Array:
        """Apply the adjoint of :meth:`scores`: ``(n_samples, ...)`` to ``(..., n_features)``."""
        X = self.X if X is None else X
        flat = S.reshape(S.shape[0], -1)
        return (flat.T @ X).reshape(*S.shape[1:], X.shape[1])

    def gate(self, S: Array) -> Array:
        """Keep scores of shape (n, ..., P) where the pattern is open: multiplication by D."""
        return namespace(S).where(self._broadcast(S.ndim), S, 0)

    def orient(self, S: Array) -> Array:
        """Flip the sign of scores of shape (n, ..., P) where it is closed: multiplication by E."""
        mask = self._broadcast(S.ndim)
        if namespace(S) is np:  # in one pass, without a copy of the negative
            return S * np.where(mask, S.dtype.type(1), S.dtype.type(-1))
        return namespace(S).where(mask, S, -S)

    def project_cones(self, S: Array) -> Array:
        """Return the positive part of the oriented scores; those of the linear part are free."""
        of_patterns, linear = self.split(S, axis=-1)
        return self.join(namespace(S).maximum(of_patterns, 0), linear, axis=-1)

    def _broadcast(self, ndim: int) -> Array:
        n, P = self.mask.shape
        return self.mask.reshape(n, *([1] * (ndim - 2)), P)

    def forward_difference(self, Q: Array) -> Array:
        """Return ``F_0 q``: differences v - w, (n_outputs, P, d), to predictions (n, n_outputs)."""
        return self.compare(self.gate(self.scores(Q)).sum(axis=-1))

    def adjoint_difference(self, R: Array) -> Array:
        """Return ``F_0^T r``: (n, n_outputs) to (n_outputs, P, d)."""
        R = self.compare_adjoint(R)
        spread = namespace(R).broadcast_to(R[:, :, None], (*R.shape, self.n_patterns))
        return self.back(self.gate(spread))

    def forward(self, U: Array) -> Array:
        """Return ``F u``: weights (n_outputs, n_signs, P, d) to predictions (n, n_outputs)."""
        return self.forward_difference(U[:, 0] - U[:, 1] if U.shape[1] == 2 else U[:, 0])

    def adjoint(self, R: Array, n_signs: int = 2) -> Array:
        """Return ``F^T r``: (n, n_outputs) to weights (n_outputs, n_signs, P, d)."""
        g = self.adjoint_difference(R)
        return namespace(g).stack([g, -g], axis=1) if n_signs == 2 else g[:, None]

    def adjoint_rounding(self, R: Array) -> Array:
        """Return how far rounding may take :meth:`adjoint` off, shape (n_outputs, n_features)."""
        sizes = abs(self.compare_adjoint(R)).T
        terms = by_columns(lambda columns: sizes @ abs(columns), self.X)
        return _ROUNDING * namespace(R).finfo(R.dtype).eps * terms

    def constraints(self, U: Array) -> Array:
        """Return ``G u``, (n, n_outputs, 2, P), which the cones require to be non-negative."""
        return self.orient(self.scores(U))

    def constraints_adjoint(self, S: Array) -> Array:
        """Return ``G^T s``: (n, n_outputs, 2, P) to weights (n_outputs, 2, P, d)."""
        return self.back(self.orient(S))

    def network_forward(self, U: Array) -> Array:
        """Return predictions (n, n_outputs) of the ReLU network with weights ``U`` of two signs.

        Equal to ``F u`` exactly where the cone constraints hold.
        """
        hidden = namespace(U).maximum(self.scores(U), 0).sum(axis=-1)
        return self.compare(hidden[..., 0] - hidden[..., 1])


@register_pytree
@dataclass(frozen=True)
class PairedOperator(GatedOperator):
    r"""Operator whose predictions are differences between the outputs of two rows of ``X``.

    With the pairs :math:`(i_k, j_k)`, prediction ``k`` is :math:`f(x_{i_k}) - f(x_{j_k})`. With
    targets of 1 a program fits preferences: row :math:`i_k` is the chosen response and row
    :math:`j_k` the rejected one. What many pairs have in common is stored once.

    Attributes
    ----------
    pairs : Array of int, shape (n_pairs, 2)
        Row numbers of ``X``. Targets, weights and dual points have one row for each pair.
    n_groups : int, default=1
        Equal parts, of the pairs and of the rows, that belong together (:meth:`grouped`). Row
        numbers count within the part.

    Notes
    -----
    Only the gated formulation without a linear part takes pairs, and of the solvers ``Ridge``.
    """

    pairs: Array = field(default_factory=lambda: np.zeros((0, 2), np.intp))
    n_groups: int = field(default=1, metadata={"static": True})

    @property
    def n_rows(self) -> int:
        """Number of pairs."""
        return self.pairs.shape[0]

    def take(self, rows: NDArray[np.intp]) -> PairedOperator:
        """Return the operator of some of the pairs, with the rows of ``X`` that these need."""
        used, index = np.unique(self.pairs[rows], return_inverse=True)
        pairs = index.reshape(len(rows), 2)
        return replace(self, X=self.X[used], mask=self.mask[used], pairs=pairs)

    def grouped(self, n_groups: int, n_rows: Callable[[int], int]) -> PairedOperator:
        """Return the same pairs in equal parts, each with the rows that it needs, on the host.

        Parameters
        ----------
        n_groups : int
            Number of parts, which divides that of pairs.
        n_rows : callable
            Gives the rows of a part, from the most that one needs; the rest are zero.
        """
        of_pairs = np.asarray(self.pairs).reshape(n_groups, -1)
        found = [np.unique(pairs, return_inverse=True) for pairs in of_pairs]
        size = n_rows(max(len(used) for used, _ in found))

        def spread(array: Array) -> Array:
            out = np.zeros((n_groups, size, *array.shape[1:]), array.dtype)
            for part, (used, _) in zip(out, found, strict=True):
                np.take(array, used, axis=0, out=part[: len(used)], mode="clip")
            return out.reshape(-1, *array.shape[1:])

        pairs = np.concatenate([index.reshape(-1, 2) for _, index in found])
        mask = spread(np.asarray(self.mask))
        # Rows that fill a part up are closed; of stored ones, its first is repeated.
        filled = [np.pad(used, (0, size - len(used)), constant_values=used[0]) for used, _ in found]
        X = self.X.take(np.concatenate(filled)) if is_stored(self.X) else spread(self.X)
        return replace(self, X=X, mask=mask, pairs=pairs.astype(np.int32), n_groups=n_groups)

    def inputs(self, rows: Array) -> Array:
        """Return the two rows of ``X`` of some of the pairs."""
        n_pairs, n_rows = (len(a) // self.n_groups for a in (self.pairs, self.X))
        return self.pairs[rows] + (rows // n_pairs * n_rows)[:, None]

    def compare(self, F: Array) -> Array:
        """Subtract the output of the second row of each pair from that of the first."""
        if namespace(F) is np:
            return F[self.pairs[:, 0]] - F[self.pairs[:, 1]]
        import jax

        difference = jax.vmap(lambda f, pairs: f[pairs[:, 0]] - f[pairs[:, 1]])
        return self._parts_joined(difference(self._parts(F), self._parts(self.pairs)))

    def compare_adjoint(self, R: Array) -> Array:
        """Add what each row of ``X`` gets from its pairs."""
        out = namespace(R).zeros((self.X.shape[0], *R.shape[1:]), R.dtype)
        if namespace(R) is np:
            np.add.at(out, self.pairs[:, 0], R)
            np.subtract.at(out, self.pairs[:, 1], R)
            return out
        import jax

        scatter = jax.vmap(lambda f, p, r: f.at[p[:, 0]].add(r).at[p[:, 1]].add(-r))
        return self._parts_joined(
            scatter(self._parts(out), self._parts(self.pairs), self._parts(R))
        )

    def _parts(self, array: Array) -> Array:
        return array.reshape(self.n_groups, -1, *array.shape[1:])

    def _parts_joined(self, array: Array) -> Array:
        return array.reshape(-1, *array.shape[2:])


def paired(X: Array, mask: Array, pairs: Array | None) -> GatedOperator:
    """Return the operator of pairs, or of the rows themselves where there are no pairs.

    Parameters
    ----------
    X : Array, shape (n_samples, n_features)
        Data.
    mask : Array of bool, shape (n_samples, n_patterns)
        Activation patterns.
    pairs : Array of int, shape (n_pairs, 2), or None
        Row numbers of each pair; None without pairs.
    """
    return GatedOperator(X, mask) if pairs is None else PairedOperator(X, mask, pairs=pairs)
