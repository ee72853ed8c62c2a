"""Preference triplets: reading, writing, extraction from conversations, leak-free splits.

Files are JSON lines (one object a line, UTF-8, optionally gzipped) with the column names that
preference-tuning tools agree on: ``prompt``, ``chosen`` and ``rejected``.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvxnn.preference.rows import (
    ROLES,
    Message,
    check_text,
    messages_or_text,
    optional_name,
    parse_messages,
    read_rows,
)

__all__ = [
    "ROLES",
    "Conversation",
    "Message",
    "PreferenceTriplet",
    "Prompt",
    "alternating_population",
    "read_conversations",
    "read_preferences",
    "split_by_group",
    "write_preferences",
]

Prompt = str | list[Message]
"""Plain text, or the turns of a conversation up to the reply."""


@dataclass(frozen=True)
class PreferenceTriplet:
    """A prompt with a preferred and a less preferred reply.

    Parameters
    ----------
    prompt : str or list of Message
        What the replies answer.
    chosen, rejected : str
        The two replies, preferred first.
    group : str, optional
        Rows of one group never straddle a split (see `split_by_group`), so use the conversation
        or the question they come from. The default is a hash of the prompt, the same on every
        machine.

    Examples
    --------
    >>> PreferenceTriplet("What is 2 + 2?", "Four.", "Let us talk about the moon.").group
    'fb3eb78712d637f5'
    """

    prompt: Prompt
    chosen: str
    rejected: str
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", _digest(self.prompt))


@dataclass(frozen=True)
class Conversation:
    """A conversation of several turns.

    Parameters
    ----------
    messages : tuple of Message
        The turns, oldest first.
    id : str, optional
        The conversation's name; the default is a hash of its messages.
    subject : str or None, default=None
        What it is about.
    """

    messages: tuple[Message, ...]
    id: str = ""
    subject: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", _digest(list(self.messages)))


def read_preferences(
    path: str | os.PathLike[str], limit: int | None = None
) -> list[PreferenceTriplet]:
    """Read preference triplets from JSON lines.

    Three layouts are understood, and may be mixed:

    - plain: ``prompt``, ``chosen`` and ``rejected`` are strings;
    - conversational: ``prompt`` is a list of messages (or a string), ``chosen`` and ``rejected``
      are strings or lists that end in one assistant message; turns of the prompt repeated at
      their head are removed;
    - implicit prompt: no ``prompt``; ``chosen`` and ``rejected`` are whole transcripts as lists of
      messages, and their longest common beginning is the prompt.

    A field ``conversation_id``, ``group`` or ``id`` (the first that is present) becomes the group.

    Parameters
    ----------
    path : path-like
        A JSON lines file; ``.gz`` is decompressed.
    limit : int, optional
        Read the first `limit` rows only.

    Returns
    -------
    list of PreferenceTriplet
        In the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a row is malformed (invalid JSON, a missing field, a wrong type or an empty reply): file,
        line and field are named; correct or remove the row. Also if there is no row at all.

    Warns
    -----
    UserWarning
        If rows have two equal replies, as real data sets do; they are left out.
    """
    triplets = read_rows(path, _triplet, limit)
    different = [triplet for triplet in triplets if triplet.chosen != triplet.rejected]
    if not different:
        raise ValueError(f"{os.fspath(path)}: 'chosen' and 'rejected' are equal in every row")
    if len(different) < len(triplets):
        warnings.warn(
            f"{os.fspath(path)}: left out {len(triplets) - len(different)} of {len(triplets)} rows "
            "whose 'chosen' and 'rejected' are equal; they tell nothing",
            stacklevel=2,
        )
    return different


def write_preferences(path: str | os.PathLike[str], triplets: Iterable[PreferenceTriplet]) -> None:
    """Write preference triplets as JSON lines that `read_preferences` reads back unchanged.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    path : path-like
        File to create or replace; a name that ends in ``.gz`` is compressed.
    triplets : iterable of PreferenceTriplet
        At least one.

    Raises
    ------
    ValueError
        If there is no triplet, or one that could not be read back (an empty reply, equal replies,
        ...).
    """
    path = Path(path)
    lines = []
    for number, triplet in enumerate(triplets):
        row = {
            "prompt": triplet.prompt,
            "chosen": triplet.chosen,
            "rejected": triplet.rejected,
            "group": triplet.group,
        }
        _triplet(row, f"triplet {number}")
        if triplet.chosen == triplet.rejected:
            raise ValueError(f"triplet {number}: 'chosen' and 'rejected' are equal; leave it out")
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    if not lines:
        raise ValueError(f"no triplets to write to {path}: expected at least one")
    data = "".join(lines).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_conversations(
    path: str | os.PathLike[str], limit: int | None = None
) -> list[Conversation]:
    """Read conversations from JSON lines ``{"messages": [...], "id": ..., "subject": ...}``.

    Parameters
    ----------
    path : path-like
        A JSON lines file; ``.gz`` is decompressed. ``id`` and ``subject`` are optional.
    limit : int, optional
        Read the first `limit` rows only.

    Returns
    -------
    list of Conversation
        In the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a row is malformed; file, line and field are named. Also if there is no row at all.
    """
    return read_rows(path, _conversation, limit)


def alternating_population(conversations: Iterable[Conversation]) -> list[PreferenceTriplet]:
    """Extract preference triplets from conversations, without a judge or a second model.

    Each reply of the assistant is preferred to the reply that follows it: the prompt is the
    conversation up to and including a user turn, ``chosen`` the assistant's answer to it, and
    ``rejected`` the assistant's next answer, which was given to a later question. A conversation
    with A replies yields A - 1 triplets (COALA, appendices E.2 and E.3).

    - Consecutive messages of one role are first joined by a newline.
    - System messages stay in the prompt, and so does an assistant message before the first user
      turn: it answers nothing, so it is no reply.
    - Two identical replies in a row give no triplet.

    Parameters
    ----------
    conversations : iterable of Conversation
        Conversations with fewer than two replies give nothing.

    Returns
    -------
    list of PreferenceTriplet
        In the order of the conversations; the group is the conversation's id.

    Examples
    --------
    >>> turns = ["Why is the sky blue?", "Blue light scatters most.", "And red?", "It passes."]
    >>> roles = ["user", "assistant"] * 2
    >>> messages = tuple({"role": r, "content": c} for r, c in zip(roles, turns))
    >>> [triplet] = alternating_population([Conversation(messages, id="sky")])
    >>> triplet.prompt[-1]["content"], triplet.chosen, triplet.rejected
    ('Why is the sky blue?', 'Blue light scatters most.', 'It passes.')
    """
    triplets = []
    for conversation in conversations:
        turns = _join_roles(conversation.messages)
        replies = [
            i
            for i in range(1, len(turns))
            if turns[i]["role"] == "assistant" and turns[i - 1]["role"] == "user"
        ]
        for this, following in itertools.pairwise(replies):
            chosen, rejected = turns[this]["content"], turns[following]["content"]
            if chosen != rejected:
                prompt = [dict(turn) for turn in turns[:this]]
                triplets.append(PreferenceTriplet(prompt, chosen, rejected, conversation.id))
    return triplets


def split_by_group(
    triplets: Sequence[PreferenceTriplet], test_size: float = 0.25, random_state: int = 0
) -> tuple[list[PreferenceTriplet], list[PreferenceTriplet]]:
    """Split triplets so that no group is on both sides.

    The split depends on the set of groups alone, not on the order or the number of their rows.

    Parameters
    ----------
    triplets : sequence of PreferenceTriplet
        At least two groups.
    test_size : float, default=0.25
        Fraction of the groups to hold out, in (0, 1); at least one group is on each side.
    random_state : int, default=0
        Seed of the shuffle.

    Returns
    -------
    train, test : list of PreferenceTriplet
        Each in the given order.

    Raises
    ------
    ValueError
        If `test_size` is out of range or there are fewer than two groups.
    """
    if not 0.0 < test_size < 1.0:
        raise ValueError(f"test_size is {test_size!r}; expected a fraction between 0 and 1")
    groups = sorted({triplet.group for triplet in triplets})
    if len(groups) < 2:
        raise ValueError(
            f"cannot split {len(groups)} group(s); expected two or more (a group is never divided, "
            "so give each conversation or question its own)"
        )
    order = np.random.default_rng(random_state).permutation(len(groups))
    n_test = min(max(round(test_size * len(groups)), 1), len(groups) - 1)
    held_out = {groups[i] for i in order[:n_test]}
    train = [triplet for triplet in triplets if triplet.group not in held_out]
    test = [triplet for triplet in triplets if triplet.group in held_out]
    return train, test


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _join_roles(messages: Iterable[Message]) -> list[Message]:
    turns: list[Message] = []
    for message in messages:
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] += "\n" + message["content"]
        else:
            turns.append(dict(message))
    return turns


def _triplet(row: dict[str, Any], where: str) -> PreferenceTriplet:
    for field in ("chosen", "rejected"):
        if field not in row:
            raise ValueError(f"{where}: missing field {field!r}; the row has {sorted(row)}")
    chosen: list[Message] = messages_or_text(row["chosen"], where, "chosen")
    rejected: list[Message] = messages_or_text(row["rejected"], where, "rejected")
    prompt: Prompt
    if row.get("prompt") is not None:
        prompt = row["prompt"]
        if isinstance(prompt, str):
            check_text(prompt, where, "prompt")
            head = [{"role": "user", "content": prompt}]
        else:
            prompt = head = parse_messages(prompt, where, "prompt")
        if head[-1]["role"] == "assistant":
            raise ValueError(
                f"{where}: 'prompt' ends in an assistant message; expected a user message, since "
                "the replies answer it"
            )
    else:
        if not (isinstance(row["chosen"], list) and isinstance(row["rejected"], list)):
            raise ValueError(
                f"{where}: missing field 'prompt'; only transcripts (lists of messages in 'chosen' "
                "and 'rejected') carry their prompt with them"
            )
        n_common = 0
        for left, right in zip(chosen, rejected, strict=False):
            if left != right:
                break
            n_common += 1
        # Equal transcripts: leave the last message, so that it is the reply of both.
        prompt = head = chosen[: min(n_common, len(chosen) - 1)]
        if not head:
            raise ValueError(
                f"{where}: 'chosen' and 'rejected' have no common beginning to serve as the "
                "prompt; expected the same first messages, or a field 'prompt'"
            )
    replies = []
    for field, messages in (("chosen", chosen), ("rejected", rejected)):
        rest = messages[len(head) :] if messages[: len(head)] == head else messages
        if len(rest) != 1 or rest[0]["role"] != "assistant":
            roles = [message["role"] for message in rest]
            raise ValueError(
                f"{where}: {field!r} has the roles {roles} after the prompt; expected exactly one "
                "assistant message"
            )
        replies.append(rest[0]["content"])
    group = optional_name(row, ("conversation_id", "group", "id"), where)
    return PreferenceTriplet(prompt, replies[0], replies[1], group or "")


def _conversation(row: dict[str, Any], where: str) -> Conversation:
    if "messages" not in row:
        raise ValueError(f"{where}: missing field 'messages'; the row has {sorted(row)}")
    messages = tuple(parse_messages(row["messages"], where, "messages"))
    name = optional_name(row, ("id",), where)
    return Conversation(messages, name or "", optional_name(row, ("subject",), where))
