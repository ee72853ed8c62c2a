"""Small data sets that come with the package."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cvxnn.preference.data import Conversation

__all__ = ["load_tutoring"]


def load_tutoring() -> list[Conversation]:
    """Load conversations between students and tutors, on school and university subjects.

    They were written for this project (see the README beside the data) and are small enough for
    examples and tests: two to four tutor replies each.

    Returns
    -------
    list of Conversation
        Sorted by id; each has a subject.

    Examples
    --------
    >>> from cvxnn.datasets import load_tutoring
    >>> load_tutoring()[0].messages[0]["role"]
    'user'
    """
    from cvxnn.preference.data import read_conversations

    with resources.as_file(resources.files(__name__) / "tutoring.jsonl") as path:
        return read_conversations(path)
