"""Annotations of AlpacaEval: two outputs and a preference between 1 and 2."""

from __future__ import annotations

from typing import NamedTuple

from cvxnn.preference.formats.format import GROUP_FIELDS, Format, Parsed, stated_preference
from cvxnn.preference.row_checks import (
    Row,
    check_text,
    optional_name,
    optional_number,
    required_fields,
)


class AlpacaEvalAnnotation(NamedTuple):
    """Judgement of AlpacaEval on two outputs.

    Attributes
    ----------
    instruction : str
        Prompt of both outputs.
    output_1, output_2 : str
        The two outputs; either may be empty.
    preference : float or None
        Preference for the second output, in [0, 1], where 0.5 is a tie; None without a verdict.
    """

    instruction: str
    output_1: str
    output_2: str
    preference: float | None


def parse_annotation(row: Row, where: str) -> AlpacaEvalAnnotation:
    """Return the judgement of a row; raise ValueError if the row is malformed.

    AlpacaEval writes 1 where the first output is preferred, 2 where the second one is, numbers
    between them for probabilities, and 0 or 1.5 for a tie.

    Parameters
    ----------
    row : Row
        The row.
    where : str
        Its place, with which errors begin.
    """
    fields = ("instruction", "output_1", "output_2", "preference")
    instruction, first, second, value = required_fields(row, fields, where)
    check_text(instruction, where, "instruction")
    check_text(first, where, "output_1", blank=True)
    check_text(second, where, "output_2", blank=True)
    verdict = optional_number(value, where, "preference")
    if verdict is not None and verdict != 0.0 and not 1.0 <= verdict <= 2.0:
        raise ValueError(
            f"{where}: 'preference' is {value}; expected 1 (the first output) to 2 (the second), "
            "or 0 for a tie"
        )
    preference = None if verdict is None else verdict - 1 if verdict else 0.5
    return AlpacaEvalAnnotation(instruction, first, second, preference)


def _recognises(row: Row) -> bool:
    return "output_1" in row or "output_2" in row


def _parse(row: Row, where: str) -> Parsed:
    instruction, first, second, preference = parse_annotation(row, where)
    if preference is None or preference == 0.5:
        return "a tie"
    chosen, rejected = (first, second) if preference < 0.5 else (second, first)
    return stated_preference(instruction, chosen, rejected, optional_name(row, GROUP_FIELDS, where))


ALPACA_EVAL = Format(_recognises, _parse)
