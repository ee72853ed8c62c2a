"""One vector from the hidden states of a reply, at once or while the reply grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvxnn._extras import require

if TYPE_CHECKING:
    import torch


def pool(states: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool the states of a reply, shape (tokens, width); the formulas are those of `Embedder`."""
    if pooling == "last":
        return states[-1]
    if pooling == "mean":
        return states.mean(dim=0)
    centred = states - states.mean(dim=1, keepdim=True)
    z = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return (z @ z[-1] / states.shape[1] ** 0.5).softmax(dim=0) @ states


class GrowingPool:
    """Pooled states of `n` replies that grow together, a token at a time.

    A mean keeps a sum, a last state itself; only attention keeps all the states.

    Parameters
    ----------
    states : Tensor of shape (tokens, width)
        Of what the replies have in common; there may be no token yet.
    n : int
    pooling : {"mean", "last", "attention"}
    """

    def __init__(self, states: torch.Tensor, n: int, pooling: str) -> None:
        self._torch = require("torch", extra="llm")
        self.pooling = pooling
        states = states.float()
        self.lengths = self._torch.full((n,), len(states), device=states.device)
        if pooling == "mean":
            kept = states.sum(dim=0)
        elif pooling == "last":
            kept = states[-1] if len(states) else states.new_zeros(states.shape[1])
        else:
            kept = states
        self._kept = kept.repeat(n, *[1] * kept.ndim)  # (n, width) or (n, tokens, width)

    def extend(self, states: torch.Tensor, alive: torch.Tensor) -> None:
        """Add a token's states, shape (n, width), to those replies that are `alive`, shape (n,)."""
        states = states.float()
        if self.pooling == "attention":
            # The states of an ended reply lie past its length.
            self._kept = self._torch.cat([self._kept, states[:, None]], dim=1)
        elif self.pooling == "mean":
            self._kept = self._kept + states * alive[:, None]
        else:
            self._kept = self._torch.where(alive[:, None], states, self._kept)
        self.lengths = self.lengths + alive

    def keep(self, row: int) -> None:
        """Let all replies go on from one of them, which has not ended."""
        self._kept = self._kept[row : row + 1].expand_as(self._kept)
        self.lengths = self.lengths[row : row + 1].expand_as(self.lengths)

    def value(self) -> torch.Tensor:
        """Embeddings of the replies, shape (n, width), float32; each has a token at least."""
        if self.pooling == "mean":
            return self._kept / self.lengths[:, None]
        if self.pooling == "last":
            return self._kept
        rows = zip(self._kept, self.lengths.tolist(), strict=True)
        return self._torch.stack([pool(states[:n], self.pooling) for states, n in rows])
