"""Preference data of TRL: plain, conversational, and with an implicit prompt."""

from __future__ import annotations

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


def _recognises(row: Row) -> bool:
    return "chosen" in row or "rejected" in row


def _parse(row: Row, where: str) -> Parsed:
    pair = required_fields(row, ("chosen", "rejected"), where)
    chosen = messages_or_text(pair[0], where, "chosen")
    rejected = messages_or_text(pair[1], where, "rejected")
    if row.get("prompt") is not None:
        prompt = row["prompt"]
        if isinstance(prompt, str):
            check_text(prompt, where, "prompt")
        else:
            prompt = parse_messages(prompt, where, "prompt")
        head = as_messages(prompt)
        if head[-1]["role"] == "assistant":
            raise ValueError(
                f"{where}: 'prompt' ends in an assistant message; expected a user message, since "
                "the replies answer it"
            )
    else:
        prompt = head = _common_beginning(pair, chosen, rejected, where)
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
    return stated_preference(
        prompt, replies[0], replies[1], optional_name(row, GROUP_FIELDS, where)
    )


def _common_beginning(
    pair: list[Any], chosen: list[Message], rejected: list[Message], where: str
) -> list[Message]:
    if not all(isinstance(value, list) for value in pair):
        raise ValueError(
            f"{where}: missing field 'prompt'; only transcripts (lists of messages in 'chosen' "
            "and 'rejected') contain their prompt"
        )
    n_common = 0
    for left, right in zip(chosen, rejected, strict=False):
        if left != right:
            break
        n_common += 1
    # Of equal transcripts the last message is the reply of both, not a part of the prompt.
    head = chosen[: min(n_common, len(chosen) - 1)]
    if not head:
        raise ValueError(
            f"{where}: 'chosen' and 'rejected' have no common beginning that could be the "
            "prompt; expected equal first messages, or a field 'prompt'"
        )
    return head


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
