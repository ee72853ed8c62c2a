"""Answers of participants: filled sheets, as the page or a spreadsheet saves them."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvxnn.files.json_files import read_json
from cvxnn.files.writing import read_text

_YES = {"yes", "y", "true", "1", "x"}


@dataclass(frozen=True)
class Answers:
    """Choices of one participant.

    Parameters
    ----------
    participant : str
        Name or code of the participant.
    sheet : str
        Checksum of the sheet that was filled in.
    choices : dict of str to str
        Letter of the chosen reply by question; questions without an answer are absent.
    source : str, default=""
        Name of the file, for messages.
    """

    participant: str
    sheet: str
    choices: dict[str, str]
    source: str = ""


def read_answers(path: str | os.PathLike[str]) -> Answers:
    """Read a filled sheet: the JSON or CSV file that the page saves, or the filled table.

    Columns of a table may be separated by commas, semicolons or tabs, because spreadsheets use
    different separators in different countries.

    Parameters
    ----------
    path : path-like
        A table if the name ends in ``.csv``, JSON if it ends in ``.json``; both in UTF-8.

    Returns
    -------
    Answers
        Choices of the participant.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not a filled sheet, names no participant or several, has no consent, or
        answers a question twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    ending = path.suffix.lower()
    if ending == ".json":
        return _from_json(read_json(path), str(path))
    if ending != ".csv":
        raise ValueError(f"{path} is not a filled sheet; expected a name in .json or .csv")
    return _from_table(read_text(path), str(path))


def _from_json(value: dict[str, Any], where: str) -> Answers:
    if value.get("format") != "cvxnn-study-answers" or value.get("version") != 1:
        raise ValueError(f"{where} is not a filled sheet; expected the file that the page saves")
    choices = value.get("answers")
    texts = [value.get(field) for field in ("participant", "sheet", "consent")]
    if not isinstance(choices, dict) or not all(
        isinstance(text, str) for text in [*texts, *choices.values()]
    ):
        raise ValueError(f"{where} is damaged; expected the file as the page saved it")
    participant, sheet, consent = (str(text).strip() for text in texts)
    return _checked(participant, sheet, consent, choices, where)


def _from_table(text: str, where: str) -> Answers:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    expected = {"sheet", "participant", "consent", "question", "choice"}
    lacking = sorted(expected - set(table.fieldnames or ()))
    if lacking:
        raise ValueError(f"{where} has no column {', '.join(lacking)}; expected a filled sheet.csv")
    choices: dict[str, str] = {}
    found: dict[str, list[str]] = {"participant": [], "sheet": [], "consent": []}
    for row in table:
        cells = {name: (row[name] or "").strip() for name in expected}
        for name, values in found.items():
            if cells[name] and cells[name] not in values:
                values.append(cells[name])
        if cells["question"] in choices:
            raise ValueError(
                f"{where}: question {cells['question']!r} is repeated; expected each question once"
            )
        if cells["question"]:
            choices[cells["question"]] = cells["choice"]
    for name, values in found.items():
        if len(values) > 1:
            raise ValueError(
                f"{where} has more than one {name}: {values}; expected one for each file"
            )
    participant, sheet, consent = ("".join(values) for values in found.values())
    return _checked(participant, sheet, consent, choices, where)


def _checked(
    participant: str, sheet: str, consent: str, choices: dict[str, str], where: str
) -> Answers:
    if not participant:
        raise ValueError(f"{where} names no participant; expected a name or a code")
    if consent.casefold() not in _YES:
        raise ValueError(
            f"{where}: {participant!r} did not consent; leave the file out, or ask for consent"
        )
    letters = {name: choice.strip().upper() for name, choice in choices.items()}
    return Answers(participant, sheet, {k: v for k, v in letters.items() if v}, where)
