"""Phase II of COALA: preferences fit the last layer of a network, or the scale of its output."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn import convex, preference  # names load when first used: JAX is for fits only
from cvxnn.convex.patterns import add_bias
from cvxnn.convex.solver import Result, relative_gap
from cvxnn.estimators._fit_plan import HeldOut
from cvxnn.estimators._monitor import Hook
from cvxnn.estimators._responses import Responses
from cvxnn.estimators._scaling import column_means
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.phases import tell

Floats = NDArray[np.floating]

# Least factor of the output of a gated network, in units of its spread: the order of rewards stays.
_LEAST_FACTOR = 1e-2
# Numbers in the margins up to which iterations with NumPy take less time than compilation.
_MOST_ON_HOST = 2**18


class SecondPhase(NamedTuple):
    """A head and how it was found.

    Attributes
    ----------
    network : TwoLayerNetwork
        The head.
    result : Result
        Solution of the convex problem of phase II.
    flops : float
        Floating-point operations.
    informative : bool
        Whether more than chance was left of the preferences in pairs that are held out.
    """

    network: TwoLayerNetwork
    result: Result
    flops: float
    informative: bool


def fit_second_phase(
    network: TwoLayerNetwork,
    rows: Responses,
    held_out: HeldOut | None = None,
    *,
    pairwise: bool,
    beta: float,
    gamma: float,
    ridge: float,
    max_iter: int,
    hook: Hook | None = None,
) -> SecondPhase:
    r"""Minimise the COALA loss over the last layer of a network, or over the scale of its output.

    Parameters
    ----------
    network : TwoLayerNetwork
        Network of phase I, for raw embeddings.
    rows : Responses
        Responses, and their pairs if there are any.
    held_out : HeldOut, optional
        Predictions by networks that have not seen what they predict: of margins if ``pairwise``,
        else of single responses. With them, the features of phase II are the output of the network
        alone (and a constant, unless ``pairwise``). One factor cannot overfit, and leaves the order
        of rewards as it is. Without them, features are the hidden activations.
    pairwise : bool
        Whether the loss is that of pairs.
    beta, gamma, ridge : float
        See ``cvxnn.preference.CoalaObjective``.
    max_iter : int
        Most iterations.
    hook : callable, optional
        Called after each measurement with a function that returns the head.

    Returns
    -------
    SecondPhase
        The head, and how it was found.
    """
    tell("phase II")
    X, weight, pairs = rows.X, rows.weight, rows.pairs
    H = network.hidden(X) if held_out is None else network.forward(X)
    # Features at unit scale: the ridge then means the same for every embedding.
    scale = np.sqrt(column_means(H**2, weight))
    # An output of rounding errors is none; scaled up, it would be all that decides.
    least = 0.0 if held_out is None else float(np.finfo(X.dtype).eps)
    scale = np.where(scale > least, scale, 1).astype(X.dtype)
    H = H / scale
    if held_out is None:
        theta, bias = network.output_weights * scale, network.output_bias
    else:
        theta, bias = scale.copy(), np.zeros(1, X.dtype)
    if pairwise:
        # Pairs leave the level of the logits free: let them average 0 over the responses.
        centre = column_means(H, weight).astype(X.dtype)
        H = H - centre
    else:
        # The output bias is one more feature, the constant.
        H, theta = add_bias(H), np.append(theta, bias)
    if pairs is None:
        chosen, rejected = H[rows.preferred], H[~rows.preferred]
    else:
        chosen, rejected = H[pairs[:, 0]], H[pairs[:, 1]]
    if held_out is not None:
        unseen = (held_out.predictions / scale).astype(X.dtype)
        # Of rounding errors of what is left out, the scale would be their inverse.
        unseen[np.abs(unseen) <= np.sqrt(np.finfo(X.dtype).eps)] = 0
        margins = unseen if pairwise else np.sign(held_out.targets) * add_bias(unseen)
        omega = held_out.weight
    elif pairwise:
        margins, omega = chosen - rejected, np.asarray(rows.pair_weight)
    else:
        margins, omega = rows.signs * H, weight

    def head(theta: Floats) -> TwoLayerNetwork:
        if held_out is not None:
            theta = np.append(np.maximum(theta[:1], _LEAST_FACTOR), theta[1:])
        last, offset = (theta, -(theta @ centre)) if pairwise else (theta[:-1], theta[-1])
        last = last / scale
        if held_out is not None:
            last, offset = last * network.output_weights, offset + last @ network.output_bias
        return replace(
            network,
            output_weights=last.astype(X.dtype),
            output_bias=np.array([offset], X.dtype),
        )

    objective = preference.CoalaObjective(
        margins=margins.astype(X.dtype),
        weights=(omega / omega.sum()).astype(X.dtype),
        beta=float(beta),
        gamma=float(gamma),
        ridge=float(ridge),
        chosen=chosen,
        rejected=rejected,
    )
    found = convex.solve(
        objective,
        # Iterations are cheap: measure each, so that the history has its reward margins. With
        # this friction they rose at every iteration of all 27 problems we looked at; with that
        # of Nesterov's method they overshot by up to 1 %, without the preconditioner by 5 %.
        convex.AcceleratedGradient(
            tol=1e-4,
            max_iter=max_iter,
            friction=9,
            check_every=1,
            on_host=margins.size <= _MOST_ON_HOST,
        ),
        start=theta.astype(X.dtype),
        callback=None if hook is None else lambda _, theta: hook(lambda: head(theta())),
    )
    n_checks = len(found.history["time"])
    width = margins.shape[1]
    flops = 2.0 * (
        X.size * network.n_neurons
        + margins.size * (2 * found.n_iter + 2 * n_checks + width)
        + width**2 * (found.n_iter + width / 6)
        + (chosen.size + rejected.size) * n_checks
    )
    best, informative = np.array(found.weights), True
    if held_out is not None and not (best[0] > _LEAST_FACTOR and unseen.any()):
        best[0], informative = _LEAST_FACTOR, False
        found = _measured_at(best, objective, found)
    return SecondPhase(head(best), found, flops, informative)


def _measured_at(theta: Floats, objective: preference.CoalaObjective, found: Result) -> Result:
    """Return a result whose objective, gap and last measurement are those of another point."""
    value = float(objective.value(theta))
    last = {"objective": value} | {k: float(v) for k, v in objective.report(theta).items()}
    history = {
        name: np.append(column[:-1], last[name]) if name in last else column
        for name, column in found.history.items()
    }
    gap = relative_gap(value, found.dual_bound)
    return found._replace(weights=theta, objective=value, gap=gap, history=history)
