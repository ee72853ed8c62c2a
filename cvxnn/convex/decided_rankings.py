r"""A stop of solvers as soon as the signs of predictions are those of the optimum.

With the ridge penalty the objective :math:`f` is :math:`\alpha`-strongly convex, so weights
:math:`z` with the duality gap :math:`g \ge f(z) - f^*` are near the optimum :math:`z^*`, and so are
predictions with the features :math:`\varphi`:

.. math::

    \tfrac\alpha2 \|z - z^*\|^2 \le f(z) - f^* \le g, \qquad
    |\varphi^T z - \varphi^T z^*| \le \|\varphi\| \sqrt{2 g / \alpha} .

Where a margin is larger than this, its sign is that of the optimum: the ranking is decided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.operators import GatedOperator
from cvxnn.convex.penalties import SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.data import RidgeData

Floats = NDArray[np.floating]


class DecidedRankings:
    """Callback of ``solve`` that stops when all rankings of interest are those of the optimum.

    Parameters
    ----------
    program : ConvexProgram
        The gated formulation with the penalty ``SquaredL2``, no linear part and one output.
    interest : GatedOperator or PairedOperator
        Rows, or pairs of rows (``paired``), whose predictions decide by their sign.
    part : float, default=1.0
        Part of them that has to be decided, in (0, 1].

    Attributes
    ----------
    margins : ndarray, shape (n_rows,)
        Predictions at the last measurement.
    errors : ndarray, shape (n_rows,)
        Bounds on their distances from those of the optimum.
    decided : ndarray of bool, shape (n_rows,)
        Where the sign is that of the optimum.

    Raises
    ------
    TypeError
        If the program is another: without the ridge nothing follows for other rows.
    ValueError
        If there are several outputs, or ``part`` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.convex import ConvexProgram, DecidedRankings, GatedOperator, ProximalGradient
    >>> from cvxnn.convex import SquaredL2, SquaredLoss, paired, solve
    >>> rng = np.random.RandomState(0)
    >>> X = rng.randn(50, 3)
    >>> mask = X @ rng.randn(3, 4) >= 0
    >>> operator = GatedOperator(X, mask)
    >>> program = ConvexProgram(
    ...     operator, X[:, :1], 0.1, SquaredLoss(), SquaredL2(), formulation="gated"
    ... )
    >>> stop = DecidedRankings(program, paired(X[:4], mask[:4], np.array([[0, 1], [2, 3]])))
    >>> result = solve(program, ProximalGradient(tol=1e-12, check_every=1), callback=stop)
    >>> result.status.value, bool(stop.decided.all())
    ('stopped', True)
    """

    margins: Floats
    errors: Floats
    decided: NDArray[np.bool_]

    def __init__(self, program: ConvexProgram, interest: GatedOperator, part: float = 1.0) -> None:
        """Measure the features of interest."""
        ridge = type(program.penalty) is SquaredL2 and np.all(np.asarray(program.alpha) > 0)
        if program.formulation != "gated" or not ridge or program.skip is not None:
            raise TypeError(
                "rankings are decided by the gap for formulation='gated' with SquaredL2, a "
                "positive strength and skip=None, which make the objective strongly convex."
            )
        if program.y.shape[1] != 1:
            raise ValueError(f"the program has {program.y.shape[1]} outputs; expected one.")
        if not 0 < part <= 1:
            raise ValueError(f"part={part!r}; expected a number above 0, and at most 1.")
        n = interest.n_rows
        self._interest = RidgeData(
            np.asarray(interest.X, np.float64),
            np.asarray(interest.mask, np.float32),
            np.ones((n, 1)),
            np.zeros((n, 1)),
            None,
            getattr(interest, "pairs", None),
        )
        self._norms = np.sqrt(self._interest.squares())
        self._alpha, self._part = float(np.ravel(program.alpha)[0]), part
        self.margins, self.errors = np.zeros(n), np.full(n, np.inf)
        self.decided = np.zeros(n, bool)

    def __call__(self, row: dict[str, float], weights: Callable[[], Any]) -> bool:
        """Return whether enough rankings are decided.

        Parameters
        ----------
        row : dict
            Newest row of the history.
        weights : callable
            Returns the weights that it belongs to.
        """
        gap = row["objective"] - row["dual_bound"]
        if not np.isfinite(gap):
            return False
        blocks = np.asarray(weights().blocks, np.float64)[:, 0]
        self.margins = self._interest.forward(blocks)[:, 0]
        self.errors = self._norms * np.sqrt(2 * max(gap, 0.0) / self._alpha)
        self.decided = np.abs(self.margins) > self.errors
        return bool(self.decided.mean() >= self._part)
