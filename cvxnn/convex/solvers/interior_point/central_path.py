r"""Following the central path of a program: Mehrotra's predictor-corrector.

The program with epigraphs and slacks is

.. math::

    \min \; \sum_k h_k \ell\big((F u)_k, y_k\big) + \alpha \sum_j t_j
    \quad \text{s.t.} \quad s_j = E_i X u_j \ge 0, \quad t_j \ge \|u_j\|_2 ,

with multipliers :math:`a_j \ge 0` of the first and :math:`(\alpha, z_j)` in the second-order cone,
such that :math:`F^T \nabla \ell(F u) = X^T E a + z`. On the path the products of all complementary
pairs are the same :math:`\mu`. Gradients of the Huber loss are separate variables, in a box, which
adds pairs. A step is Newton's in the scaling of Nesterov and Todd; slacks, multipliers and
epigraphs are eliminated by hand, which leaves a system in the weights alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cvxnn.convex.losses import HuberLoss, Loss
from cvxnn.convex.solvers.interior_point import cones
from cvxnn.convex.solvers.interior_point.newton_system import (
    Blocks,
    Data,
    Floats,
    NewtonSystem,
)
from cvxnn.numerics.threads import limit_threads

# Fraction of the way to the boundary that is taken.
_TO_BOUNDARY = 0.99
# Products of pairs are brought within these multiples of the target where they stray.
_CENTRAL = (0.1, 10.0)
# Most halvings of a step for a loss that is not quadratic.
_MAX_HALVINGS = 12
# Dual residuals of a Newton system, as parts of what the complementary pairs leave of the gap;
# and its errors in the norm of its matrix. First the predictor's, then the corrector's.
_RESIDUALS = (0.1, 0.01)
_ERRORS = (0.1, 1e-3)

_TINY = float(np.finfo(np.float64).tiny)


class Outputs(NamedTuple):
    """The program of one output, or of all that the loss couples.

    Rows and patterns that do nothing are left out.
    """

    data: Data
    y: Floats
    """Targets, (n_outputs, n)."""
    share: Floats
    """Weight of each row's loss, (n,)."""
    alpha: Floats
    """Penalty parameter of each output, (n_outputs, 1, 1)."""
    ridge: Floats
    """Ridge of each pattern's weights, (n_outputs, 1, P); zero under the group lasso."""
    n_cones: int
    """The first patterns, which have cones."""
    n_norms: int
    """The first patterns, which are under the group lasso."""
    loss: Loss

    def value(self, f: Floats) -> float:
        """Return the loss of all rows."""
        return float((self.share @ self.loss.value(f.T, self.y.T)).sum())

    def gradient(self, f: Floats) -> Floats:
        """Return the gradient of each row's loss, (n_outputs, n), not weighted."""
        return self.loss.gradient(f.T, self.y.T).T

    def curvature(self, f: Floats) -> Floats:
        """Return what is at least the second derivative of each row's loss, not weighted.

        It is the derivative itself, (n_outputs, n), unless the loss couples outputs: then its
        diagonal alone would be below it in some directions, and the probabilities of the classes
        are above.
        """
        if self.loss.coupled:
            return self.gradient(f) + self.y
        return self.loss.hessian(f.T, self.y.T).T

    @property
    def box(self) -> float | None:
        """Bound of the gradient where the loss is quadratic but for that."""
        return self.loss.delta if type(self.loss) is HuberLoss else None

    @property
    def n_boxed(self) -> int:
        """Number of the pairs of a bounded gradient."""
        return 0 if self.box is None else 2 * self.y.size

    @property
    def degree(self) -> int:
        """Number of complementary pairs."""
        n_outputs, n = self.y.shape
        return n_outputs * self.data.n_signs * (self.n_cones * n + self.n_norms) + self.n_boxed


class Iterate(NamedTuple):
    """A point between the cones; blocks of shape (n_outputs, n_signs, n_patterns)."""

    u: Floats
    """Weights, (C, S, P, d)."""
    x: Floats
    """Epigraphs and weights ``(t, u)`` under the group lasso, (C, S, Pk, 1 + d)."""
    z: Floats
    """Their multipliers ``(alpha, z)``."""
    s: Floats
    """Slacks of the cones, (C, S, Pc, n), then of the box, (2, n), in one vector."""
    a: Floats
    """Their multipliers."""
    g: Floats
    """Gradient of each row's loss, (C, n)."""
    scores: Floats
    """``X u``, (C, S, P, n), computed from ``u`` each time: sums of steps would drift."""
    value: float
    """Objective, with epigraphs for norms."""
    mu: float
    """Mean product of the pairs."""
    primal_residual: float
    """Of the slacks, relative to the largest score."""
    dual_residual: float
    """Largest of a block, relative to the smallest alpha."""
    step_length: float
    cg_iterations: int
    rank: int
    failed: bool
    """Whether rounding left no better point."""

    def is_done(self, degree: int, tol: float) -> bool:
        """Return True if the point proves itself optimal, to a gap well below ``tol``."""
        gap = self.mu * degree / max(self.value, _TINY)
        return max(gap, self.primal_residual, self.dual_residual) <= 0.01 * tol


class Move(NamedTuple):
    """A direction, fields as in :class:`Iterate`."""

    u: Floats
    x: Floats
    z: Floats
    s: Floats
    a: Floats
    g: Floats
    f: Floats
    """Predictions, (C, n)."""

    def plus(self, other: Move, weight: float) -> Move:
        """Add a multiple of another direction."""
        parts = [weight * part for part in other]
        for part, own in zip(parts, self, strict=True):
            part += own
        return Move(*parts)


def advance(output: Outputs, it: Iterate, max_dense: int) -> Iterate:
    """Take a predictor-corrector step; ``failed`` if rounding left no better point."""
    try:
        system = _System(output, it, max_dense)
        with limit_threads(output.data.flops):
            step, move = _direction(system)
            # The loss may not be quadratic: a step too long would spoil the dual residual.
            for _ in range(_MAX_HALVINGS):
                g = it.g + step * move.g
                bend = 0 * g if output.box else output.gradient(system.f + step * move.f) - g
                bend = output.data.adjoint(output.share * bend)
                remains = _largest(bend + (1 - step) * system.r_dual)
                if remains <= max((1 - 0.1 * step) * system.r_dual_size, 0.5 * system.allowed):
                    break
                step /= 2
            for old, new in zip(it[:5], move[:5], strict=True):  # fresh memory would cost more
                new *= step
                new += old
            u, x, z, s, a = move[:5]
            x[..., 1:] = u[..., : output.n_norms, :]
            scores = output.data.scores(u)
            f = output.data.predict(scores)
            products = float(s @ a + (x * z).sum())
            ridge = float((output.ridge * (u**2).sum(axis=-1)).sum()) / 2
            value = output.value(f) + float((output.alpha * x[..., 0]).sum()) + ridge
    except np.linalg.LinAlgError:
        return it._replace(failed=True)
    if not np.isfinite(products + value + step):
        return it._replace(failed=True)
    return Iterate(
        u=u,
        x=x,
        z=z,
        s=s,
        a=a,
        scores=scores,
        g=g if output.box else output.gradient(f),
        value=value,
        mu=products / max(output.degree, 1),
        primal_residual=(1 - step) * system.r_primal_size,
        dual_residual=remains / float(output.alpha.min()),
        step_length=step,
        cg_iterations=it.cg_iterations + system.cg_iterations,
        rank=system.newton.rank,
        failed=step < 1e-8,
    )


class _System:
    """The linearised conditions at a point."""

    def __init__(self, output: Outputs, it: Iterate, max_dense: int) -> None:
        self.output, self.it = output, it
        data, n_cones, n_norms = output.data, output.n_cones, output.n_norms
        n, n_boxed = len(output.share), output.n_boxed
        self.orientation = data.orientation[:n_cones]
        with limit_threads(data.flops):
            self.f = data.predict(it.scores)
            v = data.spread(output.share * it.g)
            v[:, :, :n_cones] -= self.orientation * self._cones(it.a)
            self.r_dual = data.back(v) + output.ridge[..., None] * it.u
            squares = output.share @ data.X**2
        self.r_dual[:, :, :n_norms] -= it.z[..., 1:]
        self.r_dual_size = _largest(self.r_dual)
        r_cones = self._cones(it.s) - self.orientation * it.scores[:, :, :n_cones]
        self.r_primal = np.append(r_cones, np.zeros(n_boxed)) if n_boxed else r_cones.ravel()
        size = max(np.abs(it.scores).max(initial=0), self._cones(it.s).max(initial=0), _TINY)
        self.r_primal_size = float(np.abs(r_cones).max(initial=0) / size)
        # A dual residual of the relative size of the gap costs about as much of the bound.
        gap = it.mu * output.degree / max(it.value, _TINY)
        self.allowed = float(output.alpha.min()) * min(1.0, gap)
        self.ratio = it.a / it.s
        self.pull = self.ratio * self.r_primal
        self.hessian, self.r_gradient = output.curvature(self.f), np.zeros(output.y.shape)
        if output.box is not None:
            # The error is the gradient plus what holds it in the box, n times the multipliers.
            above, below = n * self._boxes(it.a)
            self.r_gradient = self.f - output.y - it.g - above + below
            self.hessian = 1 / (1 + n * self._boxes(self.ratio).sum(axis=0))
        size = max(np.abs(self.f).max(initial=0), np.abs(output.y).max(initial=0), _TINY)
        most = float((output.share * np.abs(self.r_gradient)).sum() / size)
        self.r_primal_size = max(self.r_primal_size, most)
        self.scaling = cones.NesterovToddScaling(it.x, it.z)
        w0, w1, eta2 = self.scaling.w0, self.scaling.w1, self.scaling.eta**2
        self.spread = 2 * w0**2 - 1
        identity = np.zeros(it.u.shape) + output.ridge[..., None]
        identity[:, :, :n_norms] = 1 / eta2[..., None]
        # Where nothing is penalised, a proximal term takes the place: it leads to the same point.
        scale = output.loss.curvature * np.maximum(1e-9 * squares, 1e-12 * squares.mean())
        identity = np.where(identity > 0, identity, scale)
        vector = w1 * np.sqrt(2 / (eta2 * self.spread))[..., None]
        curvature = output.share * self.hessian
        blocks = Blocks(self._cones(self.ratio), identity, vector, curvature)
        self.newton = NewtonSystem(data, blocks, lambda f: output.share * self.bend(f), max_dense)
        self.cg_iterations = 0

    def bend(self, f: Floats) -> Floats:
        """Multiply predictions by the second derivative of each row's loss, not weighted."""
        bent = self.hessian * f
        return bent - self.hessian * bent.sum(axis=0) if self.output.loss.coupled else bent

    def _cones(self, pairs: Floats) -> Floats:
        shape = (*self.it.u.shape[:2], self.output.n_cones, len(self.output.share))
        return pairs[: math.prod(shape)].reshape(shape)

    def _boxes(self, pairs: Floats) -> Floats:
        return pairs[len(pairs) - self.output.n_boxed :].reshape(-1, *self.output.y.shape)

    def newton_step(self) -> Move:
        """Return the direction to where all residuals and all products vanish."""
        return self.solve(-self.it.a, -self.scaling.point, full=True, stage=0)

    def solve(self, k: Floats, c: Floats, *, full: bool, stage: int) -> Move:
        """Return the direction for given changes of the pairs.

        ``k`` are those of ``s * a``, divided by ``s``; ``c`` the sums of the scaled changes of
        ``x`` and ``z``. With ``full`` residuals vanish too, else they stay as they are.
        """
        output, data = self.output, self.output.data
        n_cones, n_norms, n = output.n_cones, output.n_norms, len(output.share)
        w0, w1, eta2 = self.scaling.w0, self.scaling.w1, self.scaling.eta**2
        c = self.scaling.unscale(c)
        b = np.zeros_like(self.r_dual)
        shift = np.zeros(output.y.shape)
        if full:
            b, k, shift = b - self.r_dual, k + self.pull, self.r_gradient
        b[:, :, :n_cones] += data.back(self.orientation * self._cones(k))
        b[:, :, :n_norms] += c[..., 1:] + w1 * (2 * w0 / self.spread * c[..., 0])[..., None]
        if output.box is not None:
            above, below = n * self._boxes(k)
            shift = shift - above + below
            b -= data.adjoint(output.share * self.hessian * shift)
        floor = _RESIDUALS[stage] * max(self.allowed, 0.01 * self.r_dual_size)
        du, n_iter = self.newton.solve(b, _ERRORS[stage], floor)
        self.cg_iterations += n_iter
        scores = data.scores(du)
        df = data.predict(scores)
        dg = self.bend(df + shift)
        scores = scores[:, :, :n_cones]
        scores *= self.orientation
        along = scores.ravel()
        if output.box is not None:
            along = np.concatenate([along, -dg.ravel(), dg.ravel()])
        dx, dz = np.empty_like(self.it.x), np.zeros_like(self.it.z)
        dx[..., 1:] = du[:, :, :n_norms]
        inner = (w1 * dx[..., 1:]).sum(axis=-1)
        dx[..., 0] = (eta2 * c[..., 0] + 2 * w0 * inner) / self.spread
        dz[..., 1:] = 2 * (w0 * dx[..., 0] - inner)[..., None] * w1 - dx[..., 1:]
        dz[..., 1:] = dz[..., 1:] / eta2[..., None] + c[..., 1:]
        da = self.ratio * along
        np.subtract(k, da, out=da)
        if full:
            along -= self.r_primal
        return Move(du, dx, dz, along, da, dg, df)

    def longest(self, move: Move) -> float:
        """Return the longest step within all cones."""
        it = self.it
        parts = move.s / it.s
        most = max(
            -float(parts.min(initial=0)),
            -float(np.divide(move.a, it.a, out=parts).min(initial=0)),
            cones.blocking(it.x, move.x),
            cones.blocking(it.z, move.z),
        )
        return 1 / max(most, _TINY)


def _direction(system: _System) -> tuple[float, Move]:
    """Combine predictor and correctors; return the step length and the direction."""
    it, scaling = system.it, system.scaling
    move = system.newton_step()
    step = min(1.0, system.longest(move))
    if not system.output.degree:
        return min(1.0, _TO_BOUNDARY * system.longest(move)), move
    bent = it.s @ move.a + move.s @ it.a + step * (move.s @ move.a)
    after = float(it.s @ it.a + step * bent)
    after += float(((it.x + step * move.x) * (it.z + step * move.z)).sum())
    target = it.mu * min(max(after / (it.mu * system.output.degree), 0.0), 1.0) ** 3
    k: Floats = move.s * move.a
    np.subtract(target, k, out=k)
    k /= it.s
    k -= it.a
    r = -cones.product(scaling.unscale(move.x), scaling.scale(move.z))
    r[..., 0] += target
    move = system.solve(k, scaling.divide(r) - scaling.point, full=True, stage=1)
    step = min(1.0, system.longest(move))
    # Gondzio's: aim at a longer step, and bring back the products that would stray from the path.
    aim, low, high = min(1.0, step + 0.3), _CENTRAL[0] * target, _CENTRAL[1] * target
    products, k = aim * move.s, aim * move.a
    products += it.s
    k += it.a
    products *= k
    np.clip(products, low, high, out=k)
    k -= products
    np.maximum(k, -high, out=k)
    k /= it.s
    scaled = scaling.unscale(it.x + aim * move.x), scaling.scale(it.z + aim * move.z)
    r = cones.map_spectrum(cones.product(*scaled), low, high)
    centring = system.solve(k, scaling.divide(r), full=False, stage=1)
    for weight in (1.0, 0.5):
        candidate = move.plus(centring, weight)
        longest = system.longest(candidate)
        if longest > step:
            move, step = candidate, longest
            break
    return min(1.0, _TO_BOUNDARY * step), move


def _largest(blocks: Floats) -> float:
    """Return the largest norm along the last axis."""
    return float(np.linalg.norm(blocks, axis=-1).max(initial=0))
