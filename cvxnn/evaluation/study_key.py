"""Key of a study: the systems behind the letters of the sheet."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from cvxnn.files.json_files import read_json
from cvxnn.files.writing import MALFORMED

FORMAT = "cvxnn-study-key"


@dataclass(frozen=True)
class KeyQuestion:
    """Systems that wrote the replies to one question.

    Attributes
    ----------
    id : str
        Name of the question on the sheet, such as ``"q1"``.
    question : str
        Hash of the question, the same on every sheet of the study.
    prompt : str
        First 80 characters of the prompt, for reports.
    data_set : str
        Data set of the question.
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
    """Key with which the answers to one sheet are scored; participants must not see it.

    Attributes
    ----------
    sheet : str
        Checksum of the sheet to which the key belongs.
    systems : tuple of str
        Names of the systems.
    questions : tuple of KeyQuestion
        Questions in the order in which `make_study` received them.
    """

    sheet: str
    systems: tuple[str, ...]
    questions: tuple[KeyQuestion, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {"format": FORMAT, "version": 1, **asdict(self)}


def read_key(path: str | os.PathLike[str]) -> StudyKey:
    """Read a key that `write_study` wrote.

    Parameters
    ----------
    path : path-like
        JSON file of the key.

    Returns
    -------
    StudyKey
        The key.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not a key, or was changed after it was written.
    """
    value = read_json(path)
    if value.pop("format", None) != FORMAT or value.pop("version", None) != 1:
        raise ValueError(
            f"{os.fspath(path)} is not the key of a study; expected a file that write_study wrote"
        )
    try:
        questions = tuple(
            KeyQuestion(**{**row, "options": {k: tuple(v) for k, v in row["options"].items()}})
            for row in value["questions"]
        )
        return StudyKey(value["sheet"], tuple(value["systems"]), questions)
    except MALFORMED as error:
        raise ValueError(f"{os.fspath(path)} is not a whole key of a study ({error})") from error
