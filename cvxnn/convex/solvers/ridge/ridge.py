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

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.accelerator import Work
from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.host_program import on_host
from cvxnn.convex.operators import GatedOperator, PairedOperator
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Measurement, Result, Solver, Start
from cvxnn.convex.solvers.ridge.closed_form import certify, check_closed_form, dots, takes
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.direct_solution import kernel_to_factor, solve_directly
from cvxnn.convex.solvers.ridge.kernel import COARSE, Kernel
from cvxnn.convex.solvers.ridge.nystrom_kernel import NystromKernel
from cvxnn.convex.solvers.ridge.ridge_flops import (
    direct_flops,
    kernel_flops,
    kernel_product_flops,
    products_before_kernel,
    takes_kernel,
)
from cvxnn.convex.solvers.ridge.ridge_state import RidgeState, with_factor
from cvxnn.numerics.arrays import is_sparse, register_pytree

if TYPE_CHECKING:
    from jax.sharding import Mesh

Floats = NDArray[np.floating]


# From this gap on, and for more flops than these, iterations beat a factorisation.
_COARSE_GAP = 1e-3
_WORTH_ITERATING = 2e10
# A kernel that pays after so many products is stored at once: there will be as many.
_SOON = 8
# Part of the rows whose kernel columns are worth their price, and numbers that these may take.
_SAMPLED, _BASIS_NUMBERS = 8, 2**27
# Iterations of conjugate gradient that are expected: gaps of 1 % take 6 to 20.
_EXPECTED = 15
# Iterations after which a stored kernel is factored, as a part of those that take as long, and at
# least: so many are seldom the last ones.
_HALF_PRICE, _LEAST_PATIENCE = 0.5, 20
# What a state knows of its points before the first is measured.
_UNMEASURED: dict[str, Any] = {"least_gap": np.inf, "objective": np.inf, "bound": -np.inf}


@register_pytree
@dataclass(frozen=True)
class Ridge(Solver[ConvexProgram, RidgeState]):
    """Direct solution of the gated formulation with squared loss and ridge penalty.

    Parameters
    ----------
    tol : float, default=1e-6
        Relative duality gap to reach; the direct solution passes it at once. From 1e-3 on,
        larger problems (about 3,000 rows) are solved by conjugate gradient instead.
    max_iter : int, default=200
        Most iterations of conjugate gradient, where it is needed.
    max_dense : int, default=6000
        Side of the largest matrix that is factored: the smaller of the number of rows and that of
        the weights of one output; a matrix of this side takes 288 MB.
    max_kernel : int, default=23000
        Rows up to which conjugate gradient may keep the kernel, in float32 unless ``tol`` is below
        1e-4: 2.1 GB for so many. It does where many products with the data would take longer.
    rank : int, default=1000
        Rows whose kernel columns precondition conjugate gradient; at most one in eight, and at most
        so many that the columns take 512 MiB in float32.
    check_every : int, default=1
        Iterations of conjugate gradient between two certificates.
    kernel : ndarray, shape (n_samples, n_samples), optional
        Kernel :math:`A A^T` of the gates, where it is known (:meth:`kernel_of`); it is not
        computed again then. In float32, it serves for ``tol`` of 1e-4 or more only. A linear
        part is added to it.

    Notes
    -----
    Takes ``formulation="gated"``, ``SquaredLoss``, ``SquaredL2``, sample weights, a linear part
    with a positive ridge, and a sparse ``X``. All is NumPy in float64; nothing is compiled, except
    where devices share the rows (``mesh`` of ``solve``): conjugate gradient, in the precision of
    ``X``, then has products with the data alone.

    With ``m`` weights of an output the direct solution costs about ``n m**2 + m**3 / 3`` or
    ``n**2 (d + P) + n**3 / 3`` flops, whichever is less, the cube for each distinct ``alpha`` of
    the outputs, and an iteration of conjugate gradient
    ``2 n**2 n_outputs`` with a kernel, ``4 n d P n_outputs`` without. Memory beyond the data: the
    matrix, or the kernel and ``2 n rank`` numbers, and a few blocks of 32 MiB. Up to ``max_dense``
    rows, a kernel is factored as well, beside it, where conjugate gradient takes half as long.
    """

    on_host: ClassVar[bool] = True
    takes_sparse: ClassVar[bool] = True
    takes_pairs: ClassVar[bool] = True

    tol: float = 1e-6
    max_iter: int = 200
    max_dense: int = field(default=6000, metadata={"static": True})
    max_kernel: int = field(default=23000, metadata={"static": True})
    rank: int = field(default=1000, metadata={"static": True})
    check_every: int = 1
    kernel: Floats | None = field(default=None, repr=False, compare=False)

    def accept(self, program: Any) -> Ridge:
        """Refuse what has no closed form."""
        check_closed_form(program)
        for name in ("max_dense", "max_kernel", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}; expected at least 1.")
        return replace(self, max_iter=1, check_every=1) if self._is_direct(program) else self

    def across_devices(self) -> Solver[Any, Any]:
        """Return conjugate gradient in compiled code; nothing is factored, and no kernel kept."""
        from cvxnn.convex.solvers.ridge.on_devices import RidgeOnDevices

        return RidgeOnDevices(self.tol, self.max_iter, self.rank)

    def gains_from_devices(self, program: ConvexProgram) -> bool:
        """Return whether the rows are dense, and too many to be factored."""
        X = program.operator.X
        return not (is_sparse(X) or self._is_direct(program))

    def accelerator(self, program: ConvexProgram) -> Mesh | None:
        """Return JAX's accelerator where the program takes much less time there."""
        precise = self.tol >= COARSE or program.operator.X.dtype == np.float64
        # Some solvers refuse the program: those say so themselves.
        usable = takes(program) and precise and self.gains_from_devices(program)
        return self.work(program).accelerator() if usable else None

    def work(self, program: ConvexProgram) -> Work:
        """Estimate what conjugate gradient takes on the host and on an accelerator.

        Parameters
        ----------
        program : ConvexProgram
            One that the solver takes; only its sizes count.
        """
        op, (n, C), size = program.operator, program.y.shape, program.operator.X.dtype.itemsize
        (n_inputs, d), P = op.X.shape, op.n_patterns
        rank = self._sampled(n)
        of_rank = rank * (2 if isinstance(op, PairedOperator) else 1)
        columns = 2.0 * n_inputs * of_rank * (d + P) + 2.0 * n * rank**2
        products = _EXPECTED * 4.0 * n_inputs * d * P * C
        stored = np.inf
        if n_inputs <= self.max_kernel:
            stored = kernel_flops(n_inputs, d, P) + _EXPECTED * 2.0 * n * n * C
        sent = n_inputs * (d * size + P) + n * (C + 1) * size
        return Work(
            host_flops=columns + min(products, stored),
            host_dtype=np.dtype(self._precision),
            flops=columns + products,
            dtype=op.X.dtype,
            sent=sent,
            memory=sent + 2 * size * n_inputs * max(of_rank, 2 * P * C),
        )

    def kernel_of(self, program: ConvexProgram) -> Floats | None:
        """Compute the kernel that the direct solution of a program factors, in its precision.

        Parameters
        ----------
        program : ConvexProgram
            One that the solver takes.

        Returns
        -------
        ndarray, shape (n_samples, n_samples), or None
            For ``kernel`` of solvers of the same program at other strengths; None where another
            matrix is factored, or none.
        """
        if not self._is_direct(program):
            return None
        data, alpha = RidgeData.of(on_host(program, np.float64)), _alpha_of(program)
        return kernel_to_factor(data, alpha, coarse=self.tol >= COARSE, max_dense=self.max_dense)

    def _is_direct(self, program: ConvexProgram) -> bool:
        n, m = program.operator.n_rows, program.operator.n_patterns * program.operator.X.shape[1]
        if min(n, m) > self.max_dense:
            return False
        # A coarse tolerance takes a few iterations, each far cheaper than a factorisation.
        cost = min(direct_flops(program.operator, np.size(np.unique(program.alpha))))
        return self.tol < _COARSE_GAP or cost <= _WORTH_ITERATING

    # What the loop calls ------------------------------------------------------------------

    def init(self, program: ConvexProgram, start: Start | None) -> RidgeState:
        """Start at zero, or at the dual point of a similar program."""
        data, alpha = RidgeData.of(program), _alpha_of(program)
        u = np.zeros_like(data.targets)
        if start is not None and start.dual is not None:
            u = data.root * np.asarray(start.dual.residual) / alpha
        precondition, kernel = None, Kernel(data)
        if not self._is_direct(program):
            rows = data.cast(self._precision)
            sampled = NystromKernel.of(rows, self._sampled(len(u)), self._precision)
            precondition = sampled.shifted(alpha)
            fine = self.kernel is not None and self.kernel.dtype == np.float64
            known = self.kernel if fine or self.tol >= COARSE else None
            kernel = Kernel(data, known, rows)
        state = RidgeState(
            kernel=kernel,
            alpha=alpha,
            precondition=precondition,
            u=u,
            image=np.zeros_like(u),
            direction=np.zeros_like(u),
            inner=np.ones(u.shape[1]),
            best=u,
            **_UNMEASURED,
        )
        return state._replace(image=state.kernel.product(u, alpha)) if u.any() else state

    def step(self, program: ConvexProgram, state: RidgeState) -> RidgeState:
        """Solve directly, or one iteration of preconditioned conjugate gradient."""
        data, alpha = state.data, state.alpha
        if state.precondition is None:
            u, image = solve_directly(
                data,
                alpha,
                coarse=self.tol >= COARSE,
                max_dense=self.max_dense,
                kernel=self.kernel,
            )
            return state._replace(u=u, image=image)
        if state.kernel.matrix is not None and state.n_products == self._patience(program):
            state = with_factor(state)
        remainder = data.targets - alpha * state.u - state.image
        z = state.precondition(remainder)
        inner = dots(remainder, z)
        ratio = inner / np.where(state.inner == 0, 1, state.inner)
        direction = z + (ratio if state.direction.any() else 0) * state.direction
        kernel = state.kernel
        before = self._products_before_kernel(program.operator, len(inner))
        if kernel.matrix is None and state.n_products == before:
            kernel = Kernel.stored(data, self._precision)
        image = kernel.product(direction, alpha)
        curvature = dots(direction, image + alpha * direction)
        length = np.where(curvature > 0, inner / np.where(curvature > 0, curvature, 1), 0)
        return state._replace(
            u=state.u + length * direction,
            image=state.image + length * image,
            kernel=kernel,
            n_products=state.n_products + 1,
            blocks=None,
            direction=direction,
            inner=inner,
        )

    def measure(self, program: ConvexProgram, state: RidgeState) -> tuple[RidgeState, Measurement]:
        """Compute objective and bound, from the kernel times ``u`` alone."""
        data, alpha, u = state.data, state.alpha, state.u
        direct = state.precondition is None
        least = program.rounding()
        objective, bound = certify(data.targets, u, state.image, alpha)
        if direct or objective - bound <= self.tol * max(objective, least):
            # What is reported belongs to weights in float64. Those of a weak strength are small
            # differences of large unknowns, of which the kernel knows less than the data.
            state = self._exactly(state)._replace(**_UNMEASURED)
            if state.n_products > self._patience(program):
                # A factored kernel refines from there; directions belong to what the kernel knows.
                state = state._replace(direction=np.zeros_like(u))
            objective, bound = certify(
                data.targets, u, state.image, alpha, data.norms(state.blocks, alpha)
            )
        gap = (objective - bound) / max(objective, least)
        if not gap >= state.least_gap:  # weights and proof are of one point, whose gap this is
            state = state._replace(best=u, least_gap=gap)
        state = state._replace(
            objective=np.fmin(objective, state.objective), bound=np.fmax(bound, state.bound)
        )
        left = np.linalg.norm(data.targets - alpha * u - state.image)
        return state, Measurement(
            objective=np.float64(state.objective),
            dual_bound=np.float64(state.bound),
            stopping=np.float64(state.least_gap),
            details={"remainder": left},
            stalled=direct,
        )

    def conclude(
        self, program: ConvexProgram, state: RidgeState
    ) -> tuple[RidgeState, Measurement] | None:
        """Measure the best point by its weights, where the kernel has measured it so far."""
        if state.precondition is None:
            return None
        data, alpha, u = state.data, state.alpha, state.best
        state = self._exactly(state._replace(u=u))
        objective, bound = certify(
            data.targets, u, state.image, alpha, data.norms(state.blocks, alpha)
        )
        gap = (objective - bound) / max(objective, program.rounding())
        return state, Measurement(np.float64(objective), np.float64(bound), np.float64(gap))

    @staticmethod
    def _exactly(state: RidgeState) -> RidgeState:
        """Return the state with the weights of its point, and its predictions in float64."""
        data = state.data
        blocks = data.blocks_of(state.u, state.alpha)
        return state._replace(image=data.root * data.forward(blocks), blocks=blocks)

    def weights(self, state: RidgeState) -> Floats:
        """Return the point of least gap."""
        blocks = state.blocks
        if blocks is None or state.best is not state.u:
            blocks = state.data.blocks_of(state.best, state.alpha)
        return blocks[:, None]

    def dual_point(self, state: RidgeState) -> DualPoint:
        """Return the residual of the same point."""
        # Its slope is alpha times the weights; bound_of finds the scale again.
        root = state.data.root
        return DualPoint(state.alpha * state.best / np.where(root > 0, root, 1), None)

    def flops(self, program: ConvexProgram, result: Result) -> float:
        """Return the flops of a solve, counting dense products and factorisations."""
        operator, (n, C) = program.operator, program.y.shape
        (n_inputs, d), P = operator.X.shape, operator.n_patterns
        product = 4.0 * n_inputs * d * P * C
        if self._is_direct(program):
            n_factors = np.size(np.unique(program.alpha))
            if self.kernel is not None:
                return n_factors * n**3 / 3.0 + product
            coarse = self.tol >= COARSE
            dual, primal = direct_flops(operator, n_factors)
            by_rows = takes_kernel(operator, coarse=coarse, max_dense=self.max_dense)
            return (dual if by_rows else primal) + product
        rank = self._sampled(n)
        cost = 2.0 * n * rank * (d + P + rank) + product + 4.0 * n * rank * C * result.n_iter
        if result.n_iter > self._patience(program):
            cost += n**3 / 3.0
        if self.kernel is not None:
            return cost + 2.0 * n * n * C * result.n_iter
        before = min(self._products_before_kernel(operator, C), result.n_iter)
        cost += product * before
        if before < result.n_iter:
            cost += kernel_flops(n_inputs, d, P) + 2.0 * n * n * C * (result.n_iter - before)
        return cost

    @property
    def _precision(self) -> Any:
        """Precision of the products of conjugate gradient."""
        return np.float32 if self.tol >= COARSE else np.float64

    def _products_before_kernel(self, operator: GatedOperator, n_outputs: int) -> float:
        """Return the number of products of conjugate gradient after which the kernel is stored.

        So many as would have paid for it: likely, as many are still to come.
        """
        if operator.X.shape[0] > self.max_kernel:
            return np.inf
        before = products_before_kernel(operator, n_outputs)
        return 0 if before <= _SOON else float(np.ceil(before))

    def _patience(self, program: ConvexProgram) -> float:
        """Return the number of products of conjugate gradient after which a kernel is factored.

        Infinite where it is too large or not the whole matrix, or outputs have several strengths.
        """
        n, C = program.y.shape
        if n > self.max_dense or program.skip is not None or np.size(np.unique(program.alpha)) > 1:
            return np.inf
        steps = n**3 / 3.0 / kernel_product_flops(n, C)
        return float(np.ceil(max(_HALF_PRICE * steps, _LEAST_PATIENCE)))

    def _sampled(self, n: int) -> int:
        """Return the number of rows whose kernel columns precondition."""
        return min(self.rank, n // _SAMPLED + 1, max(_BASIS_NUMBERS // n, 1))


def _alpha_of(program: ConvexProgram) -> Any:
    """Return the strength: a number, or one for each output, as columns are."""
    return np.asarray(program.alpha, np.float64)[()]
