"""Transcripts of hh-rlhf, in which each turn begins with the name of its speaker."""

from __future__ import annotations

import re

from cvxnn.files.digests import digest
from cvxnn.preference.formats.format import GROUP_FIELDS, Format, Parsed, stated_preference
from cvxnn.preference.row_checks import Row, check_text, optional_name, required_fields
from cvxnn.preference.triplets import Message, PreferenceTriplet, as_messages

_NAMES = {"user": "Human", "assistant": "Assistant"}
_ROLES = {name: role for role, name in _NAMES.items()}
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def _recognises(row: Row) -> bool:
    if "chosen" not in row or "rejected" not in row:
        return False
    prompt = row.get("prompt")
    text, end = (row["chosen"], "") if prompt is None else (prompt, "\n\nAssistant:")
    return isinstance(text, str) and text.startswith("\n\nHuman:") and text.rstrip().endswith(end)


def _parse(row: Row, where: str) -> Parsed:
    chosen, rejected = required_fields(row, ("chosen", "rejected"), where)
    check_text(chosen, where, "chosen", blank=True)
    check_text(rejected, where, "rejected", blank=True)
    prompt = row.get("prompt")
    if prompt is not None:
        check_text(prompt, where, "prompt")
        head = _transcript(prompt)
        if not head or head.pop() != {"role": "assistant", "content": ""}:
            return "a prompt that does not end in '\\n\\nAssistant:'"
        replies = [text.removeprefix(prompt).strip() for text in (chosen, rejected)]
    else:
        left, right = _transcript(chosen), _transcript(rejected)
        if not left or not right:
            return "a text that is not a transcript"
        head, replies = left[:-1], [left[-1]["content"], right[-1]["content"]]
        if head != right[:-1] or {left[-1]["role"], right[-1]["role"]} != {"assistant"}:
            return "transcripts that differ before their last reply"
    if not head or head[-1]["role"] != "user" or not all(turn["content"] for turn in head):
        return "an empty turn"
    group = optional_name(row, GROUP_FIELDS, where) or digest(head[:1])
    return stated_preference(head, replies[0], replies[1], group)


def _transcript(text: str) -> list[Message]:
    """Return the turns of a transcript; none if the text does not begin with one."""
    before, *turns = _TURN.split(text)
    if before:
        return []
    return [
        {"role": _ROLES[name], "content": content.strip()}
        for name, content in zip(turns[::2], turns[1::2], strict=True)
    ]


def _write(triplet: PreferenceTriplet, where: str) -> Row:
    head = ""
    for turn in as_messages(triplet.prompt):
        if turn["role"] not in _NAMES:
            raise ValueError(
                f"{where}: 'hh-rlhf' cannot hold a {turn['role']} message; write "
                "format='conversational'"
            )
        head += f"\n\n{_NAMES[turn['role']]}: {turn['content']}"
    chosen, rejected = (
        f"{head}\n\nAssistant: {text}" for text in (triplet.chosen, triplet.rejected)
    )
    return {"chosen": chosen, "rejected": rejected}


HH_RLHF = Format(_recognises, _parse, _write)
