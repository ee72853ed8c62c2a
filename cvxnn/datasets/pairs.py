"""Preference pairs by the name of their source: a file, a data set on the Hub, or "tutoring"."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cvxnn.datasets.tutoring import load_tutoring
from cvxnn.preference.files import ReadFormat, read_conversations, read_hub, read_preferences
from cvxnn.preference.population import alternating_population
from cvxnn.preference.triplets import PreferenceTriplet

SHIPPED = "tutoring"


def read_pairs(
    source: str,
    *,
    format: ReadFormat | Literal["conversations"] = "auto",
    split: str = "train",
    limit: int | None = None,
) -> list[PreferenceTriplet]:
    """Read preference pairs from a file, from a data set on the Hub, or from those shipped.

    Parameters
    ----------
    source : str
        A file; ``"tutoring"`` for the conversations that cvxnn ships; otherwise the name
        ``OWNER/NAME`` of a data set on the Hub.
    format : str, default="auto"
        Layout of the data: one of `cvxnn.preference.read_preferences`, or
        ``"conversations"``, from which the Alternating Population Strategy makes pairs. ``"auto"``
        recognises all of them.
    split : str, default="train"
        Split of a data set on the Hub.
    limit : int, optional
        Use at most this many rows; of conversations, at most this many pairs.

    Returns
    -------
    list of PreferenceTriplet
        In the order of the data.

    Raises
    ------
    FileNotFoundError
        If there is no such file, and the name cannot be that of a data set on the Hub.
    ValueError
        If the data are malformed or hold no pair; the message names file, line and field.

    Examples
    --------
    >>> from cvxnn.datasets import read_pairs
    >>> len(read_pairs("tutoring", limit=10))
    10
    """
    path = Path(source)
    if source == SHIPPED and not path.exists():
        return alternating_population(load_tutoring())[:limit]
    if not path.exists():
        if path.suffix or source.count("/") != 1:
            raise FileNotFoundError(
                f"no such file: {source}; expected a file, OWNER/NAME of a Hub data set, or "
                f"{SHIPPED!r}, the shipped conversations"
            )
        if format == "conversations":
            raise ValueError(
                f"format is 'conversations' and {source} a data set on the Hub; expected a layout "
                "of preference pairs, or a file of conversations"
            )
        return read_hub(source, split, limit, format)
    if format == "conversations":
        return _not_empty(alternating_population(read_conversations(path)), source, limit)
    try:
        return read_preferences(path, format, limit)
    except ValueError as error:
        if format != "auto":
            raise
        # Rows without pairs may be conversations; if they are not, the first message is raised.
        try:
            conversations = read_conversations(path)
        except ValueError:
            raise error from None
        return _not_empty(alternating_population(conversations), source, limit)


def _not_empty(
    pairs: list[PreferenceTriplet], source: str, limit: int | None
) -> list[PreferenceTriplet]:
    if not pairs:
        raise ValueError(
            f"{source}: no conversation has two replies of the assistant, so there is no pair"
        )
    return pairs[:limit]
