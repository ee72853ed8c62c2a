"""Preference data of TRL: plain, conversational, and with an implicit prompt."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from cvxnn.preference.formats.format import GROUP_FIELDS, Format, Parsed, stated_preference
from cvxnn.preference.row_checks import (
    Row,
    check_text,
    messages_or_text,
    optional_name,
    parse_messages,
    required_fields,
)
from cvxnn.preference.triplets import Message, PreferenceTriplet, as_messages

_NO_PROMPT = "no common beginning that could be the prompt"
_NO_REPLY = "a reply that is not one assistant message"
_PART_EARLY = "transcripts that differ before their last reply"
_PROMPT_NAMES = ("question", "instruction", "input", "query")


def _recognises(row: Row) -> bool:
    return "chosen" in row or "rejected" in row


def _parse(row: Row, where: str) -> Parsed:
    pair = required_fields(row, ("chosen", "rejected"), where)
    chosen = messages_or_text(pair[0], where, "chosen")
    rejected = messages_or_text(pair[1], where, "rejected")
    group = optional_name(row, GROUP_FIELDS, where)
    prompt = row.get("prompt")
    if prompt is not None:
        if isinstance(prompt, str):
            check_text(prompt, where, "prompt")
        else:
            prompt = parse_messages(prompt, where, "prompt")
        head = as_messages(prompt)
        if head[-1]["role"] == "assistant":
            return "a prompt that ends in an assistant message"
    else:
        named = [name for name in _PROMPT_NAMES if row.get(name) is not None]
        if named:
            raise ValueError(
                f"{where}: missing field 'prompt'; if {named[0]!r} is the prompt, pass "
                f"fields={{'prompt': {named[0]!r}}} (--fields prompt={named[0]})"
            )
        if isinstance(pair[0], str) and isinstance(pair[1], str):
            start = _common_text(*pair)
            text = pair[0][:start].rstrip()
            won, lost = (reply[start:].lstrip() for reply in pair)
            return stated_preference(text, won, lost, group) if text else _NO_PROMPT
        prompt = head = _common_beginning(chosen, rejected)
        if not head:
            return _NO_PROMPT
    replies = []
    for messages in (chosen, rejected):
        rest = messages[len(head) :] if messages[: len(head)] == head else messages
        if len(rest) != 1 or rest[0]["role"] != "assistant":
            return _PART_EARLY if row.get("prompt") is None else _NO_REPLY
        replies.append(rest[0]["content"])
    return stated_preference(prompt, replies[0], replies[1], group)


def _common_beginning(chosen: list[Message], rejected: list[Message]) -> list[Message]:
    """Return the messages that two transcripts have in common, without a reply of both."""
    head = chosen[: _n_common(chosen, rejected)]
    return head[:-1] if head and head[-1]["role"] == "assistant" else head


def _common_text(chosen: str, rejected: str) -> int:
    """Return the length of the beginning that two texts have in common, in whole words."""
    n_common = _n_common(chosen, rejected)
    while n_common and chosen[n_common - 1].isalnum():
        if not any(text[n_common : n_common + 1].isalnum() for text in (chosen, rejected)):
            break
        n_common -= 1
    return n_common


def _n_common(left: Sequence[Any], right: Sequence[Any]) -> int:
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _write_standard(triplet: PreferenceTriplet, where: str) -> Row:
    if not isinstance(triplet.prompt, str):
        raise ValueError(
            f"{where}: the prompt is a list of messages, but 'standard' holds text only; write "
            "format='conversational'"
        )
    return {"prompt": triplet.prompt, "chosen": triplet.chosen, "rejected": triplet.rejected}


def _write_conversational(triplet: PreferenceTriplet, where: str) -> Row:
    chosen, rejected = (
        [{"role": "assistant", "content": text}] for text in (triplet.chosen, triplet.rejected)
    )
    return {"prompt": as_messages(triplet.prompt), "chosen": chosen, "rejected": rejected}


STANDARD = Format(_recognises, _parse, _write_standard)
CONVERSATIONAL = Format(_recognises, _parse, _write_conversational)
