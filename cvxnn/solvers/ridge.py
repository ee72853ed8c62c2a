r"""The gated program with squared loss and ridge penalty: one linear system, solved directly.

With shares :math:`s_k` of the rows, :math:`A = \operatorname{diag}(\sqrt s) F`, the minimiser is

.. math::

    z = (A^T A + \alpha I)^{-1} A^T \tilde y = A^T u, \qquad
    (A A^T + \alpha I)\, u = \tilde y = \sqrt s\, y ,

and the residual :math:`y - F z = \alpha u / \sqrt s` is its own proof of optimality. The kernel

.. math:: (A A^T)_{kl} = \sqrt{s_k s_l}\; x_k^T x_l \; \#\{i : g_i^T x_k \ge 0,\; g_i^T x_l \ge 0\}

needs no features to be formed (Pilanci & Ergen, 2020, for the patterns; the rest is kernel ridge
regression). The cheaper of the two matrices is factored. Where both are too large, conjugate
gradient on :math:`u` is preconditioned by the kernel's columns at a sample of the rows (Rudi,
Carratino & Rosasco, 2017), and the kernel is kept in memory where it fits. Rows may be sparse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular

from cvxnn._namespace import is_sparse
from cvxnn.losses import SquaredLoss
from cvxnn.penalties import SquaredL2
from cvxnn.problem import ConvexProgram, DualPoint
from cvxnn.solvers._loop import Measurement, Result, Start

Floats = NDArray[np.floating]
# Gaps down to which products in float32 are good enough.
_COARSE = 1e-4
# Numbers in a block of rows: 2**22, 32 MiB in float64.
_BLOCK_NUMBERS = 2**22


class RidgeState(NamedTuple):
    """Dual unknowns of all outputs, and what conjugate gradient carries."""

    data: _Data
    kernel: Floats | None
    precondition: Any
    u: Floats
    image: Floats
    direction: Floats
    inner: Floats
    best: Floats
    best_objective: float
    bound: float
    residual: Floats

    def product(self, u: Floats) -> Floats:
        """``A A^T u``."""
        if self.kernel is None:
            return self.data.product(u)
        return (self.kernel @ u.astype(self.kernel.dtype)).astype(u.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ridge:
    """Direct solution of the gated form with squared loss and ridge penalty.

    Parameters
    ----------
    tol : float, default=1e-6
        Relative duality gap to reach; the direct solution passes it at once.
    max_iter : int, default=200
        Most iterations of conjugate gradient, where it is needed.
    max_dense : int, default=6000
        Side of the largest matrix that is factored: the smaller of the number of rows and that of
        the weights of one output; a matrix of this side takes 288 MB.
    max_kernel : int, default=23000
        Rows up to which conjugate gradient keeps the kernel, in float32 unless ``tol`` is below
        1e-4: 2.1 GB for so many.
    rank : int, default=1500
        Rows whose kernel columns precondition conjugate gradient.
    check_every : int, default=2
        Iterations of conjugate gradient between two certificates.

    Notes
    -----
    Takes ``form="gated"``, ``SquaredLoss``, ``SquaredL2``, sample weights, a skip connection with
    a positive ridge, and a sparse ``X``. All is NumPy in float64; nothing is compiled.

    With ``m`` weights of an output the direct solution costs about ``n m**2 + m**3 / 3`` or
    ``2 n**2 (d + P) + n**3 / 3`` flops, whichever is less, and an iteration of conjugate gradient
    ``2 n**2 n_outputs`` with a kernel, ``4 n d P n_outputs`` without. Memory beyond the data: the
    matrix, or the kernel and ``2 n rank`` numbers, and a few blocks of 32 MiB.
    """

    on_host: ClassVar[bool] = True

    tol: float = 1e-6
    max_iter: int = 200
    max_dense: int = field(default=6000, metadata={"static": True})
    max_kernel: int = field(default=23000, metadata={"static": True})
    rank: int = field(default=1500, metadata={"static": True})
    check_every: int = 2

    def accept(self, problem: Any) -> Ridge:
        """Refuse what has no closed form."""
        if not isinstance(problem, ConvexProgram):
            raise TypeError(
                f"Ridge solves a ConvexProgram, not a {type(problem).__name__}; "
                "for a smooth objective use AcceleratedGradient."
            )
        if not takes(problem):
            raise TypeError(
                "Ridge needs the gated form, SquaredLoss, SquaredL2 and, if there is a skip "
                "connection, a positive ridge on it; use InteriorPoint, or ProximalGradient for "
                "the gated form and Cronos for the ReLU form."
            )
        if not problem.alpha > 0:
            raise ValueError(
                f"alpha={float(problem.alpha)!r}; Ridge needs a positive one, which may be tiny."
            )
        for name in ("max_dense", "max_kernel", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}; expected at least 1.")
        n, d = problem.operator.X.shape
        direct = min(n, d * problem.operator.n_patterns) <= self.max_dense
        return replace(self, max_iter=1, check_every=1) if direct else self

    # What the loop calls ------------------------------------------------------------------

    def init(self, problem: ConvexProgram, start: Start | None) -> RidgeState:
        """Start at zero, or at what the dual point of a similar problem says."""
        data, alpha = _Data.of(problem), float(problem.alpha)
        u = np.zeros_like(data.targets)
        if start is not None and start.dual is not None:
            u = data.root * np.asarray(start.dual.residual) / alpha
        precondition, stored = None, None
        if self.max_iter > 1:
            precondition = _nystrom(data, alpha, self.rank)
            if data.n_rows <= self.max_kernel:
                stored = data.kernel(dtype=np.float32 if self.tol >= _COARSE else np.float64)
        state = RidgeState(
            data=data,
            kernel=stored,
            precondition=precondition,
            u=u,
            image=np.zeros_like(u),
            direction=np.zeros_like(u),
            inner=np.ones(u.shape[1]),
            best=u,
            best_objective=np.inf,
            bound=-np.inf,
            residual=np.asarray(problem.y),
        )
        return state._replace(image=state.product(u)) if u.any() else state

    def refresh(self, problem: ConvexProgram, state: RidgeState) -> RidgeState:
        """Nothing outlasts an iteration."""
        return state

    def step(self, problem: ConvexProgram, state: RidgeState) -> RidgeState:
        """Solve directly, or one iteration of preconditioned conjugate gradient."""
        data, alpha = state.data, float(problem.alpha)
        if state.precondition is None:
            u, image = data.solve(alpha, coarse=self.tol >= _COARSE)
            return state._replace(u=u, image=image)
        remainder = data.targets - alpha * state.u - state.image
        z = state.precondition(remainder)
        inner = _dots(remainder, z)
        ratio = inner / np.where(state.inner == 0, 1, state.inner)
        direction = z + (ratio if state.direction.any() else 0) * state.direction
        image = state.product(direction)
        curvature = _dots(direction, image + alpha * direction)
        length = np.where(curvature > 0, inner / np.where(curvature > 0, curvature, 1), 0)
        return state._replace(
            u=state.u + length * direction,
            image=state.image + length * image,
            direction=direction,
            inner=inner,
        )

    def measure(self, problem: ConvexProgram, state: RidgeState) -> tuple[RidgeState, Measurement]:
        """Objective and bound, from the kernel times ``u`` alone."""
        data, alpha, u = state.data, float(problem.alpha), state.u
        # Weights A^T u have the squared norm u^T K u, and predictions K u in weighted units.
        norms = _dots(u, state.image)
        objective = float(((data.targets - state.image) ** 2).sum() / 2 + alpha * norms.sum() / 2)
        # The dual residual is alpha u / root, whose slope is alpha times the weights.
        linear = alpha * _dots(u, data.targets)
        square = alpha**2 * _dots(u, u) + alpha * norms
        scale = linear / np.where(square > 0, square, 1)
        bound = float((scale * linear - scale**2 * square / 2).sum())
        if bound > state.bound:
            residual = scale * alpha * u / np.where(data.root > 0, data.root, 1)
            state = state._replace(bound=bound, residual=residual)
        if not objective >= state.best_objective:
            state = state._replace(best=u, best_objective=objective)
        floor = 1e-13 * float((data.targets**2).sum()) + float(np.finfo(np.float64).tiny)
        gap = (state.best_objective - state.bound) / max(state.best_objective, floor)
        left = np.linalg.norm(data.targets - alpha * u - state.image)
        return state, Measurement(
            objective=np.float64(state.best_objective),
            dual_bound=np.float64(state.bound),
            stopping=np.float64(gap),
            refresh=np.False_,
            details={"remainder": left},
            stalled=state.precondition is None,
        )

    def weights(self, state: RidgeState) -> Floats:
        """Best point seen."""
        return state.data.weights(state.data.adjoint(state.data.root * state.best))

    def dual_point(self, state: RidgeState) -> DualPoint:
        """Residual of the best bound."""
        return DualPoint(state.residual, None)

    def flops(self, problem: ConvexProgram, result: Result) -> float:
        """Floating-point operations of a solve, counting dense products and factorisations."""
        (n, d), P = problem.operator.X.shape, problem.operator.n_patterns
        product = 4.0 * n * d * P * problem.y.shape[1]
        if min(n, P * d) <= self.max_dense:
            return min(_flops(n, d, P)) + product
        setup = 2.0 * n * self.rank * (d + P + self.rank)
        if n <= self.max_kernel:
            setup, product = setup + 2.0 * n * n * (d + P), 2.0 * n * n * problem.y.shape[1]
        return setup + product * result.n_iter


def takes(problem: ConvexProgram) -> bool:
    """Whether a program has a closed form."""
    return (
        problem.form == "gated"
        and isinstance(problem.loss, SquaredLoss)
        and isinstance(problem.penalty, SquaredL2)
        and (problem.skip is None or float(problem.skip) > 0)
    )


def kernel(problem: ConvexProgram) -> Floats:
    """The kernel ``A A^T`` of a program, shape (n_samples, n_samples)."""
    return _Data.of(problem).kernel()


@dataclass(frozen=True)
class _Data:
    """The weighted data ``A`` as products; a pattern's column may be scaled (a skip connection)."""

    X: Any
    columns: Floats
    root: Floats
    y: Floats
    stretch: float

    @classmethod
    def of(cls, problem: ConvexProgram) -> _Data:
        n = problem.y.shape[0]
        share = np.broadcast_to(problem.share, (n, 1))
        columns = problem.operator.mask.astype(problem.operator.X.dtype)
        stretch = 1.0
        if problem.skip is not None:
            # z' = z / stretch has the ridge alpha, as all the others.
            stretch = float(np.sqrt(problem.alpha / problem._skip_ridge))
            columns[:, -1] *= stretch
        return cls(problem.operator.X, columns, np.sqrt(share), problem.y, stretch)

    @property
    def n_rows(self) -> int:
        return self.X.shape[0]

    @property
    def n_weights(self) -> int:
        return self.X.shape[1] * self.columns.shape[1]

    @property
    def targets(self) -> Floats:
        return self.root * self.y

    def weights(self, blocks: Floats) -> Floats:
        """Weights of the program, (n_outputs, 1, n_patterns, n_features)."""
        out = blocks[:, None].copy()
        out[:, :, -1] *= self.stretch
        return out

    def forward(self, blocks: Floats) -> Floats:
        """Predictions (n, n_outputs) of blocks (n_outputs, n_patterns, n_features)."""
        C, P, d = blocks.shape
        flat = np.ascontiguousarray(blocks.reshape(C * P, d).T)
        out = np.empty((self.n_rows, C), blocks.dtype)
        for rows in self._row_blocks(C * P):
            scores = np.asarray(self.X[rows] @ flat).reshape(-1, C, P)
            out[rows] = np.matmul(scores, self.columns[rows][:, :, None])[..., 0]
        return out

    def adjoint(self, R: Floats) -> Floats:
        """Adjoint of :meth:`forward`."""
        C, P, d = R.shape[1], self.columns.shape[1], self.X.shape[1]
        out = np.zeros((d, C * P), R.dtype)
        for rows in self._row_blocks(C * P):
            spread = R[rows][:, :, None] * self.columns[rows][:, None, :]
            out += self.X[rows].T @ spread.reshape(-1, C * P)
        return out.T.reshape(C, P, d)

    def product(self, u: Floats) -> Floats:
        """``A A^T u``."""
        return self.root * self.forward(self.adjoint(self.root * u))

    def kernel(self, columns: NDArray[np.intp] | None = None, dtype: Any = np.float64) -> Floats:
        """``A A^T``, or some of its columns, block by block of the rows."""
        X, D = self.X.astype(dtype, copy=False), self.columns.astype(dtype, copy=False)
        root = self.root[:, 0].astype(dtype)
        other = slice(None) if columns is None else columns
        X_other, D_other, root_other = X[other].T, D[other].T, root[other]
        K = np.empty((self.n_rows, len(root_other)), dtype)
        for rows in self._row_blocks(len(root_other)):
            block = X[rows] @ X_other
            K[rows] = block.toarray() if is_sparse(block) else block
            K[rows] *= D[rows] @ D_other
            K[rows] *= root[rows, None]
            K[rows] *= root_other
        return K

    def solve(self, alpha: float, *, coarse: bool) -> tuple[Floats, Floats]:
        """Find ``u`` and the kernel times ``u`` through the cheaper of the two matrices."""
        dual, primal = _flops(self.n_rows, self.X.shape[1], self.columns.shape[1])
        if dual * (0.5 if coarse else 1) <= primal:  # float32 is twice as fast
            return self._solve_dual(alpha, np.float32 if coarse else np.float64)
        gram, right = np.zeros((self.n_weights,) * 2), np.zeros((self.n_weights, self.y.shape[1]))
        for rows in self._row_blocks(self.n_weights):
            X = self.X[rows].toarray() if is_sparse(self.X) else self.X[rows]
            D = self.root[rows] * self.columns[rows]
            A = (D[:, :, None] * X[:, None, :]).reshape(len(D), -1)
            gram += A.T @ A
            right += A.T @ self.targets[rows]
        gram[np.diag_indices(len(gram))] += alpha
        factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
        blocks = cho_solve(factor, right, check_finite=False).T
        blocks = blocks.reshape(-1, self.columns.shape[1], self.X.shape[1])
        # alpha u is what the predictions leave of the targets.
        u = self.root * (self.y - self.forward(blocks)) / alpha
        return u, self.product(u)

    def _solve_dual(self, alpha: float, dtype: Any) -> tuple[Floats, Floats]:
        K = self.kernel(dtype=dtype)
        shifted = K.copy()
        shifted[np.diag_indices(len(K))] += dtype(alpha)
        targets = self.targets
        try:
            factor = cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            if dtype is np.float64:
                raise
            return self._solve_dual(alpha, np.float64)  # alpha is below the rounding of float32
        u = image = np.zeros_like(targets)
        # The second time takes off what a factor in float32 left.
        for _ in range(2 if dtype is np.float32 else 1):
            remainder = (targets - alpha * u - image).astype(dtype)
            u = u + cho_solve(factor, remainder, check_finite=False)
            image = (K @ u.astype(dtype)).astype(np.float64)
        return u, image

    def _row_blocks(self, width: int) -> Iterator[slice]:
        size = max(_BLOCK_NUMBERS // max(width, 1), 1)
        for first in range(0, self.n_rows, size):
            yield slice(first, min(first + size, self.n_rows))


def _dots(a: Floats, b: Floats) -> Floats:
    """Inner product of each output's columns."""
    return np.einsum("nc,nc->c", a, b)


def _flops(n: int, d: int, P: int) -> tuple[float, float]:
    """Cost of the direct solution with the matrix of the rows, and with that of the weights."""
    m = float(d * P)
    return 2.0 * n * n * (d + P) + n**3 / 3.0, n * m**2 + m**3 / 3.0


def _nystrom(data: _Data, alpha: float, rank: int) -> Any:
    """Inverse of the Nystrom approximation of the kernel plus ``alpha``, as a function."""
    rows = np.random.RandomState(0).permutation(data.n_rows)[:rank]
    columns = data.kernel(rows)
    core = columns[rows]
    core[np.diag_indices(len(core))] += 1e-10 * np.trace(core) + np.finfo(float).tiny
    lower = cholesky(core, lower=True, check_finite=False)
    basis = solve_triangular(lower, columns.T, lower=True, overwrite_b=True, check_finite=False).T
    inner = basis.T @ basis
    inner[np.diag_indices(len(inner))] += alpha
    factor = cho_factor(inner, lower=True, overwrite_a=True, check_finite=False)

    def precondition(r: Floats) -> Floats:
        return (r - basis @ cho_solve(factor, basis.T @ r, check_finite=False)) / alpha

    return precondition
