"""Minibatches of an objective: its value and gradient on examples drawn from a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvxnn.joint.choice_objective import ChoiceObjective

Vector = NDArray[np.float64]

# Number of batches that are drawn together.
_CHUNK = 500


class MinibatchObjective:
    """Objective on a sequence of minibatches that depends on the seed only.

    Parameters
    ----------
    objective : ChoiceObjective
        The objective over all data.
    batch_size : int or None
        Number of examples in each batch; None for all data, without sampling.
    weight_decay : float
        Multiple of ``theta`` that is added to every gradient.
    seed : (int, int)
        Seed of the sequence.
    """

    def __init__(
        self,
        objective: ChoiceObjective,
        batch_size: int | None,
        weight_decay: float,
        seed: tuple[int, int],
    ) -> None:
        self.objective, self.batch_size, self.seed = objective, batch_size, seed
        self.ridge = float(objective.ridge)
        self.decay = self.ridge + weight_decay
        self.rows, self.shifts = objective.rows, objective.shifts
        self.taken, self.chunk = 0, -1
        self.sizes = np.diff(objective.offsets)
        if batch_size is None:
            self.everything = (slice(None), objective.offsets[:-1], self.sizes)

    def forward(self, theta: Vector) -> tuple[float, Vector, Vector]:
        """Return the value on the next batch, and the two arrays that :meth:`backward` needs."""
        if self.batch_size is None:
            rows, shifts = self.rows, self.shifts
            starts, sizes = self.objective.offsets[:-1], self.sizes
        else:
            chunk, k = divmod(self.taken, _CHUNK)
            self.taken += 1
            if chunk != self.chunk:
                self._draw(chunk)
            picked = self.picked[self.bounds[k] : self.bounds[k + 1]]
            rows, shifts = self.rows.take(picked, axis=0), self.shifts.take(picked)
            starts, sizes = self.starts[k], self.drawn_sizes[k]
        scores = rows @ theta
        scores += shifts
        top = np.maximum(np.maximum.reduceat(scores, starts), 0)
        scores -= top.repeat(sizes)
        odds = np.exp(scores, out=scores)
        total = np.add.reduceat(odds, starts) + np.exp(-top)
        value = float((top + np.log(total)).sum()) / len(top)
        if self.ridge:
            value += self.ridge / 2 * float(theta @ theta)
        odds /= (total * len(top)).repeat(sizes)
        return value, odds, rows

    def backward(self, odds: Vector, rows: Vector, theta: Vector) -> Vector:
        """Return the gradient of :meth:`forward` (equations 18 and 22) with the weight decay."""
        gradient: Vector = odds @ rows
        if self.decay:
            gradient += self.decay * theta
        return gradient

    def _draw(self, chunk: int) -> None:
        """Draw the row numbers of a chunk of batches, one batch after the other."""
        assert self.batch_size is not None
        rng = np.random.default_rng((*self.seed, chunk))
        choices = rng.integers(self.objective.n_choices, size=(_CHUNK, self.batch_size))
        sizes = self.sizes[choices]
        ends = np.cumsum(sizes).reshape(sizes.shape)
        # Row numbers count up from the offset of each example.
        shift = self.objective.offsets[choices] - (ends - sizes)
        self.picked = np.arange(ends[-1, -1]) + shift.ravel().repeat(sizes.ravel())
        self.bounds = [0, *ends[:, -1].tolist()]
        self.starts = np.cumsum(sizes, axis=1) - sizes
        self.drawn_sizes = sizes
        self.chunk = chunk
