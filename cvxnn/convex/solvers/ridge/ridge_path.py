r"""The closed form along a path of strengths, for little more than the price of one.

All strengths share one matrix :math:`K = A A^T` (see ``cvxnn.convex.solvers.ridge.ridge``). The
solutions lie close to a space of few dimensions, which is built as it is needed: at each strength
the system is solved in the space found so far and the gap is certified. If it is too large, the
remainder joins the space, first multiplied by the inverse of :math:`K + \alpha' I` for a strength
:math:`\alpha'` nearby (a Krylov space with few poles, recycled from strength to strength). A few
factorisations serve the whole path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, qr
from scipy.sparse.linalg import LinearOperator, eigsh

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.host_program import on_host
from cvxnn.convex.operators import Weights
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Result, Status, relative_gap
from cvxnn.convex.solvers.ridge.closed_form import certify, takes
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import shifted_inverse
from cvxnn.convex.solvers.ridge.kernel import COARSE, Kernel, predict
from cvxnn.convex.solvers.ridge.nystrom_kernel import NystromKernel
from cvxnn.convex.solvers.ridge.ridge import Floats, Ridge
from cvxnn.convex.solvers.ridge.ridge_flops import GatedRows, direct_flops, kernel_product_flops

# Steps at one strength after which another factorisation is made: as many as take half its time.
_MOST_PATIENCE = 40
# Operations that take as long as what Python does in a step.
_CALLS = 5e6
# A factorisation is made for a strength this much smaller, to serve those to come, unless it takes
# no longer than so many steps.
_AHEAD, _FEW = 30.0, 5
# A gap that is not below this part of the least so far is no progress.
_PROGRESS = 0.9


# Least number of steps whose directions are kept before the space is started again.
_LEAST_STEPS = 50


class RidgePoint(NamedTuple):
    """The solution at one strength.

    Attributes
    ----------
    alpha : float
        Strength of the penalty.
    u, image : ndarray, shape (n_samples, n_outputs)
        Dual unknowns, and the kernel times them.
    objective, dual_bound, gap : float
        Certificate, as in ``Result``.
    n_iter : int
        Dimensions that this strength added to the space, for each output.
    time : float
        Seconds since the path began.
    """

    alpha: float
    u: Floats
    image: Floats
    objective: float
    dual_bound: float
    gap: float
    n_iter: int
    time: float


@dataclass
class RidgePath:
    """Solutions of one program at many strengths.

    Parameters
    ----------
    program : ConvexProgram
        One for which ``takes_path`` is true; its own ``alpha`` is not used.
    solver : Ridge
        Tolerance of each strength and limits of size; ``rank`` is also the most dimensions of the
        space, or 50 for each output if that is more; beyond it the space is started again.
    matrix : ndarray, shape (n_samples, n_samples), optional
        Kernel of the program, where it is known; it is not computed again then.
    """

    program: ConvexProgram
    solver: Ridge = field(default_factory=Ridge)
    matrix: Floats | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Prepare the data and choose the matrix that is factored."""
        if not takes_path(self.program):
            raise TypeError(
                "RidgePath needs the gated formulation, SquaredLoss, SquaredL2 and no linear "
                "part; use regularization_path."
            )
        self.solver.accept(replace(self.program, alpha=1.0))
        self._given = self.program.operator.X.dtype
        self.program = on_host(self.program, np.float64)
        self.data = RidgeData.of(self.program)
        self.dtype: Any = np.float32 if self.solver.tol >= COARSE else np.float64
        self._primal = takes_primal(self.data, self.solver.max_dense)
        small = min(self.data.n_rows, self.data.n_weights) <= self.solver.max_dense
        self._direct = small and not self._primal
        stored = self._direct or (not self._primal and self.data.n_rows <= self.solver.max_kernel)
        if stored and self.matrix is None:
            self.kernel = Kernel.stored(self.data, self.dtype)
        else:
            self.kernel = Kernel(self.data, self.matrix if stored else None)
        self._reduced: Any = None
        # Operations of products and factorisations so far.
        self.flops = 0.0

    def largest(self) -> float:
        """Return the largest eigenvalue of the kernel, the unit of the strength."""
        n = self.data.n_rows
        if n == 1:
            return float(self.kernel.product(np.ones((1, 1)))[0, 0])
        operator = LinearOperator(
            (n, n), matvec=lambda v: self.kernel.product(v.reshape(-1, 1))[:, 0], dtype=np.float64
        )
        start = np.random.RandomState(0).standard_normal(n)
        if not operator.matvec(start).any():  # no data, or no pattern that is open on any
            return 0.0
        values = eigsh(operator, k=1, v0=start, tol=1e-6, return_eigenvectors=False)
        return float(values[0])

    def points(self, alphas: NDArray[np.floating]) -> Iterator[RidgePoint]:
        """Yield solutions at positive strengths, which are best given falling.

        Each has a gap of at most ``solver.tol`` unless it takes more than ``solver.max_iter``
        steps or rounding ends its progress, which its gap shows.
        """
        began, space = time.perf_counter(), _Space.empty(self.data.n_rows)
        inverse: Callable[[Floats], Floats] = lambda r: r  # noqa: E731
        at, exact = np.inf, self._direct or self._primal
        lowest = 0.0  # a strength below which the matrix cannot be factored for rounding
        targets = self.data.targets
        least, hidden = self.program.rounding(), self.data.rounding(0.0)
        # The result takes an exact product, which shows what float32 hides.
        tol = self.solver.tol * (0.9 if self.dtype is np.float32 else 1)
        for alpha in np.asarray(alphas, np.float64):
            best: RidgePoint | None = None
            stalled = 0
            kept = max(alpha, hidden)
            for n_iter in range(self.solver.max_iter + 1):
                u, image = space.solve(targets, kept)
                objective, bound = certify(targets, u, image, alpha)
                gap = (objective - bound) / max(abs(objective), least)
                stalled = 0 if best is None or gap < _PROGRESS * best.gap else stalled + 1
                if best is None or gap < best.gap:
                    elapsed = time.perf_counter() - began
                    best = RidgePoint(alpha, u, image, objective, bound, gap, n_iter, elapsed)
                # With the nearest factor that there is, what does not fall is rounding.
                if gap <= tol or (exact and at <= max(kept, lowest) and stalled >= _FEW):
                    break
                patience = self._patience(space.basis.shape[1])
                if n_iter % patience == patience - 1 and at > max(kept, lowest):
                    ahead = kept / _AHEAD
                    asked = ahead if patience > _FEW and ahead < at else kept
                    inverse, at = self._inverse(asked)
                    lowest = at if at > asked else lowest
                most = max(self.solver.rank, _LEAST_STEPS * u.shape[1])
                if space.basis.shape[1] + u.shape[1] > most:
                    space = _Space.empty(self.data.n_rows).joined(u, self.kernel.product)
                wider = space.joined(inverse(targets - kept * u - image), self.kernel.product)
                if wider is space:
                    break
                space = wider
                self.flops += self._flops_of_step()
            assert best is not None
            yield best

    def result(self, point: RidgePoint) -> Result:
        """Return weights and certificate of a point, as ``solve`` does."""
        data, alpha = self.data, point.alpha
        # Of its weights, whatever the kernel says.
        blocks = data.blocks_of(point.u, alpha)
        image = data.root * data.forward(blocks)
        objective, bound = certify(data.targets, point.u, image, alpha, data.norms(blocks, alpha))
        gap = (objective - bound) / max(abs(objective), self.program.rounding())
        residual = alpha * point.u / np.where(data.root > 0, data.root, 1)
        weights = blocks[:, None]
        row = {
            "iteration": float(point.n_iter),
            "time": point.time,
            "objective": objective,
            "dual_bound": bound,
            "stopping": gap,
        }
        return Result(
            weights=Weights(weights.astype(self._given, copy=False)),
            objective=objective,
            dual_bound=bound,
            gap=relative_gap(objective, bound, self.program.rounding()),
            status=Status.CONVERGED if gap <= self.solver.tol else Status.MAX_ITER,
            n_iter=point.n_iter,
            history={name: np.array([value]) for name, value in row.items()},
            dual=DualPoint(residual, None),
        )

    def predict(self, points: list[RidgePoint], X: Any, mask: NDArray[np.bool_]) -> Floats:
        """Return predictions of new rows at each point, (n_points, n_rows, n_outputs)."""
        U = np.concatenate([point.u for point in points], axis=1)
        out = predict(self.data, U, X, mask, self.dtype)
        return np.moveaxis(out.reshape(len(mask), len(points), -1), 1, 0)

    def _patience(self, dimensions: int) -> int:
        """Return the number of steps at one strength before another factorisation.

        A step of a space of many dimensions takes longer.
        """
        data, C = self.data, self.data.y.shape[1]
        inside = 8.0 * data.n_rows * dimensions * C + 2 / 3 * dimensions**3 + _CALLS
        if self._direct:
            steps = data.n_rows**3 / 3 / (kernel_product_flops(data.n_rows, C) + inside)
        elif self._primal:
            product = 4.0 * data.n_rows * data.n_weights * C
            steps = data.n_weights**3 / 3 / (product + inside)
        else:  # of the side of a sample
            return _FEW
        return int(np.clip(steps / 2, 1, _MOST_PATIENCE))

    def _inverse(self, alpha: float) -> tuple[Callable[[Floats], Floats], float]:
        """Approximate inverse of the kernel plus a strength, and that strength."""
        try:
            return self._factor(alpha), alpha
        except LinAlgError:  # the strength is below the rounding of the matrix
            return self._inverse(10 * alpha)

    def _flops_of_step(self) -> float:
        """Return the operations of a product with all outputs, by the kernel where it is stored."""
        data, C = self.data, self.data.y.shape[1]
        n = data.n_rows
        return (4.0 * n * data.n_weights if self.kernel.matrix is None else 2.0 * n * n) * C

    def _factor(self, alpha: float) -> Callable[[Floats], Floats]:
        data = self.data
        side = data.n_rows if self._direct else data.n_weights if self._primal else self.solver.rank
        self.flops += side**3 / 3.0
        if self._direct:
            return shifted_inverse(self.kernel.matrix, alpha)
        if self._primal:
            if self._reduced is None:
                self._reduced = data.gram()[0]
            solve = shifted_inverse(self._reduced, alpha)

            def woodbury(r: Floats) -> Floats:
                flat = data.adjoint(data.root * r).reshape(r.shape[1], -1).T
                return (r - data.root * data.forward(data.blocks(solve(flat)))) / alpha

            return woodbury
        if self._reduced is None:
            self._reduced = NystromKernel.of(data, self.solver.rank)
        return self._reduced.shifted(alpha)


def takes_primal(data: GatedRows, max_dense: int) -> bool:
    """Return whether a path factors the matrix of the weights, and needs no kernel."""
    dual, primal = direct_flops(data)
    return min(data.n_rows, data.n_patterns * data.X.shape[1]) <= max_dense and primal < dual


def takes_path(program: ConvexProgram) -> bool:
    """Return True if all strengths of a program share one matrix, as without a linear part."""
    return takes(program) and program.skip is None


class _Space(NamedTuple):
    """An orthonormal basis with what the kernel makes of it."""

    basis: Floats
    image: Floats
    inner: Floats

    @classmethod
    def empty(cls, n: int) -> _Space:
        return cls(np.zeros((n, 0)), np.zeros((n, 0)), np.zeros((0, 0)))

    def solve(self, targets: Floats, alpha: float) -> tuple[Floats, Floats]:
        """Return the solution within the space, and the kernel times it."""
        if self.basis.shape[1] == 0:
            return np.zeros_like(targets), np.zeros_like(targets)
        shifted = self.inner + alpha * np.eye(len(self.inner))
        inside = np.linalg.solve(shifted, self.basis.T @ targets)
        return self.basis @ inside, self.image @ inside

    def joined(self, more: Floats, product: Callable[[Floats], Floats]) -> _Space:
        """Return the space with more directions, or itself if they lead nowhere new."""
        more = more / np.maximum(np.linalg.norm(more, axis=0), np.finfo(np.float64).tiny)
        for _ in range(2):  # the second time takes off what rounding left
            more = more - self.basis @ (self.basis.T @ more)
        # With pivots, columns that lead nowhere new come last and leave the others alone.
        more, upper, _ = qr(more, mode="economic", pivoting=True, check_finite=False)
        more = more[:, np.abs(np.diagonal(upper)) > 1e-8]
        if more.shape[1] == 0:
            return self
        image = product(more)
        basis = np.concatenate([self.basis, more], axis=1)
        images = np.concatenate([self.image, image], axis=1)
        cross = basis.T @ image
        size = len(self.inner)
        inner = np.empty((basis.shape[1],) * 2)
        inner[:size, :size] = self.inner
        inner[:, size:], inner[size:] = cross, cross.T
        return _Space(basis, images, inner)
