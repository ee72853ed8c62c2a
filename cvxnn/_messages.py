"""Texts for users: warnings that name their line, and counts in the singular or the plural."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from types import FrameType

# What stands between a user and a function of cvxnn: wrappers of methods, pipelines, searches.
_BETWEEN = {"cvxnn", "contextlib", "functools", "joblib", "sklearn", "threading"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the line of the user that led here.

    Parameters
    ----------
    message : str
        What to say.
    category : type, optional
        Class of the warning; ``UserWarning`` by default.
    """
    frames = list(_callers())
    users = [frame for frame in frames if _package(frame) not in _BETWEEN]
    # Without a user, as in the process of a worker: what called the package.
    others = [frame for frame in frames if _package(frame) != "cvxnn"]
    where = [*users, *others, frames[-1]][0]
    warnings.warn_explicit(
        message,
        category,
        where.f_code.co_filename,
        where.f_lineno,
        where.f_globals.get("__name__"),
        where.f_globals.setdefault("__warningregistry__", {}),
    )


def counted(n: float, noun: str) -> str:
    """Return a number with its noun.

    Parameters
    ----------
    n : int or float
        The number.
    noun : str
        What is counted, in the singular; its last word gets the plural.

    Returns
    -------
    str
        Such as ``"1 training pair"`` or ``"2,000 replies"``.

    Examples
    --------
    >>> from cvxnn._messages import counted
    >>> counted(1, "reply"), counted(2, "reply"), counted(0, "class"), counted(3, "held-out pair")
    ('1 reply', '2 replies', '0 classes', '3 held-out pairs')
    """
    if n != 1:
        ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
        is_y = noun.endswith("y") and noun[-2:-1] not in "aeiou"
        noun = f"{noun[:-1]}ies" if is_y else noun + ending
    return f"{int(n) if n == int(n) else n:,} {noun}"


def _callers() -> Iterator[FrameType]:
    """Yield the frames above `warn`, from the inside out."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]
