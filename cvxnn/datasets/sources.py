"""Preference pairs by the name of their source: a file, a data set on the Hub, or "tutoring"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from cvxnn._messages import counted
from cvxnn.datasets.tutoring import load_tutoring
from cvxnn.preference.files import ReadFormat, read_conversations, read_hub, read_preferences
from cvxnn.preference.population import alternating_population
from cvxnn.preference.row_checks import Row
from cvxnn.preference.triplets import Conversation, PreferenceTriplet

SHIPPED = "tutoring"


def read_pairs(
    source: str,
    *,
    format: ReadFormat | Literal["conversations"] = "auto",
    split: str = "train",
    limit: int | None = None,
    fields: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
    keep: Callable[[Row], object] | None = None,
) -> list[PreferenceTriplet]:
    """Read preference pairs from a file, from a data set on the Hub, or from those shipped.

    Parameters
    ----------
    source : str
        Name of a file or of a folder of files; ``"tutoring"`` for the conversations that come with
        the package; otherwise the name ``OWNER/NAME`` of a data set on the Hub.
    format : str, default="auto"
        Format of the data: a format of `cvxnn.preference.read_preferences`, or
        ``"conversations"``, of which the Alternating Population Strategy makes pairs. ``"auto"``
        recognises all of them.
    split : str, default="train"
        Name of the split of a data set on the Hub.
    limit : int, optional
        Largest number of rows to read or, for conversations, of pairs to return; by default all.
    fields : mapping of str to str, optional
        Names of fields in the file, by the names that the format has for them; see
        `cvxnn.preference.read_preferences`.
    say : callable, optional
        Function that gets a sentence on how the pairs were made, if they come from conversations.
    keep : callable, optional
        Function that gets the row of each pair, with all its fields, unless they come from
        conversations.

    Returns
    -------
    list of PreferenceTriplet
        Pairs in the order of the data.

    Raises
    ------
    FileNotFoundError
        If the file does not exist and the name cannot be that of a data set on the Hub.
    ValueError
        If the data are malformed or contain no pairs; the message names the file, the line and the
        field.

    Examples
    --------
    >>> from cvxnn.datasets import read_pairs
    >>> len(read_pairs("tutoring", limit=10))
    10
    """
    path = Path(source)
    if source == SHIPPED and not path.exists():
        return _alternating(load_tutoring(), source, limit, say)
    if not path.exists():
        if path.suffix or source.count("/") != 1:
            raise FileNotFoundError(
                f"no such file: {source}; expected a file, OWNER/NAME of a Hub data set, or "
                f"{SHIPPED!r}, the conversations that come with the package"
            )
        if format == "conversations":
            raise ValueError(
                f"format is 'conversations', but {source} is a data set on the Hub; expected a "
                "format of preference pairs, or a file of conversations"
            )
        return read_hub(source, split, limit, format, fields, keep)
    if format == "conversations":
        return _alternating(read_conversations(path), source, limit, say)
    try:
        return read_preferences(path, format, limit, fields, keep)
    except ValueError as error:
        if format != "auto":
            raise
        # Rows without pairs may be conversations; if they are not, the first message is raised.
        try:
            conversations = read_conversations(path)
        except ValueError:
            raise error from None
        return _alternating(conversations, source, limit, say)


def _alternating(
    conversations: Sequence[Conversation],
    source: str,
    limit: int | None,
    say: Callable[[str], None] | None,
) -> list[PreferenceTriplet]:
    pairs = alternating_population(conversations)
    if not pairs:
        raise ValueError(
            f"{source}: no conversation has two replies of the assistant, so there are no pairs; "
            "expected at least one such conversation"
        )
    kept = pairs[:limit]
    if say is not None:
        part = f"; the first {len(kept)} of them count" if len(kept) < len(pairs) else ""
        say(
            f"{counted(len(pairs), 'pair')} from {counted(len(conversations), 'conversation')}: "
            f"each reply of the assistant is preferred to its next reply{part}"
        )
    return kept
