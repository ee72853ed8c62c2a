"""Pooling of the hidden states of a reply into one vector, at once or while the reply grows."""

from __future__ import annotations

import torch


def pool(states: torch.Tensor, pooling: str, n_layers: int = 1) -> torch.Tensor:
    """Pool the hidden states of a reply by one of the formulas of `Embedder`.

    Parameters
    ----------
    states : Tensor of shape (tokens, width)
        Hidden states of the tokens of the reply, at least one.
    pooling : {"mean", "last", "attention"}
        The formula.
    n_layers : int, default=1
        Number of layers whose states stand side by side; the formula holds for each.

    Returns
    -------
    Tensor of shape (width,)
        The embedding.
    """
    if pooling == "last":
        return states[-1]
    if pooling == "mean":
        return states.mean(dim=0)
    if n_layers > 1:
        return torch.cat([pool(part, pooling) for part in states.chunk(n_layers, dim=1)])
    centred = states - states.mean(dim=1, keepdim=True)
    z = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return (z @ z[-1] / states.shape[1] ** 0.5).softmax(dim=0) @ states


def pool_prompt(states: torch.Tensor, pooling: str, n_layers: int = 1) -> torch.Tensor:
    """Pool the hidden states of a prompt as those of a reply; without tokens, they are zeros.

    Parameters
    ----------
    states : Tensor of shape (tokens, width)
        Hidden states of the tokens of the prompt.
    pooling : {"mean", "last", "attention"}
        The formula.
    n_layers : int, default=1
        Number of layers whose states stand side by side.

    Returns
    -------
    Tensor of shape (width,)
        The embedding.
    """
    return pool(states, pooling, n_layers) if len(states) else states.new_zeros(states.shape[1])


class GrowingPool:
    """Pooled states of replies that grow together, by one token at a time.

    Only the pooling by attention keeps the states of all tokens.

    Parameters
    ----------
    states : Tensor of shape (tokens, width)
        Hidden states of the tokens that the replies have in common; there may be none.
    n : int
        Number of replies.
    pooling : {"mean", "last", "attention"}
        Formula of `Embedder`.
    n_layers : int, default=1
        Number of layers whose states stand side by side.

    Attributes
    ----------
    lengths : Tensor of shape (n,)
        Number of tokens of each reply.
    """

    def __init__(self, states: torch.Tensor, n: int, pooling: str, n_layers: int = 1) -> None:
        self.pooling, self._n_layers = pooling, n_layers
        states = states.float()
        self.lengths = torch.full((n,), len(states), device=states.device)
        if pooling == "mean":
            kept = states.sum(dim=0)
        elif pooling == "last":
            kept = states[-1] if len(states) else states.new_zeros(states.shape[1])
        else:
            kept = states
        self._kept = kept.repeat(n, *[1] * kept.ndim)  # (n, width) or (n, tokens, width)

    def extend(self, states: torch.Tensor, alive: torch.Tensor) -> None:
        """Add a token to replies.

        Parameters
        ----------
        states : Tensor of shape (n, width)
            Hidden states of the token of each reply.
        alive : Tensor of shape (n,), bool
            False for replies that have ended; they get no token.
        """
        states = states.float()
        if self.pooling == "attention":
            # A reply that has ended keeps its length, so these states do not count.
            self._kept = torch.cat([self._kept, states[:, None]], dim=1)
        elif self.pooling == "mean":
            self._kept = self._kept + states * alive[:, None]
        else:
            self._kept = torch.where(alive[:, None], states, self._kept)
        self.lengths = self.lengths + alive

    def keep(self, row: int) -> None:
        """Let all replies continue from one of them.

        Parameters
        ----------
        row : int
            Number of this reply, which has not ended.
        """
        self._kept = self._kept[row : row + 1].expand_as(self._kept)
        self.lengths = self.lengths[row : row + 1].expand_as(self.lengths)

    def value(self) -> torch.Tensor:
        """Return the embeddings of the replies so far.

        Returns
        -------
        Tensor of shape (n, width), float32
            The embeddings. Each reply must have at least one token.
        """
        if self.pooling == "mean":
            return self._kept / self.lengths[:, None]
        if self.pooling == "last":
            return self._kept
        rows = zip(self._kept, self.lengths.tolist(), strict=True)
        return torch.stack([pool(states[:n], self.pooling, self._n_layers) for states, n in rows])
