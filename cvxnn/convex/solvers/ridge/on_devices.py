r"""The closed form's linear system by conjugate gradient in compiled code.

It is what ``Ridge`` becomes where devices share the rows: the same system in the dual unknowns
:math:`u` (see ``cvxnn.convex.solvers.ridge.ridge``), the same preconditioner and certificate.
Unknowns and columns of the kernel are divided like the rows; weights, and matrices of the sampled
rows, are on all devices. The kernel itself is never formed: a product with it is one with the data
each way, between which arrays of the size of the weights are summed over the devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular

from cvxnn.convex.compiled_calls import Compiled
from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.operators import GatedOperator, PairedOperator
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Measurement, Solver, Start
from cvxnn.convex.solvers.ridge.closed_form import certify, check_closed_form, dots
from cvxnn.numerics.arrays import register_pytree

# Roundings of a trace by which a Gram matrix is shifted before it is factored.
_ROUNDINGS = 10.0


class RidgeOnDevicesState(NamedTuple):
    """Dual unknowns of all outputs, and the vectors of conjugate gradient."""

    u: Array
    blocks: Array
    """Weights of ``u``, (n_outputs, n_patterns, n_features)."""
    image: Array
    direction: Array
    inner: Array
    basis: Array
    """Factor of the kernel from its columns at some rows; columns of a linear part come last."""
    inverses: Array
    """Inverses of the inner products of the basis, shifted: one, or one for each output."""
    best: Array
    """Weights of the point of least gap."""
    residual: Array
    """Residual of the same point."""
    least_gap: Array
    objective: Array
    bound: Array


class _Image(NamedTuple):
    """What the kernel makes of dual unknowns, and their weights."""

    blocks: Array
    image: Array
    norms: Array
    """Squared norm of each output's weights."""


@register_pytree
@dataclass(frozen=True)
class RidgeOnDevices(Solver[ConvexProgram, RidgeOnDevicesState]):
    """Conjugate gradient for the programs of ``Ridge``, compiled.

    Parameters
    ----------
    tol : float, default=1e-6
        Relative duality gap to reach.
    max_iter : int, default=200
        Most iterations; one costs ``4 n d P n_outputs`` flops.
    rank : int, default=1000
        Rows whose kernel columns precondition; at most one in eight.
    check_every : int, default=1
        Iterations between two certificates, of which the last costs as much as an iteration, and
        those before it next to nothing.

    Notes
    -----
    All is in the precision of ``X``. Beyond the data it needs memory for ``n rank`` numbers, twice
    at the beginning, and for an array of ``n P n_outputs``.
    """

    takes_pairs: ClassVar[bool] = True

    tol: float = 1e-6
    max_iter: int = 200
    rank: int = field(default=1000, metadata={"static": True})
    check_every: int = 1

    def accept(self, program: Any) -> RidgeOnDevices:
        """Refuse what has no closed form."""
        check_closed_form(program)
        return self

    def streams_rows(self, program: ConvexProgram) -> bool:
        """Return True."""
        return True

    # What the loop calls ------------------------------------------------------------------

    def init(self, program: ConvexProgram, start: Start | None) -> RidgeOnDevicesState:
        """Start at zero, or at the dual point of a similar program."""
        y = program.y
        u = jnp.zeros_like(y)
        if start is not None and start.dual is not None:
            u = _root(program) * start.dual.residual / _alpha(program)
        blocks, image, _ = _kernel_product(program, u)
        basis, inverses = _preconditioner(program, min(self.rank, len(y) // 8 + 1))
        return RidgeOnDevicesState(
            u=u,
            blocks=blocks,
            image=image,
            direction=jnp.zeros_like(u),
            inner=jnp.ones(y.shape[1], y.dtype),
            basis=basis,
            inverses=inverses,
            best=blocks,
            residual=jnp.zeros_like(y),
            **_unmeasured(y.dtype),
        )

    def step(self, program: ConvexProgram, state: RidgeOnDevicesState) -> RidgeOnDevicesState:
        """Take one iteration of preconditioned conjugate gradient."""
        alpha = _alpha(program)
        remainder = _targets(program) - alpha * state.u - state.image
        projected = state.basis.T @ remainder
        if len(state.inverses) == 1:
            within = state.inverses[0] @ projected
        else:
            within = jnp.einsum("crs,sc->rc", state.inverses, projected)
        z = (remainder - state.basis @ within) / alpha
        inner = dots(remainder, z)
        direction = z + inner / state.inner * state.direction
        blocks, image, _ = _kernel_product(program, direction)
        curvature = dots(direction, image + alpha * direction)
        # A system that is solved exactly has no direction left; NaN passes, for the loop to see.
        length = jnp.where(curvature <= 0, 0, inner / jnp.where(curvature == 0, 1, curvature))
        return state._replace(
            u=state.u + length * direction,
            blocks=state.blocks + length[:, None, None] * blocks,
            image=state.image + length * image,
            direction=direction,
            inner=jnp.where(inner == 0, 1, inner),
        )

    def measure(
        self, program: ConvexProgram, state: RidgeOnDevicesState
    ) -> tuple[RidgeOnDevicesState, Measurement]:
        """Compute objective and bound, from a new product with the data where they agree."""
        alpha = _alpha(program)
        objective, bound = certify(_targets(program), state.u, state.image, alpha)
        unit = jnp.maximum(jnp.abs(objective), program.resolution)
        close = objective - bound <= self.tol * unit
        return jax.lax.cond(
            close,
            lambda state: self._exactly(program, state),
            lambda state: self._measured(program, state, objective, bound),
            state,
        )

    def conclude(
        self, program: ConvexProgram, state: RidgeOnDevicesState
    ) -> tuple[RidgeOnDevicesState, Measurement]:
        """Measure the last point by its weights."""
        return jax.block_until_ready(_conclude(self, program, state))

    def _exactly(
        self, program: ConvexProgram, state: RidgeOnDevicesState
    ) -> tuple[RidgeOnDevicesState, Measurement]:
        """Measure the weights of the unknowns, and forget what the recurrence said of others."""
        blocks, image, norms = _kernel_product(program, state.u)
        certificate = certify(_targets(program), state.u, image, _alpha(program), norms)
        state = state._replace(blocks=blocks, image=image, **_unmeasured(state.u.dtype))
        return self._measured(program, state, *certificate)

    def _measured(
        self, program: ConvexProgram, state: RidgeOnDevicesState, objective: Array, bound: Array
    ) -> tuple[RidgeOnDevicesState, Measurement]:
        root, alpha = _root(program), _alpha(program)
        residual = alpha * state.u / jnp.where(root > 0, root, 1)
        left = jnp.linalg.norm(_targets(program) - alpha * state.u - state.image)
        gap = (objective - bound) / jnp.maximum(jnp.abs(objective), program.resolution)
        better = gap < state.least_gap
        state = state._replace(
            best=jnp.where(better, state.blocks, state.best),
            residual=jnp.where(better, residual, state.residual),
            least_gap=jnp.where(better, gap, state.least_gap),
            objective=jnp.fmin(objective, state.objective),
            bound=jnp.fmax(bound, state.bound),
        )
        stopping = jnp.where(jnp.isfinite(objective), state.least_gap, jnp.nan)
        details = {"remainder": left}
        return state, Measurement(state.objective, state.bound, stopping, details=details)

    def weights(self, state: RidgeOnDevicesState) -> Array:
        """Return the point of least gap."""
        return state.best[:, None]

    def dual_point(self, state: RidgeOnDevicesState) -> DualPoint:
        """Return the residual of the same point."""
        return DualPoint(state.residual, None)


@Compiled
def _conclude(solver: Any, program: Any, state: Any) -> Any:
    return solver._exactly(program, state)


def _unmeasured(dtype: Any) -> dict[str, Array]:
    """Return what a state knows of its points before the first is measured."""
    most = jnp.full((), jnp.inf, dtype)
    return {"least_gap": most, "objective": most, "bound": -most}


def _alpha(program: ConvexProgram) -> Array:
    """Return the strength: a number, or one for each output, as columns are."""
    return jnp.asarray(program.alpha, program.y.dtype)


def _root(program: ConvexProgram) -> Array:
    return jnp.sqrt(jnp.broadcast_to(program.share, (len(program.y), 1)))


def _targets(program: ConvexProgram) -> Array:
    return _root(program) * program.y


def _kernel_product(program: ConvexProgram, u: Array) -> _Image:
    """Multiply the kernel by columns of dual unknowns: their weights, and predictions of these."""
    op, root = program.operator, _root(program)
    blocks = op.adjoint_difference(root * u)
    squares = (blocks**2).sum(axis=2)
    if op.linear:
        # The linear part has a ridge of its own, and so its weights are of another size.
        factor = jnp.broadcast_to(_alpha(program) / program.linear_ridge, len(blocks))
        blocks = blocks.at[:, -1].multiply(factor[:, None])
        squares = squares.at[:, -1].multiply(factor)
    return _Image(blocks, root * op.forward_difference(blocks), squares.sum(axis=1))


def _preconditioner(program: ConvexProgram, rank: int) -> tuple[Array, Array]:
    """Return a factor of the kernel and what inverts the factor plus the strengths."""
    op, root = program.operator, _root(program)
    # Rows without weight, such as padding, know nothing.
    order = jnp.where(root[:, 0] > 0, jax.random.uniform(jax.random.key(0), root.shape[:1]), -1)
    rows = jax.lax.top_k(order, rank)[1]
    gates, linear = op.split(op.mask.astype(op.X.dtype), axis=1)
    basis, n_linear = _nystrom_basis(op, gates, root, rows), 0
    if linear is not None:
        n_linear = min(rank, op.X.shape[1])  # so many rows span all features
        of_linear = _nystrom_basis(op, linear, root, rows[:n_linear])
        basis = jnp.concatenate([basis, of_linear], axis=1)
    inner = basis.T @ basis
    rounding = _ROUNDINGS * jnp.finfo(inner.dtype).eps * jnp.trace(inner)
    is_linear = jnp.arange(len(inner)) >= len(inner) - n_linear

    def inverse(alpha: Array) -> Array:
        ridges = jnp.maximum(jnp.where(is_linear, program.linear_ridge, alpha), rounding)
        identity = jnp.eye(len(inner), dtype=inner.dtype)
        # Of a basis that is zero too.
        shifted = inner + jnp.diag(jnp.maximum(ridges, jnp.finfo(inner.dtype).tiny))
        return cho_solve((jnp.linalg.cholesky(shifted), True), identity)

    inverses = jax.lax.map(inverse, jnp.atleast_1d(_alpha(program)))
    # What cannot be factored preconditions nothing.
    usable = jnp.isfinite(inverses).all() & jnp.isfinite(basis).all()
    return jnp.where(usable, basis, 0), jnp.where(usable, inverses, 0)


def _nystrom_basis(op: GatedOperator, gates: Array, root: Array, rows: Array) -> Array:
    """Return a factor of the kernel of some gates, from its columns at some rows."""
    of_rows = op.inputs(rows)  # those of X, one or two for each

    def columns(inputs: Array) -> Array:
        return op.compare((op.X @ op.X[inputs].T) * (gates @ gates[inputs].T))

    kernel = columns(of_rows[:, 0])
    if isinstance(op, PairedOperator):
        kernel = kernel - columns(of_rows[:, 1])
    kernel = kernel * root * root[rows, 0]
    core = kernel[rows]
    rounding = _ROUNDINGS * jnp.finfo(core.dtype).eps * jnp.trace(core)
    core = core + (rounding + jnp.finfo(core.dtype).tiny) * jnp.eye(len(core), dtype=core.dtype)
    # A product with the inverse is divided like the rows, a triangular solve might not be.
    lower = jnp.linalg.cholesky((core + core.T) / 2)
    identity = jnp.eye(len(core), dtype=core.dtype)
    return kernel @ solve_triangular(lower, identity, lower=True).T
