r"""Matrix-free linear operators of the convex program.

With activation patterns :math:`D_1, \dots, D_P` (mask ``D``) and :math:`E_i = 2 D_i - I`, weights
:math:`u = (v_i, w_i)` meet the data through

.. math::

    F u = \sum_i D_i X (v_i - w_i), \qquad G u = (E_i X v_i, E_i X w_i)_i .

Each is one dense matrix product and an elementwise mask; nothing of size ``n x dP`` is formed.

Weights have shape ``(n_outputs, n_signs, n_patterns, n_features)``. With two signs, as in the ReLU
form, entry 0 of the second axis holds the :math:`v_i` (positive output weight), entry 1 the
:math:`w_i` (negative). With one, as in the gated form, it holds the difference
:math:`z_i = v_i - w_i`.

Everything works on NumPy arrays on the host and on JAX arrays inside compiled solvers.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from cvxnn._arrays import Array, namespace


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GatedOperator:
    """The maps F and G of fixed activation patterns, and their adjoints.

    Attributes
    ----------
    X : Array, shape (n_samples, n_features)
        Data; its dtype is the dtype of every result.
    mask : Array of bool, shape (n_samples, n_patterns)
        Activation patterns, a byte an entry.

    Notes
    -----
    A product with all weights costs ``4 n d P n_outputs`` flops and one temporary of
    ``2 n P n_outputs`` floats.
    """

    X: Array
    mask: Array

    @property
    def n_patterns(self) -> int:
        """Number of patterns P."""
        return self.mask.shape[1]

    def scores(self, U: Array, X: Array | None = None) -> Array:
        """Products ``x_k . u`` of every row with every block.

        ``U`` has shape ``(..., n_features)``; the result ``(n_samples, ...)``.
        """
        X = self.X if X is None else X
        flat = U.reshape(-1, U.shape[-1])
        return (X @ flat.T).reshape(X.shape[0], *U.shape[:-1])

    def back(self, S: Array, X: Array | None = None) -> Array:
        """Adjoint of :meth:`scores`: shape ``(n_samples, ...)`` to ``(..., n_features)``."""
        X = self.X if X is None else X
        flat = S.reshape(S.shape[0], -1)
        return (flat.T @ X).reshape(*S.shape[1:], X.shape[1])

    def gate(self, S: Array) -> Array:
        """Keep scores of shape (n, ..., P) where the pattern is open: multiplication by D."""
        return namespace(S).where(self._broadcast(S.ndim), S, 0)

    def orient(self, S: Array) -> Array:
        """Flip the sign of scores of shape (n, ..., P) where it is closed: multiplication by E."""
        return namespace(S).where(self._broadcast(S.ndim), S, -S)

    def _broadcast(self, ndim: int) -> Array:
        n, P = self.mask.shape
        return self.mask.reshape(n, *([1] * (ndim - 2)), P)

    def forward_difference(self, Q: Array) -> Array:
        """``F_0 q``: (n_outputs, P, d) differences v - w to predictions (n, n_outputs)."""
        return self.gate(self.scores(Q)).sum(axis=-1)

    def adjoint_difference(self, R: Array) -> Array:
        """``F_0^T r``: (n, n_outputs) to (n_outputs, P, d)."""
        spread = namespace(R).broadcast_to(R[:, :, None], (*R.shape, self.n_patterns))
        return self.back(self.gate(spread))

    def forward(self, U: Array) -> Array:
        """``F u``: weights (n_outputs, n_signs, P, d) to predictions (n, n_outputs)."""
        return self.forward_difference(U[:, 0] - U[:, 1] if U.shape[1] == 2 else U[:, 0])

    def adjoint(self, R: Array, n_signs: int = 2) -> Array:
        """``F^T r``: (n, n_outputs) to weights (n_outputs, n_signs, P, d)."""
        g = self.adjoint_difference(R)
        return namespace(g).stack([g, -g], axis=1) if n_signs == 2 else g[:, None]

    def constraints(self, U: Array) -> Array:
        """``G u``, shape (n, n_outputs, 2, P); the cones ask that it be non-negative."""
        return self.orient(self.scores(U))

    def constraints_adjoint(self, S: Array) -> Array:
        """``G^T s``: (n, n_outputs, 2, P) to weights (n_outputs, 2, P, d)."""
        return self.back(self.orient(S))

    def network_forward(self, U: Array) -> Array:
        """Predictions (n, n_outputs) of the ReLU network with hidden weights ``U`` of two signs.

        Equal to ``F u`` exactly where the cone constraints hold.
        """
        hidden = namespace(U).maximum(self.scores(U), 0).sum(axis=-1)
        return hidden[..., 0] - hidden[..., 1]
