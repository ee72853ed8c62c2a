"""One side of a training, an objective with its data: batches, losses and rewards.

The batch of a step depends on the seed and the step only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from cvxnn.files.digests import digest
from cvxnn.llm.fine_tuning.config import FineTuningConfig
from cvxnn.llm.fine_tuning.processes import Processes
from cvxnn.llm.packing import Item, Pack, common_length
from cvxnn.llm.response_scorer import ResponseScorer
from cvxnn.preference.catalogue import Objective
from cvxnn.preference.metrics import reward_metrics

Sums: TypeAlias = "np.ndarray | torch.Tensor"
"""Log-probabilities of replies, without gradients or with them."""
_ALONE = Processes()


@dataclass(frozen=True)
class Side:
    """One of two objectives, with its data.

    Attributes
    ----------
    items : list of Item
        Tokens of the replies; for pairs, chosen and rejected replies alternate.
    objective : Objective
        The objective.
    parameters : mapping of str to float or bool
        Hyper-parameters of the objective.
    stream : int
        Number that makes the random numbers differ from those of the other objective.
    paired : bool
        Whether the items are pairs.
    reference : ndarray of shape (n_items,) or None, default=None
        Log-probabilities under the reference.
    held_out : bool, default=False
        Whether the data are only evaluated.
    """

    items: list[Item]
    objective: Objective
    parameters: Mapping[str, float]
    stream: int
    paired: bool
    reference: np.ndarray | None = None
    held_out: bool = False

    def __len__(self) -> int:
        """Return the number of pairs, or of replies."""
        return len(self.items) // (1 + self.paired)

    def batch(self, step: int, config: FineTuningConfig, *, n_rows: int | None = None) -> list[int]:
        """Return the rows of a step.

        Each epoch has an order of its own. Batches continue from one epoch into the next.

        Parameters
        ----------
        step : int
            Number of the step, counted from 0.
        config : FineTuningConfig
            Has the size of a batch and the seed.
        n_rows : int, optional
            Number of rows after which the data end; by default they do not.

        Returns
        -------
        list of int
            Numbers of pairs, or of replies.
        """
        size, n = config.batch_of(self.paired), len(self)
        stop = (step + 1) * size if n_rows is None else min((step + 1) * size, n_rows)
        orders: dict[int, np.ndarray] = {}
        rows = []
        for position in range(step * size, stop):
            epoch, place = divmod(position, n)
            if epoch not in orders:
                orders[epoch] = np.random.default_rng(
                    [config.seed, self.stream, epoch]
                ).permutation(n)
            rows.append(int(orders[epoch][place]))
        return rows

    def micro_batches(self, rows: list[int], size: int) -> list[list[int]]:
        """Split rows into parts of similar length, the longest first.

        With the longest first, memory runs out at once or never.

        Parameters
        ----------
        rows : list of int
            Rows of a step.
        size : int
            Largest number of rows of a part.

        Returns
        -------
        list of list of int
            The parts.
        """
        width = 1 + self.paired
        length = {r: max(len(self.items[width * r + k].tokens) for k in range(width)) for r in rows}
        ordered = sorted(rows, key=lambda row: -length[row])
        return [ordered[i : i + size] for i in range(0, len(ordered), size)]

    def losses(
        self, scorer: ResponseScorer, rows: list[int]
    ) -> tuple[torch.Tensor, dict[str, Sums]]:
        """Return the differentiable losses of rows, and the arrays they are computed from.

        Parameters
        ----------
        scorer : ResponseScorer
            Gives log-probabilities under the model that is trained.
        rows : list of int
            Numbers of pairs, or of replies.

        Returns
        -------
        losses : Tensor of shape (n_rows,)
            Loss of each row.
        arrays : dict of str to Tensor
            Arguments of the objective.
        """
        if not self.paired:
            packs = [Pack([row], len(self.items[row].tokens)) for row in rows]
            sums = scorer(self.items, packs)
            arrays = {"chosen": sums, "chosen_length": self._lengths(rows, sums)}
            return self.objective.losses(arrays, **self.parameters), arrays
        members = [i for row in rows for i in (2 * row, 2 * row + 1)]
        if scorer.shares(max(len(self.items[i].tokens) for i in members)):
            packs = [self._tree(row) for row in rows]  # the prompt of both replies once
        else:
            packs = [Pack([i], len(self.items[i].tokens)) for i in members]
        arrays = self.arrays(members, scorer(self.items, packs))
        return self.objective.losses(arrays, **self.parameters), arrays

    def arrays(self, members: Sequence[int], sums: Sums) -> dict[str, Sums]:
        """Return the arguments of the objective for pairs.

        Parameters
        ----------
        members : sequence of int
            Numbers of items; chosen and rejected replies alternate.
        sums : ndarray or Tensor of shape (n_members,)
            Their log-probabilities under the model.

        Returns
        -------
        dict of str to array of shape (n_members / 2,)
            Log-probabilities under the model and the reference, and lengths.
        """
        lengths = self._lengths(members, sums)
        arrays = {
            "chosen": sums[::2],
            "rejected": sums[1::2],
            "chosen_length": lengths[::2],
            "rejected_length": lengths[1::2],
        }
        if self.reference is not None:
            reference = _like(sums, self.reference[list(members)])
            arrays.update(reference_chosen=reference[::2], reference_rejected=reference[1::2])
        return arrays

    def evaluate(
        self,
        scorer: ResponseScorer,
        batch_tokens: int,
        rows: Sequence[int] | None = None,
        processes: Processes = _ALONE,
    ) -> tuple[float, dict[str, float]]:
        """Return the mean loss of rows without gradients, and the rewards of pairs.

        Parameters
        ----------
        scorer : ResponseScorer
            Gives log-probabilities under the model.
        batch_tokens : int
            Largest number of tokens in one call of the model.
        rows : sequence of int, optional
            Numbers of pairs, or of replies; all by default.
        processes : Processes, optional
            Those that share the work; each gets the result.

        Returns
        -------
        loss : float
            Mean loss.
        metrics : dict of str to float
            Reward metrics of pairs; empty for replies.
        """
        width = 1 + self.paired
        chosen = range(len(self)) if rows is None else rows
        members = [width * row + k for row in chosen for k in range(width)]
        sums = np.zeros(len(members))
        items = [self.items[i] for i in members]
        for places, part in scorer.sums(items, processes.own(scorer.plan(items, batch_tokens))):
            sums[places] = part
        sums = processes.sum_rows(sums)
        if not self.paired:
            arrays = {"chosen": sums, "chosen_length": self._lengths(members, sums)}
            return float(self.objective.losses(arrays, **self.parameters).mean()), {}
        arrays = self.arrays(members, sums)
        loss = float(self.objective.losses(arrays, **self.parameters).mean())
        return loss, reward_metrics(*self.rewards(arrays))

    def rewards(self, arrays: Mapping[str, Sums]) -> np.ndarray:
        """Return the rewards of chosen and rejected replies.

        Parameters
        ----------
        arrays : mapping of str to array of shape (n,)
            Arguments of the objective.

        Returns
        -------
        ndarray of shape (2, n), float64
            Rewards of the chosen replies, then of the rejected ones.
        """
        settings = {k: v for k, v in self.parameters.items() if k in self.objective.parameters}
        won, lost = self.objective.rewards(arrays, **settings)
        return np.stack([_numpy(won), _numpy(lost)])

    @property
    def digest(self) -> str:
        """Digest of the tokens."""
        return digest(*(item.key for item in self.items), digits=64)

    def _tree(self, row: int) -> Pack:
        won, lost = self.items[2 * row].tokens, self.items[2 * row + 1].tokens
        return Pack([2 * row, 2 * row + 1], len(won) + len(lost) - common_length(won, lost))

    def _lengths(self, members: Sequence[int], like: Sums) -> Sums:
        lengths = [len(self.items[i].tokens) - self.items[i].start for i in members]
        return _like(like, np.array(lengths, dtype=np.float64))


def _like(array: Sums, values: np.ndarray) -> Sums:
    return values if isinstance(array, np.ndarray) else array.new_tensor(values)


def _numpy(array: Sums) -> np.ndarray:
    return np.asarray(array if isinstance(array, np.ndarray) else array.detach().cpu(), np.float64)
