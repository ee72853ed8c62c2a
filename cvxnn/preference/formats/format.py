"""The parts of a format: functions that recognise, parse and write one of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cvxnn.preference.row_checks import Row
from cvxnn.preference.triplets import PreferenceTriplet, Prompt

Parsed = PreferenceTriplet | str
"""A triplet, or the reason why a well-formed row states no preference."""

GROUP_FIELDS = ("conversation_id", "group", "id")
"""Fields that may name the group of a row; the first that is present is used."""


@dataclass(frozen=True)
class Format:
    """Format of preference data.

    Parameters
    ----------
    recognises : callable
        ``recognises(row)`` returns True if the fields of the row are those of the format.
    parse : callable
        ``parse(row, where)`` returns the triplet of a row, or the reason why the row states no
        preference. For a malformed row it raises a ValueError that begins with ``where``, the place
        of the row.
    write : callable or None, default=None
        ``write(triplet, where)`` returns the row of a triplet, without its group; None if the
        format can only be read.
    """

    recognises: Callable[[Row], bool]
    parse: Callable[[Row, str], Parsed]
    write: Callable[[PreferenceTriplet, str], Row] | None = None


def stated_preference(prompt: Prompt, chosen: str, rejected: str, group: str | None) -> Parsed:
    """Return the triplet, or the reason why the two replies state no preference.

    Parameters
    ----------
    prompt : str or list of Message
        What both reply to.
    chosen, rejected : str
        The preferred reply, and the other one.
    group : str or None
        Name of the group of the row, if it has one.
    """
    if not (chosen.strip() and rejected.strip()):
        return "an empty reply"
    if chosen == rejected:
        return "equal replies"
    return PreferenceTriplet(prompt, chosen, rejected, group or "")
