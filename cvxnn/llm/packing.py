"""Prefix trees of token sequences: what sequences have in common is laid out once."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np


class Item(NamedTuple):
    """Tokens of a prompt and a reply, which begins at `start`."""

    tokens: np.ndarray  # (length,) int64
    start: int

    @property
    def key(self) -> bytes:
        """Bytes that equal pairs have in common and no others."""
        return self.start.to_bytes(8, "little") + self.tokens.astype("<i8").tobytes()


class Pack(NamedTuple):
    """Items laid out in one row as a prefix tree of `length` tokens."""

    members: list[int]
    length: int


def plan(items: list[Item], capacity: int, pairs_per_token: float) -> list[Pack]:
    """Join neighbours in lexicographic order, deepest forks first, where that pays.

    A joint row saves the common tokens, but its attention also runs over the (masked) pairs of
    tokens of different branches.
    """
    order = sorted(range(len(items)), key=lambda i: items[i].tokens.astype(">u4").tobytes())
    tokens = [items[i].tokens for i in order]
    common = [common_length(left, right) for left, right in itertools.pairwise(tokens)]
    first = list(range(len(items)))  # of the run of neighbours that ends here
    last = list(range(len(items)))  # of the run of neighbours that starts here
    length = [len(sequence) for sequence in tokens]  # of the run that starts here
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
    """Length of the longest common beginning."""
    n = min(len(left), len(right))
    differs = left[:n] != right[:n]
    return int(differs.argmax()) if differs.any() else n


def lay_out(
    sequences: list[np.ndarray], tokens: np.ndarray, depth: np.ndarray, visible: np.ndarray
) -> list[np.ndarray]:
    """Write sorted sequences as a prefix tree; return the columns of each sequence's tokens.

    The first sequence fills columns from 0; each further one adds only what follows its common
    beginning with its predecessor. `visible` (square) gets the ancestors of each token.
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
