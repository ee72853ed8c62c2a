"""Processes that train one model together: each computes its part of a batch.

They are those of ``torch.distributed``, as ``accelerate launch`` or ``torchrun`` start them and
``accelerate.PartialState()`` connects them. Each holds the whole model, and has the same weights
after each step, since gradients are added over the processes before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import accelerate
import numpy as np
import torch
from accelerate.utils import gather_object, reduce

_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """The processes of a run; one alone changes nothing.

    Parameters
    ----------
    number : int, default=0
        Number of this process, from 0.
    total : int, default=1
        How many there are.
    """

    number: int = 0
    total: int = 1

    @classmethod
    def connected(cls) -> Self:
        """Return the processes that are connected to this one.

        Returns
        -------
        Processes
            One alone where ``torch.distributed`` was not initialised.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return cls()
        state = accelerate.PartialState()
        return cls(state.process_index, state.num_processes)

    def own(self, values: Sequence[_T]) -> Sequence[_T]:
        """Return the part of this process.

        Parameters
        ----------
        values : sequence
            What there is to compute, in the same order in all processes.

        Returns
        -------
        sequence
            Every `total`-th of them.
        """
        return values[self.number :: self.total]

    def gather(self, value: _T) -> list[_T]:
        """Return the values of all processes.

        Parameters
        ----------
        value : object
            The value of this process.

        Returns
        -------
        list
            One for each process, in their order.
        """
        found: list[_T] = gather_object([value]) if self.total > 1 else [value]
        return found

    def sum(self, value: int) -> int:
        """Return the sum of a count over all processes.

        Parameters
        ----------
        value : int
            The count of this process.

        Returns
        -------
        int
            The same in all processes.
        """
        return sum(self.gather(value))

    def sum_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the sum of arrays over all processes.

        Parameters
        ----------
        rows : ndarray
            The array of this process, of one shape in all of them.

        Returns
        -------
        ndarray
            The same in all processes.
        """
        return rows if self.total == 1 else np.sum(self.gather(rows), axis=0)

    def add_gradients(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes.

        Parameters
        ----------
        weights : iterable of torch.nn.Parameter
            The weights, in the same order in all processes.
        """
        if self.total == 1:
            return
        for weight in weights:
            own = torch.zeros_like(weight) if weight.grad is None else weight.grad
            weight.grad = reduce(own, "sum")

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.total > 1:
            accelerate.PartialState().wait_for_everyone()
