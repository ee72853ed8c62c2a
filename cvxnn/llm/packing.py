"""Prefix trees of token sequences, which hold the common beginnings of sequences once."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np


class Item(NamedTuple):
    """Tokens of a prompt and a reply.

    Attributes
    ----------
    tokens : ndarray of shape (length,), int64
        The tokens of the prompt, then those of the reply.
    start : int
        Where the reply begins.
    """

    tokens: np.ndarray
    start: int

    @property
    def key(self) -> bytes:
        """Bytes that are equal for equal items only."""
        return self.start.to_bytes(8, "little") + self.tokens.astype("<i8").tobytes()


class Pack(NamedTuple):
    """Items in one row, as a prefix tree.

    Attributes
    ----------
    members : list of int
        Numbers of the items.
    length : int
        Number of tokens of the tree.
    """

    members: list[int]
    length: int


def plan(items: list[Item], capacity: int, pairs_per_token: float) -> list[Pack]:
    """Join neighbours in lexicographic order, those with the longest common beginning first.

    A joint row saves the common tokens, but its attention also runs over the (masked) pairs of
    tokens of different branches. Neighbours are joined where that costs less than it saves.

    Parameters
    ----------
    items : list of Item
        The items.
    capacity : int
        Largest number of tokens of a row.
    pairs_per_token : float
        Number of pairs of tokens in attention that cost as much as the rest of one token.

    Returns
    -------
    list of Pack
        Rows; each item is in one of them.
    """
    order = sorted(range(len(items)), key=lambda i: items[i].tokens.astype(">u4").tobytes())
    tokens = [items[i].tokens for i in order]
    common = [common_length(left, right) for left, right in itertools.pairwise(tokens)]
    first = list(range(len(items)))  # first item of the run of neighbours that ends here
    last = list(range(len(items)))  # last item of the run of neighbours that starts here
    length = [len(sequence) for sequence in tokens]  # tokens of the run that starts here
    for fork in sorted(range(len(common)), key=lambda k: -common[k]):
        left, right = first[fork], fork + 1
        joint = length[left] + length[right] - common[fork]
        cost = (joint**2 - length[left] ** 2 - length[right] ** 2) / pairs_per_token
        if joint <= capacity and cost < common[fork]:
            length[left] = joint
            last[left] = last[right]
            first[last[right]] = left
    packs, start = [], 0
    while start < len(items):
        stop = last[start] + 1
        packs.append(Pack(order[start:stop], length[start]))
        start = stop
    return packs


def common_length(left: np.ndarray, right: np.ndarray) -> int:
    """Return the length of the longest common beginning.

    Parameters
    ----------
    left : ndarray of shape (n_left,)
        A sequence.
    right : ndarray of shape (n_right,)
        Another sequence.

    Returns
    -------
    int
        Number of equal elements before the first that differs.
    """
    n = min(len(left), len(right))
    differs = left[:n] != right[:n]
    return int(differs.argmax()) if differs.any() else n


def lay_out(
    sequences: list[np.ndarray], tokens: np.ndarray, depth: np.ndarray, visible: np.ndarray
) -> list[np.ndarray]:
    """Write sorted sequences as a prefix tree.

    The first sequence fills the columns from 0 on; each further one adds only what follows its
    common beginning with its predecessor.

    Parameters
    ----------
    sequences : list of ndarray
        Tokens of each sequence, in lexicographic order.
    tokens : ndarray of shape (width,), int64
        Gets the tokens of the tree.
    depth : ndarray of shape (width,), int64
        Gets the position of each token in its sequence.
    visible : ndarray of shape (width, width), bool
        Gets True where the column is the token of the row or one of its ancestors.

    Returns
    -------
    list of ndarray
        Columns of the tokens of each sequence.
    """
    paths: list[np.ndarray] = []
    used = 0
    for i, sequence in enumerate(sequences):
        common = common_length(sequences[i - 1], sequence) if i else 0
        trunk = paths[-1][:common] if i else np.empty(0, dtype=np.int64)
        n_new = len(sequence) - common
        new = slice(used, used + n_new)
        tokens[new], depth[new] = sequence[common:], np.arange(common, len(sequence))
        visible[new, trunk] = True
        visible[new, new] = np.tri(n_new, dtype=bool)
        paths.append(np.concatenate([trunk, np.arange(used, used + n_new)]))
        used += n_new
    return paths
