"""Types of options: functions of the text as typed, which refuse what is out of range."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_AS_NEAR = 0.12  # difference of likeness, in [0, 1], within which all choices are named
# Every field that a format of cvxnn.preference.read_preferences reads.
_FIELDS = (
    *("prompt", "chosen", "rejected", "conversation_id", "group", "id"),
    *("instruction", "input", "system", "history", "conversations"),
    *("completions", "output_1", "output_2", "preference"),
)


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number of a range.

    Parameters
    ----------
    least : int
        Smallest number.
    most : float, default=inf
        Largest number.

    Returns
    -------
    callable
        Function of the text as typed.
    """

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is too small; expected at least {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{value} is too large; expected at most {most:g}")
        return value

    number.__name__ = "whole number"  # argparse shows it in its message
    return number


positive, natural, port = whole(1), whole(0), whole(0, 65535)


def real(
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> Callable[[str], float]:
    """Return the type of an option that takes a finite number of a range.

    Parameters
    ----------
    least : float, default=-inf
        Smallest number.
    above : float, default=-inf
        Number that is too small already.
    most : float, default=inf
        Largest number.
    below : float, default=inf
        Number that is too large already.

    Returns
    -------
    callable
        Function of the text as typed.
    """
    bounds = {"of at least": least, "above": above, "of at most": most, "below": below}
    given = [f"{name} {bound:g}" for name, bound in bounds.items() if math.isfinite(bound)]
    expected = f"a number {' and '.join(given)}" if given else "a finite number"

    def number(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and least <= value <= most and above < value < below):
            raise argparse.ArgumentTypeError(f"{text} is out of range; expected {expected}")
        return value

    return number


def number_or_word(number: Callable[[str], Any], words: Sequence[str]) -> Callable[[str], Any]:
    """Return the type of an option that takes a number or one of some words.

    Parameters
    ----------
    number : callable
        Type of the number.
    words : sequence of str
        Words that may stand for it, such as ``"auto"``.

    Returns
    -------
    callable
        Function of the text as typed.
    """

    def number_or(text: str) -> Any:
        return text if text in words else number(text)

    number_or.__name__ = f"number or {' or '.join(words)}"  # argparse shows it in its message
    return number_or


def layers_among(*words: str) -> Callable[[str], Any]:
    """Return the type of an option that takes layers: numbers with commas between them, or a word.

    Parameters
    ----------
    *words : str
        Words that may stand for layers, such as ``"all"``.

    Returns
    -------
    callable
        Function of the text as typed: of several numbers it makes a list.
    """

    def parse(text: str) -> Any:
        if text in words:
            return text
        try:
            numbers = [int(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither layers, such as 16 or 10,20,30, nor {' or '.join(words)}"
                f"{nearest(text, words)}"
            ) from None
        return numbers[0] if len(numbers) == 1 else numbers

    return parse


def names_among(choices: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return the type of an option that takes some of the choices, separated by commas.

    Parameters
    ----------
    choices : sequence of str
        Names that are allowed.

    Returns
    -------
    callable
        Function of the text as typed.
    """

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(
                    f"{name!r} is not among {', '.join(choices)}{nearest(name, choices)}"
                )
        if not names:
            raise argparse.ArgumentTypeError(f"expected one or more of {', '.join(choices)}")
        return tuple(dict.fromkeys(names))

    return parse


def named_fields(text: str) -> dict[str, str]:
    """Return the type of an option that says which field of a file has which name.

    Parameters
    ----------
    text : str
        As typed: ``NAME=FIELD``, several with commas between them.

    Returns
    -------
    dict of str to str
        Fields by name.
    """
    names = {}
    for part in text.split(","):
        name, equals, field = (piece.strip() for piece in part.partition("="))
        if not (name and equals and field):
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form NAME=FIELD")
        if name not in _FIELDS:
            raise argparse.ArgumentTypeError(
                f"{name!r} is the name of no field that is read; expected one of "
                f"{', '.join(_FIELDS)}{nearest(name, _FIELDS)}"
            )
        names[name] = field
    return names


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return a hint at the choices that were perhaps meant.

    Parameters
    ----------
    name : str
        Name that is not among the choices.
    choices : iterable of str
        Names that are allowed.

    Returns
    -------
    str
        End of a message; empty if no choice is similar.
    """
    likeness = {
        choice: difflib.SequenceMatcher(None, choice, name).ratio()
        for choice in difflib.get_close_matches(name, list(choices), n=3)
    }
    # The word that two names share need not be the one that matters: --max-tokens is as near to
    # --batch-tokens as to --max-length.
    near = [repr(c) for c, value in likeness.items() if value > max(likeness.values()) - _AS_NEAR]
    return f"; did you mean {' or '.join(near)}?" if near else ""
