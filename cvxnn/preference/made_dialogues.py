"""Dialogues of a student and a tutor, written by a language model that plays both.

The recipe of EduFeedback (COALA, section 5.1 and appendix E.2): a subject, a mood for each of the
two, a temperature between 0.2 and 0.9, and 4, 6 or 8 messages, all drawn for each dialogue. A
dialogue with a message that is too short or too long, repeats itself or earlier ones, or leaves its
role is thrown away.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cvxnn._messages import counted
from cvxnn.files.locks import locked
from cvxnn.files.writing import append
from cvxnn.preference.row_files import rows_so_far
from cvxnn.preference.triplets import Message

Writer = Callable[[list[Message], float, int], str]
"""``write(messages, temperature, seed)`` returns the next message of a dialogue."""

SUBJECTS = (
    "algebra",
    "art history",
    "biology",
    "chemistry",
    "computer science",
    "economics",
    "geography",
    "history",
    "music",
    "philosophy",
    "physics",
)
"""Eleven subjects, as many as EduFeedback has."""
MOODS = ("anxious", "bored", "cheerful", "curious", "impatient", "tired")
"""Moods of a student; those of a tutor are drawn from the same."""

_ROLE = re.compile(r"^\s*\W*(student|tutor|teacher|user|assistant|system)\W*:", re.I | re.M)
_MACHINE = re.compile(r"\bas an? (ai|artificial|language) ", re.I)
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True)
class DialogueFilter:
    """Rules that a message has to meet.

    Parameters
    ----------
    least_words, most_words : int, default=3, 300
        Number of words of a message.
    most_repetition : float, default=0.3
        Largest share of the runs of three words of a message that were in it before, in [0, 1].
    most_echo : float, default=0.5
        Largest share of the different runs of three words of a message that earlier messages have,
        whoever wrote them, in [0, 1]. People who teach rarely repeat half of what they say.
    """

    least_words: int = 3
    most_words: int = 300
    most_repetition: float = 0.3
    most_echo: float = 0.5

    def fault(self, text: str, earlier: Sequence[str]) -> str | None:
        """Return what is wrong with a message.

        Parameters
        ----------
        text : str
            The message.
        earlier : sequence of str
            Messages before it.

        Returns
        -------
        {"short", "long", "loop", "echo", "role"} or None
            The first rule that it breaks; None if it keeps all of them.
        """
        words = _words(text)
        if len(words) < self.least_words:
            return "short"
        if len(words) > self.most_words:
            return "long"
        runs = _runs(words)
        if runs and 1 - len(set(runs)) / len(runs) > self.most_repetition:
            return "loop"
        before = [_words(message) for message in earlier]
        said = {run for message in before for run in _runs(message)}
        new = set(runs) - said
        if words in before or (runs and 1 - len(new) / len(set(runs)) > self.most_echo):
            return "echo"
        if _ROLE.search(text) or _MACHINE.search(text):
            return "role"
        return None


def _words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + 3]) for i in range(len(words) - 2)]


@dataclass(frozen=True)
class DialogueCounts:
    """What became of the dialogues that were begun.

    Attributes
    ----------
    kept : int
        Number of dialogues in the file.
    faults : dict of str to int
        Number of dialogues that were thrown away, by the rule that a message broke.
    subjects, messages : dict
        Numbers of kept dialogues, by subject and by number of messages.
    """

    kept: int
    faults: dict[str, int] = field(default_factory=dict)
    subjects: dict[str, int] = field(default_factory=dict)
    messages: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the counts as one sentence."""
        lost = ", ".join(f"{n} {fault}" for fault, n in sorted(self.faults.items()))
        return f"{counted(self.kept, 'dialogue')} kept; thrown away: {lost or 'none'}"


def make_dialogues(
    write: Writer,
    path: str | os.PathLike[str],
    n: int = 100,
    *,
    subjects: Sequence[str] = SUBJECTS,
    moods: Sequence[str] = MOODS,
    temperatures: tuple[float, float] = (0.2, 0.9),
    n_messages: tuple[int, int] = (4, 8),
    rules: DialogueFilter | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> DialogueCounts:
    """Write dialogues of a student and a tutor to a file, which `read_conversations` reads.

    Dialogue number ``i`` follows from the seed and ``i`` alone, so that a call that was interrupted
    continues where it stopped, and a later one with a larger `n` adds to the file.

    Parameters
    ----------
    write : callable
        ``write(messages, temperature, seed)`` returns the next message. The first of the messages
        is a system message that says who speaks; its own earlier messages are the assistant's.
    path : path-like
        File of JSON lines: ``messages``, and how they were made. Beside it, ``PATH.faults.jsonl``
        has the numbers of those that were thrown away.
    n : int, default=100
        Number of dialogues to begin, at least 1; those with a fault are not written.
    subjects, moods : sequence of str, optional
        Where subject and moods are drawn from; by default `SUBJECTS` and `MOODS`.
    temperatures : (float, float), default=(0.2, 0.9)
        Smallest and largest temperature.
    n_messages : (int, int), default=(4, 8)
        Smallest and largest number of messages; an even number of them is drawn, so that the tutor
        has the last word.
    rules : DialogueFilter, optional
        Rules for each message; by default those of `DialogueFilter`.
    seed : int, default=0
        Seed of all draws.
    say : callable, optional
        Function that receives a line of text after each dialogue.

    Returns
    -------
    DialogueCounts
        What became of all dialogues.

    Raises
    ------
    ValueError
        If a number is out of range, or the file was made with another seed.
    """
    low, high = n_messages
    if n < 1 or not 2 <= low <= high or not 0 < temperatures[0] <= temperatures[1]:
        raise ValueError(
            f"n is {n}, n_messages {n_messages} and temperatures {temperatures}; expected at least "
            "one dialogue, two messages, and temperatures above 0, each range in ascending order"
        )
    rules, file = rules or DialogueFilter(), Path(path)
    refused = file.with_name(f"{file.name}.faults.jsonl")
    with locked(file):
        rows, faults = (rows_so_far(each, "number", {"seed": seed}) for each in (file, refused))
        for number in range(n):
            if number in rows or number in faults:
                continue
            rng = np.random.default_rng([seed, number])
            row = _drawn(rng, subjects, moods, temperatures, n_messages)
            fault = _write(row, write, rules, rng)
            row = {"number": number, "seed": seed, **row}
            if fault is None:
                rows[number] = row
                append(file, (json.dumps(row, ensure_ascii=False) + "\n").encode())
            else:
                faults[number] = {"number": number, "seed": seed, "fault": fault}
                append(refused, (json.dumps(faults[number]) + "\n").encode())
            if say is not None:
                say(f"dialogue {number}: {fault or 'kept'}")
    return DialogueCounts(
        len(rows),
        dict(Counter(row["fault"] for row in faults.values())),
        dict(Counter(row["subject"] for row in rows.values())),
        dict(Counter(len(row["messages"]) for row in rows.values())),
    )


def _drawn(
    rng: np.random.Generator,
    subjects: Sequence[str],
    moods: Sequence[str],
    temperatures: tuple[float, float],
    n_messages: tuple[int, int],
) -> dict[str, Any]:
    low, high = n_messages
    return {
        "subject": str(rng.choice(subjects)),
        "student": str(rng.choice(moods)),
        "tutor": str(rng.choice(moods)),
        "temperature": round(float(rng.uniform(*temperatures)), 3),
        "turns": 2 * int(rng.integers((low + 1) // 2, high // 2 + 1)),
    }


def _write(
    row: dict[str, Any], write: Writer, rules: DialogueFilter, rng: np.random.Generator
) -> str | None:
    """Add the messages to a row; return the fault that ended it, if any."""
    subject, texts = row["subject"], list[str]()
    for turn in range(row.pop("turns")):
        student = turn % 2 == 0
        mood = row["student" if student else "tutor"]
        task = (
            f"You are a student who prepares for a quiz in {subject}, and you are {mood}. Ask your "
            "tutor a question, or ask further. Write only what you say, in one to three sentences."
            if student
            else f"You are a tutor in {subject}, and you are {mood}. Answer the student's last "
            "message directly and correctly. Write only what you say, in at most five sentences."
        )
        messages: list[Message] = [{"role": "system", "content": task}]
        for k, text in enumerate(texts):
            own = (k % 2 == 0) == student
            messages.append({"role": "assistant" if own else "user", "content": text})
        if turn == 0:
            messages.append({"role": "user", "content": "What would you like to know?"})
        text = write(messages, row["temperature"], int(rng.integers(2**31))).strip()
        if fault := rules.fault(text, texts):
            return fault
        texts.append(text)
    roles = ("user", "assistant")
    row["messages"] = [{"role": roles[k % 2], "content": text} for k, text in enumerate(texts)]
    return None
