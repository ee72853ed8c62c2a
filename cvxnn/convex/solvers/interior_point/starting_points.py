"""Points between the cones from which the central path is followed."""

from __future__ import annotations

import numpy as np

from cvxnn.convex.solvers.interior_point.central_path import Iterate, Outputs
from cvxnn.convex.solvers.interior_point.newton_system import Floats

# Near given weights: the gap as a part of the objective, the part of the mean block that is added
# to each, the smallest slacks as parts of a typical score of their block, and the most by which
# weights are outside of their cones, as a part of all scores: steps from further off stay tiny.
_NEAR_GAP, _NEAR_SHIFT, _NEAR_SLACK, _NEAR_OUTSIDE = 0.1, 0.1, 0.03, 0.01

_TINY = float(np.finfo(np.float64).tiny)


def begin(output: Outputs) -> Iterate:
    """Return zero weights, well inside all cones, with parts of about the solution's size."""
    data, S, (n, d) = output.data, output.data.n_signs, output.data.X.shape
    C, _, P = output.ridge.shape
    alpha = float(output.alpha.mean())
    f = np.zeros((C, n))
    value = output.value(f)
    # All weights together cost no more than the loss without them; one neuron's scores are rarely
    # much larger than the targets.
    size = max(value, _TINY**0.5) / (alpha * C * S * max(P, 1))
    norms = np.linalg.norm(data.X, axis=1)
    typical = np.sqrt(2 * value / max((norms**2).mean() if n else 0.0, _TINY))
    x, z = np.zeros((2, C, S, output.n_norms, 1 + d))
    x[..., 0], z[..., 0] = size, output.alpha
    slack = 0.3 * np.sqrt(size * min(size, typical))
    s: Floats = np.tile(slack * norms, C * S * output.n_cones)
    g: Floats = np.zeros((C, n))
    if output.box is None:
        g = output.gradient(f)
    else:
        s = np.append(s, np.full(output.n_boxed, output.box))
    a = alpha * size / (np.sqrt(max(n, 1)) * s)
    mu = float(s @ a + (x * z).sum()) / max(output.degree, 1)
    u, scores = np.zeros((C, S, P, d)), np.zeros((C, S, P, n))
    nothing = value <= _TINY or u.size == 0
    if nothing:
        a, mu = np.zeros_like(a), 0.0
    return Iterate(u, x, z, s, a, g, scores, value, mu, 1.0, 1.0, 0.0, 0, 0, nothing)


def begin_near(output: Outputs, weights: Floats) -> Iterate:
    r"""Return a point between the cones near given weights, with multipliers that fit.

    Blocks of both signs of a pattern move by the same step into the cone that one of them shows,
    which leaves the predictions as they are. The multipliers make the product of each
    complementary pair that of a gap of ten per cent.

    Parameters
    ----------
    output : Outputs
        Program of one output, or of those that the loss couples.
    weights : ndarray, shape (n_outputs, S, P, d)
        The weights. If a pattern with a cone has none, so that nothing shows the inside of the
        cone, or if they are far outside of their cones, or worse than none at all, the point is
        that of :func:`begin`.
    """
    data, alpha, n_cones = output.data, output.alpha, output.n_cones
    first, sizes = begin(output), np.linalg.norm(weights, axis=-1)
    total = weights[:, :, :n_cones].sum(axis=1, keepdims=True)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    if first.failed or not output.degree or not sizes.any() or not length.all():
        return first
    oriented = data.orientation[:n_cones] * data.scores(weights)[:, :, :n_cones]
    if np.linalg.norm(np.minimum(oriented, 0)) > _NEAR_OUTSIDE * np.linalg.norm(oriented):
        return first
    u = weights.copy()
    u[:, :, :n_cones] += _NEAR_SHIFT * sizes.mean() * total / length
    scores = data.scores(u)
    f, sizes = data.predict(scores), np.linalg.norm(u, axis=-1)
    ridge = float((output.ridge * sizes**2).sum()) / 2
    own, norms = u[:, :, : output.n_norms], sizes[:, :, : output.n_norms]
    value = output.value(f) + float((alpha * norms).sum()) + ridge
    if not value < first.value:
        return first
    mu = _NEAR_GAP * value / output.degree
    x, z = np.empty_like(first.x), np.empty_like(first.z)
    # The t with which (t, u) and (alpha, -alpha u / t) have the product mu.
    x[..., 0] = (mu / alpha + np.hypot(mu / alpha, 2 * norms)) / 2
    x[..., 1:], z[..., 0], z[..., 1:] = own, alpha, -alpha[..., None] * own / x[..., :1]
    typical = np.linalg.norm(data.X, axis=1) / np.sqrt(data.X.shape[1])
    least = np.maximum(sizes[:, :, :n_cones], _NEAR_SHIFT * sizes.mean())[..., None] * typical
    oriented = data.orientation[:n_cones] * scores[:, :, :n_cones]
    s = np.maximum(oriented, _NEAR_SLACK * least).ravel()
    g = output.gradient(f)
    if output.box is not None:
        g = (1 - _NEAR_GAP) * g
        s = np.concatenate([s, (output.box - g).ravel(), (output.box + g).ravel()])
    a = mu / s
    mu = float(s @ a + (x * z).sum()) / output.degree
    return first._replace(u=u, x=x, z=z, s=s, a=a, g=g, scores=scores, value=value, mu=mu)
