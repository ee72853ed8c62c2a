"""Candidates of prompts as rows: their sets, their order, and which of them are wanted."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import column_or_1d

from cvxnn.estimators._rows import labels_of


def sets_of(groups: ArrayLike, n_rows: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order that groups candidates by prompt, and where each prompt begins."""
    codes = labels_of(groups, n_rows, "groups")[1]
    order = np.argsort(codes, kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(codes))])


def in_fixed_order(
    codes: NDArray[np.intp], order: NDArray[np.intp], offsets: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sort the candidates of each prompt, and the prompts, by the codes of their rows."""
    prompt = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = order[np.lexsort((codes[order], prompt))]
    sets = [order[low:high] for low, high in itertools.pairwise(offsets)]
    sets.sort(key=lambda rows: codes[rows].tolist())
    return np.concatenate(sets), np.concatenate([[0], np.cumsum([len(rows) for rows in sets])])


def marks_of(y: ArrayLike, n_rows: int) -> NDArray[np.bool_]:
    """Check the marks of wanted responses and return them."""
    marks = column_or_1d(y)
    if len(marks) != n_rows:
        raise ValueError(f"y has {len(marks)} entries; expected {n_rows}, as X.")
    if not np.isin(marks, (0, 1)).all():
        raise ValueError(
            f"y has {marks[~np.isin(marks, (0, 1))][0]}; expected marks, 1 or True for the wanted "
            "response of a prompt and 0 or False for the others."
        )
    return marks.astype(bool)


def require_one_wanted(
    wanted: NDArray[np.bool_], offsets: NDArray[np.intp], prompts: NDArray[Any]
) -> None:
    """Refuse a prompt that has not exactly one wanted response; all are grouped by prompt."""
    counts = np.add.reduceat(wanted.astype(int), offsets[:-1])
    if (counts != 1).any():
        k = int(np.argmax(counts != 1))
        raise ValueError(
            f"prompt {prompts[offsets[k]]} has {counts[k]} wanted responses among its candidates; "
            "expected exactly one. Add the target to the candidates, or leave the prompt out."
        )
