r"""Linear algebra of the interior-point method: one Newton system, factored and solved.

For blocks :math:`j` = (sign :math:`\sigma_j`, pattern :math:`i`) of an output the system is

.. math::

    \big(B + F^T H F\big)\, \Delta u = b, \qquad
    B_j = X^T \operatorname{diag}(q_j) X + \operatorname{diag}(c_j) - \gamma_j w_j w_j^T ,

with one :math:`d \times d` matrix for each block and the curvature of the loss in :math:`H`. The
two signs of a pattern share :math:`D_i`, so with :math:`R_i R_i^T` the sum of their inverses and
:math:`A_i = D_i X R_i`, what couples the blocks is :math:`I + H^{1/2} A A^T H^{1/2}`, of the size
of the data, or :math:`I + A^T H A`, of the size of the weights. Columns of :math:`A` that hardly
matter are left out of it, the more the nearer the optimum, and conjugate gradient makes up for
them. Plain NumPy in double precision; the coupling matrix, which only preconditions, is factored in
single precision unless it is too large beside the identity.

Where the loss couples the outputs, :math:`H` has a matrix for each row, for the multinomial loss
:math:`\operatorname{diag}(p) - p p^T`. The outputs are factored one by one with
:math:`\operatorname{diag}(p)` in its place, which differs only where all classes gain the same.
They do where weights change alike in all classes: there :math:`H` is zero and the matrix is
:math:`\sum_c B_{cj}`, whose inverse is added. Conjugate gradient does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from cvxnn.numerics.threads import SHARED_FACTOR, limit_threads

Floats = NDArray[np.floating]

# Sum of the squared norms of the columns of A that may be left out: a fifth keeps the
# preconditioned system within a condition number of 2.4.
_LEFT_OUT = 0.2
# Sum of the squared entries of A up to which its product, with the identity added, is factored in
# single precision: rounding is then a few hundredths of the identity.
_MOST_SINGLE = 5e5
# Most iterations of conjugate gradient for one right side.
_MAX_CG = 300
# Doubles of the products of features that are kept between iterations: 64 MB.
_KEPT_PRODUCTS = 8_000_000


class Data:
    """Rows and patterns of a program, laid out for products with all blocks at once.

    Parameters
    ----------
    X : ndarray, shape (n, d)
        Rows.
    mask : ndarray of bool, shape (n, P)
        Patterns.
    n_signs : int
        Blocks for each pattern, 1 or 2.
    """

    def __init__(self, X: Floats, mask: NDArray[np.bool_], n_signs: int) -> None:
        self.X = np.ascontiguousarray(X)
        self.XT = np.ascontiguousarray(X.T)
        self.gates = np.ascontiguousarray(mask.T, np.float64)
        self.orientation = 2 * self.gates - 1
        self.n_signs = n_signs
        self._triangle = np.triu_indices(X.shape[1])
        self._products: Floats | None = None

    @property
    def flops(self) -> float:
        """Floating-point operations of one product with all blocks."""
        return 2.0 * self.n_signs * self.X.size * len(self.gates)

    def scores(self, u: Floats) -> Floats:
        """Return ``X u_j`` of all blocks: (C, S, P, d) to (C, S, P, n)."""
        return (u.reshape(-1, u.shape[-1]) @ self.XT).reshape(*u.shape[:-1], -1)

    def back(self, v: Floats) -> Floats:
        """Return ``X^T v_j`` of all blocks: (C, S, P, n) to (C, S, P, d)."""
        return (v.reshape(-1, v.shape[-1]) @ self.X).reshape(*v.shape[:-1], self.X.shape[1])

    def predict(self, scores: Floats) -> Floats:
        """Sum the open scores, positive neurons minus negative ones: (C, S, P, n) to (C, n)."""
        return np.einsum("cpn,pn->cn", difference(scores), self.gates)

    def spread(self, r: Floats) -> Floats:
        """Apply the adjoint of :meth:`predict`: (C, n) to (C, S, P, n)."""
        return self._signed(self.gates * r[:, None])

    def adjoint(self, r: Floats) -> Floats:
        """Return ``F^T r``: (C, n) to (C, S, P, d)."""
        return self._signed(self.back(self.gates * r[:, None]))

    def _signed(self, v: Floats) -> Floats:
        return np.stack([v, -v], axis=1) if self.n_signs == 2 else v[:, None]

    def grams(self, weights: Floats) -> Floats:
        """Return ``X^T diag(q) X`` for each row ``q`` of (m, n): (m, d, d)."""
        n, d = self.X.shape
        above, right = self._triangle
        width = len(above)
        if self._products is None and n * width <= _KEPT_PRODUCTS:
            self._products = self.X[:, above] * self.X[:, right]
        if self._products is not None:
            packed = weights @ self._products
        else:
            packed = np.zeros((len(weights), width))
            chunk = max(1, _KEPT_PRODUCTS // width)
            for k in range(0, n, chunk):
                rows = self.X[k : k + chunk]
                packed += weights[:, k : k + chunk] @ (rows[:, above] * rows[:, right])
        grams = np.empty((len(weights), d, d))
        grams[:, above, right] = packed
        grams[:, right, above] = packed
        return grams


def difference(blocks: Floats) -> Floats:
    """Return positive minus negative neurons: (C, S, P, ...) to (C, P, ...)."""
    return blocks[:, 0] - blocks[:, 1] if blocks.shape[1] == 2 else blocks[:, 0]


class Blocks(NamedTuple):
    """What defines the matrix of one Newton system, blocks of shape (C, S, P)."""

    cone: Floats
    """Weights ``q`` of the rows of X, (C, S, Pc, n), of the first Pc patterns."""
    identity: Floats
    """``c`` of each feature, (C, S, P, d)."""
    vector: Floats
    """``sqrt(gamma) w``, (C, S, Pk, d), of the first Pk patterns."""
    curvature: Floats
    """Diagonal of ``H``, or what is above ``H`` where it is none, (C, n), at least 0."""

    def output(self, number: int) -> Blocks:
        """Return the blocks of one output, without the first axis."""
        return Blocks(*(part[number] for part in self))


class NewtonSystem:
    """The Newton system of all outputs, each factored by itself.

    Parameters
    ----------
    data : Data
        Rows and patterns.
    blocks : Blocks
        Of all outputs.
    bend : callable
        Multiplies predictions, (C, n), by ``H``.
    max_dense : int
        Side of the largest matrix that is factored.
    """

    def __init__(
        self, data: Data, blocks: Blocks, bend: Callable[[Floats], Floats], max_dense: int
    ) -> None:
        self.data, self.bend = data, bend
        n_outputs = len(blocks.curvature)
        self.outputs = [OutputSystem(data, blocks.output(c), max_dense) for c in range(n_outputs)]
        self.rank = max(output.rank for output in self.outputs)
        # What all classes have in common changes no probability, which the matrices of single
        # outputs do not know.
        self._common: Floats | None = None
        if n_outputs > 1:
            with limit_threads(n_outputs * 2.0 * self.outputs[0].matrices.size * data.X.shape[1]):
                root = _triangular_inverse(
                    _cholesky_of_blocks(np.sum([o.matrices for o in self.outputs], axis=0))
                )
                self._common = np.swapaxes(root, -1, -2) @ root

    def matvec(self, x: Floats) -> Floats:
        """Multiply by the matrix: by its blocks, and by ``F^T H F`` without forming it."""
        data = self.data
        c = data.adjoint(self.bend(data.predict(data.scores(difference(x)[:, None]))))
        for own, output, part in zip(c, self.outputs, x, strict=True):
            own += _times(output.matrices, part)
        return c

    def precondition(self, b: Floats) -> Floats:
        """Solve with each output, but for left-out columns, and with what all have in common."""
        parts = zip(self.outputs, b, strict=True)
        x = np.stack([output.precondition(part) for output, part in parts])
        return x if self._common is None else x + _times(self._common, b.sum(axis=0))

    def solve(self, b: Floats, tol: float, floor: float) -> tuple[Floats, int]:
        """Return the solution, and the iterations of :func:`energy_pcg` that it took."""
        return energy_pcg(self.matvec, self.precondition, b, tol, floor, _MAX_CG)


class OutputSystem:
    """The factored matrix of one output, blocks of shape (S, P); ``matrices`` are the blocks."""

    def __init__(self, data: Data, blocks: Blocks, max_dense: int) -> None:
        self.data = data
        S, P = blocks.identity.shape[:2]
        n, d = data.X.shape
        with limit_threads(newton_flops(data.X.shape, P, S, P * d), SHARED_FACTOR):
            B = np.zeros((S, P, d, d))
            n_cones, n_norms = blocks.cone.shape[1], blocks.vector.shape[1]
            if n_cones:
                grams = data.grams(blocks.cone.reshape(-1, n))
                B[:, :n_cones] = grams.reshape(S, n_cones, d, d)
            w = blocks.vector
            B[:, :n_norms] -= w[..., :, None] * w[..., None, :]
            B[..., np.arange(d), np.arange(d)] += blocks.identity
            self.matrices = B
            root = _triangular_inverse(_cholesky_of_blocks(B))
            self._inverse = np.swapaxes(root, -1, -2) @ root
            self._R = _cholesky_of_blocks(self._inverse.sum(axis=0))
            self._R_inverse = _triangular_inverse(self._R)
            self._half = np.sqrt(blocks.curvature)
            self._factor_core(max_dense)

    def _factor_core(self, max_dense: int) -> None:
        A = self._coupling(np.float32)
        if np.vdot(A, A) <= _MOST_SINGLE:
            try:
                return self._factor(A, max_dense)
            except np.linalg.LinAlgError:  # rounding of a matrix with many entries of one sign
                pass
        self._factor(self._coupling(np.float64), max_dense)

    def _factor(self, A: Floats, max_dense: int) -> None:
        size, n = A.shape
        energy = np.einsum("kn,kn->k", A, A)
        order = np.argsort(energy)
        n_left_out = int(np.searchsorted(np.cumsum(energy[order]), _LEFT_OUT))
        if min(size - n_left_out, n) > max_dense:
            n_left_out = size - max_dense
        self._kept = np.sort(order[n_left_out:])
        self.rank = len(self._kept)
        A = A[self._kept] if n_left_out else A
        self._small = self.rank < n
        core = A @ A.T if self._small else A.T @ A
        core[np.diag_indices_from(core)] += 1
        self._core = np.linalg.cholesky(core)

    def _coupling(self, dtype: Any) -> Floats:
        """Return ``H^{1/2} A``, its columns as rows, those of ``R_1`` first."""
        R, XT, gates = self._R.astype(dtype), self.data.XT.astype(dtype), self.data.gates
        A: Floats = (np.swapaxes(R, -1, -2).reshape(-1, len(XT)) @ XT).reshape(len(R), len(XT), -1)
        A *= (gates * self._half).astype(dtype)[:, None, :]
        return A.reshape(-1, XT.shape[1])

    def precondition(self, b: Floats) -> Floats:
        """Solve with the matrix, but for the columns that were left out."""
        x = self._block_solve(b)
        q = x[0] - x[1] if len(x) == 2 else x[0]
        if self._small:
            # In the columns of R themselves, since F q would cancel where blocks are nearly
            # singular. Left-out columns are left out of F altogether, else the result would not
            # be positive definite.
            p = (self._R_inverse @ q[..., None]).ravel()
            change = np.zeros_like(p)
            change[self._kept] = p[self._kept] - self._core_solve(p[self._kept])
            c = (change.reshape(*q.shape[:-1], 1, -1) @ self._R_inverse)[..., 0, :]
            c = np.stack([c, -c]) if len(x) == 2 else c[None]
        else:
            g = self._half * self.data.predict(self.data.scores(q[None, None]))[0]
            c = self.data.adjoint(self._half[None] * self._core_solve(g))[0]
        return x - self._block_solve(c)

    def _core_solve(self, g: Floats) -> Floats:
        # The transpose is an upper triangle in Fortran order, and no copy.
        g = g.astype(self._core.dtype, copy=False)
        return cho_solve((self._core.T, False), g, check_finite=False).astype(np.float64)

    def _block_solve(self, b: Floats) -> Floats:
        return _times(self._inverse, b)


def _times(matrices: Floats, x: Floats) -> Floats:
    """Multiply each block by its matrix."""
    return np.asarray((matrices @ x[..., None])[..., 0])


def energy_pcg(
    matvec: Callable[[Floats], Floats],
    precondition: Callable[[Floats], Floats],
    b: Floats,
    tol: float,
    floor: float,
    max_iter: int,
) -> tuple[Floats, int]:
    """Run preconditioned conjugate gradient from zero; return solution and iterations.

    Stops when the error is at most ``tol`` times the solution in the norm of the matrix, as far as
    the preconditioner tells, *and* no block of the residual is longer than ``floor``; or when
    rounding stops it.
    """
    x, r = np.zeros_like(b), b
    z = precondition(r)
    p, energy = z, np.vdot(r, z)
    stop = tol**2 * energy
    for k in range(max_iter):
        if not energy > stop and np.linalg.norm(r, axis=-1).max(initial=0) <= floor:
            return x, k
        Ap = matvec(p)
        curvature = np.vdot(p, Ap)
        if not (curvature > 0 and energy > 0):
            return x, k
        step = energy / curvature
        x = x + step * p
        r = r - step * Ap
        z = precondition(r)
        previous, energy = energy, np.vdot(r, z)
        p = z + (energy / previous) * p
    return x, max_iter


def _cholesky_of_blocks(matrices: Floats) -> Floats:
    """Return Cholesky factors of a stack, with diagonals raised as far as rounding requires."""
    diagonal = np.arange(matrices.shape[-1])
    for jitter in (0.0, 1e-15, 1e-14, 1e-13, 1e-12, 1e-10):
        if jitter:
            matrices = matrices.copy()
            matrices[..., diagonal, diagonal] *= 1 + jitter
        try:
            return np.linalg.cholesky(matrices)
        except np.linalg.LinAlgError:
            continue
    raise np.linalg.LinAlgError("a block of the Newton system is not positive definite")


def _triangular_inverse(lower: Floats) -> Floats:
    """Return the inverses of a stack of lower triangles, by halves."""
    d = lower.shape[-1]
    if d <= 8:
        return np.linalg.inv(lower)
    half = d // 2
    inverse = np.zeros_like(lower)
    first = _triangular_inverse(lower[..., :half, :half])
    last = _triangular_inverse(lower[..., half:, half:])
    inverse[..., :half, :half], inverse[..., half:, half:] = first, last
    inverse[..., half:, :half] = -last @ (lower[..., half:, :half] @ first)
    return inverse


def newton_flops(shape: tuple[int, int], n_patterns: int, n_signs: int, rank: float) -> float:
    """Return the floating-point operations of a factorisation.

    Parameters
    ----------
    shape : tuple of int
        Rows and features.
    n_patterns, n_signs : int
        Patterns, and blocks for each pattern.
    rank : float
        Columns of ``A`` that are kept.
    """
    (n, d), P, S = shape, n_patterns, n_signs
    size = min(rank, n)
    blocks = S * P * d * (n * (d + 1.0) + 2.0 * d**2)
    return blocks + 2.0 * n * d * d * P + float(n) * rank * size + size**3 / 3
