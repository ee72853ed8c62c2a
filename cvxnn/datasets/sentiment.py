"""Preference pairs made of texts that are labelled by their sentiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cvxnn.files.digests import digest
from cvxnn.preference.triplets import PreferenceTriplet, Prompt


def sentiment_pairs(
    texts: Sequence[str],
    labels: ArrayLike,
    prompt: Prompt = "Write a review of a film that you liked.",
    seed: int = 0,
) -> list[PreferenceTriplet]:
    """Pair positive with negative texts at random, which gives preferences for a sentiment.

    Each text is in at most one pair; the surplus texts of the larger class are not used.

    Parameters
    ----------
    texts : sequence of str
        Labelled texts, such as reviews of films.
    labels : array-like of 0 and 1, shape (n_texts,)
        Sentiments: 1 for positive texts, which become the chosen replies, 0 for negative ones.
    prompt : str or list of Message
        Prompt of all pairs; by default a request for a review of a film.
    seed : int, default=0
        Seed of the pairing.

    Returns
    -------
    list of PreferenceTriplet
        Pairs, each in a group of its own, which is named after its texts. All pairs share one
        prompt, so split them with ``split_by_group(pairs, by="group")``.

    Raises
    ------
    ValueError
        If the sizes differ, a label is neither 0 nor 1, a class is missing, or a text is blank.
    """
    marks = np.asarray(labels)
    if marks.shape != (len(texts),):
        raise ValueError(
            f"labels has shape {marks.shape}; expected one label for each of {len(texts)} texts"
        )
    classes = [np.flatnonzero(marks == mark) for mark in (1, 0)]
    if sum(map(len, classes)) != len(texts) or not all(map(len, classes)):
        raise ValueError(
            f"labels has the values {np.unique(marks).tolist()}; expected both 0 (negative) and 1 "
            "(positive), and nothing else"
        )
    blank = [i for i, text in enumerate(texts) if not text.strip()]
    if blank:
        raise ValueError(f"texts[{blank[0]}] is empty; expected some text")
    rng = np.random.default_rng(seed)
    positive, negative = (rng.permutation(members) for members in classes)
    pairs = []
    for i, j in zip(positive, negative, strict=False):
        if texts[i] != texts[j]:
            group = digest([texts[i], texts[j]])
            pairs.append(PreferenceTriplet(prompt, texts[i], texts[j], group))
    return pairs
