"""Conversations between students and tutors, which come with the package."""

from __future__ import annotations

from importlib import resources

from cvxnn.preference.files import read_conversations
from cvxnn.preference.triplets import Conversation


def load_tutoring() -> list[Conversation]:
    """Load conversations between students and tutors on school and university subjects.

    They were written for this project and are small enough for examples and tests: each has two to
    four replies of the tutor. The README beside the data describes them.

    Returns
    -------
    list of Conversation
        Conversations sorted by id; each has a subject.

    Examples
    --------
    >>> from cvxnn.datasets import load_tutoring
    >>> load_tutoring()[0].messages[0]["role"]
    'user'
    """
    with resources.as_file(resources.files("cvxnn.datasets") / "tutoring.jsonl") as path:
        return read_conversations(path)
