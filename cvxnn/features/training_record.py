"""Record of the pairs that a head was trained on, so that they are not taken for held-out ones.

The record holds digests of the groups and of the prompts, no texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cvxnn.files.digests import digest
from cvxnn.preference.triplets import PreferenceTriplet, prompt_key


def training_record(pairs: Sequence[PreferenceTriplet]) -> NDArray[np.uint64]:
    """Return the record of pairs.

    Parameters
    ----------
    pairs : sequence of PreferenceTriplet
        The training pairs.

    Returns
    -------
    ndarray of uint64, shape (n_digests,)
        Digests of their groups and prompts, in increasing order.
    """
    return np.unique(_digests(pairs))


def is_recorded(
    pairs: Sequence[PreferenceTriplet], record: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Return which pairs share their group or their prompt with the pairs of a record.

    Parameters
    ----------
    pairs : sequence of PreferenceTriplet
        The pairs in question.
    record : ndarray of uint64
        Record of the training pairs; see :func:`training_record`.

    Returns
    -------
    ndarray of bool, shape (n_pairs,)
        False for pairs that were held out. Prompts are compared as in
        ``cvxnn.preference.deduplicate``.
    """
    known: NDArray[np.bool_] = np.isin(_digests(pairs), record)
    return np.asarray(known.any(axis=1))


def _digests(pairs: Sequence[PreferenceTriplet]) -> NDArray[np.uint64]:
    keys = [(digest("group", p.group), digest("prompt", prompt_key(p.prompt))) for p in pairs]
    return np.array([[int(key, 16) for key in row] for row in keys], np.uint64).reshape(-1, 2)
