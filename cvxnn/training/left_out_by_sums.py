r"""Predictions of rows by the solution without them, from sums over the rows of all processes.

With the gated features :math:`\varphi_k` of row :math:`k`, its weight :math:`w_k`, the sum
:math:`H = \sum_k w_k \varphi_k \varphi_k^T + \lambda I` over all rows, and the residual
:math:`r_k = y_k - \varphi_k^T z` of a squared loss, the solution without row :math:`k` predicts

.. math:: y_k - \frac{r_k}{1 - h_k}, \qquad h_k = w_k \varphi_k^T H^{-1} \varphi_k .

Each process adds the terms of its own rows, and all get the sums; none sees a row of another. In
one process :func:`cvxnn.training.leave_out` has this too, from a matrix of the rows, with groups,
other losses and what changes elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jax.experimental import multihost_utils
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

from cvxnn.convex.host_program import on_host
from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.sharding import ends_noticed
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import rounding_named
from cvxnn.numerics.jax_import import precision
from cvxnn.training.left_out import require_ridge
from cvxnn.training.normal_equations import NormalEquations

Floats = NDArray[np.floating]

# Most weights of an output, whose matrix then takes 2 GiB, and numbers that are sent at once.
_MOST_WEIGHTS, _SENT = 2**14, 2**22


def leave_each_out(program: ConvexProgram) -> Floats:
    """Return what the solution without each row predicts for it; processes may share the rows.

    Parameters
    ----------
    program : ConvexProgram
        Of the rows (or pairs) of this process: the gated formulation with ``SquaredLoss`` and
        ``SquaredL2``, without a linear part. Where JAX has several processes, each of them has to
        make this call, with the same patterns and strength.

    Returns
    -------
    ndarray, shape (n_rows, n_outputs)
        Predictions of this process's rows. The penalty keeps its weight against each row that
        stays. They are exact up to rounding, which is divided by ``1 - h``.

    Raises
    ------
    TypeError
        If the program is another.
    ValueError
        If an output has more than 16,384 weights, patterns times features.
    ConnectionError
        If another process has ended.

    Notes
    -----
    ``n`` rows with ``m`` weights take ``2 n m**2`` flops, shared by the processes, and ``m**3 / 3``
    in each; ``8 m**2`` bytes are sent by each process and kept three times.
    """
    require_ridge(program)
    if type(program.loss) is not SquaredLoss:
        raise TypeError(
            f"rows are left out exactly with SquaredLoss, not with {type(program.loss).__name__}; "
            "in one process, cvxnn.training.leave_out has other losses."
        )
    program = on_host(program, np.float64)
    n, n_outputs = program.y.shape
    weight = program.share * (n if program.sample_weight is None else program.sample_weight.sum())
    weight = np.broadcast_to(weight, (n, 1))
    shape = n_outputs, program.operator.n_patterns, program.operator.X.shape[1]
    if (n_weights := shape[1] * shape[2]) > _MOST_WEIGHTS:
        raise ValueError(
            f"{shape[1]} patterns of {shape[2]} features are {n_weights} weights, whose matrix "
            f"takes {n_weights**2 / 2**27:.1f} GiB; expected at most {_MOST_WEIGHTS}. Take fewer "
            "patterns, or leave out a sample of the rows in one process."
        )
    own = NormalEquations.of(program, float(weight.sum()), np.zeros(shape))
    sums = _of_all_processes(own)
    data = replace(RidgeData.of(program), root=np.sqrt(weight))
    predictions = np.empty((n, n_outputs))
    for ridge in np.unique(sums.ridge):
        outputs = np.flatnonzero(sums.ridge == ridge)
        matrix = sums.gram[0].T.copy(order="F")  # its lower triangle
        matrix[np.diag_indices(n_weights)] += ridge
        with rounding_named():
            factor = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
        z = cho_solve((factor, True), sums.right[outputs].T, check_finite=False)
        for rows, A in data.features():
            ahead = solve_triangular(factor, A.T, lower=True, check_finite=False)
            stays = 1 - weight[rows, 0] * np.einsum("mn,mn->n", ahead, ahead)
            y = program.y[rows][:, outputs]
            predictions[rows, outputs] = y - (y - A @ z) / stays[:, None]
    return predictions


def _of_all_processes(own: NormalEquations) -> NormalEquations:
    """Return the sums over the rows of all processes, block after block of the matrix."""
    numbers = np.concatenate([own.right.ravel(), own.ridge]), own.gram[0]
    with precision(np.float64), ends_noticed():
        few, *blocks = [
            np.asarray(multihost_utils.process_allgather(part)).reshape(-1, *part.shape).sum(axis=0)
            for array in numbers
            for part in np.array_split(array, -(-array.size // _SENT))
        ]
    right, ridge = few[: own.right.size].reshape(own.right.shape), few[own.right.size :]
    return replace(own, gram=np.concatenate(blocks)[None], right=right, ridge=ridge)
