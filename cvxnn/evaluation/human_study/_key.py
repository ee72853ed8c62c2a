"""The key of a study: which system stands behind which letter."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from cvxnn._files import read_json
from cvxnn.preference.data import digest

FORMAT = "cvxnn-study-key"


@dataclass(frozen=True)
class KeyQuestion:
    """Who wrote the replies to one question.

    Attributes
    ----------
    id : str
        On the sheet, such as ``"q1"``.
    question : str
        A hash, the same on every sheet of the study.
    prompt : str
        Its beginning, for reports.
    data_set : str
    options : dict of str to tuple of str
        Systems behind each letter; several if their replies are equal.
    """

    id: str
    question: str
    prompt: str
    data_set: str
    options: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class StudyKey:
    """What is needed to score the answers to one sheet. Keep it from those who take part.

    Attributes
    ----------
    sheet : str
        Checksum of the sheet that it belongs to.
    systems : tuple of str
    questions : tuple of KeyQuestion
        In the order in which they were given to `make_study`.
    """

    sheet: str
    systems: tuple[str, ...]
    questions: tuple[KeyQuestion, ...]

    def as_dict(self) -> dict[str, Any]:
        """What is written: with a checksum, so that a changed key is noticed."""
        content = asdict(self)
        return {"format": FORMAT, "version": 1, **content, "checksum": digest(content)}


def read_key(path: str | os.PathLike[str]) -> StudyKey:
    """Read a key that `write_study` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no key, or was changed.
    """
    value = read_json(path)
    if value.pop("format", None) != FORMAT or value.pop("version", None) != 1:
        raise ValueError(f"{os.fspath(path)} is no key of a study; expected a file of write_study")
    checksum = value.pop("checksum", None)
    if checksum != digest(value):
        raise ValueError(
            f"{os.fspath(path)} was changed after it was written: its checksum does not agree; "
            "take the original, or make it again with the same questions and seed"
        )
    questions = tuple(
        KeyQuestion(**{**row, "options": {k: tuple(v) for k, v in row["options"].items()}})
        for row in value["questions"]
    )
    return StudyKey(value["sheet"], tuple(value["systems"]), questions)
