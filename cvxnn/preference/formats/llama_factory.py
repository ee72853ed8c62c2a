"""Preference data of LLaMA-Factory, in its two layouts: Alpaca and ShareGPT."""

from __future__ import annotations

from typing import Any

from cvxnn.preference.formats.format import GROUP_FIELDS, Format, Parsed, stated_preference
from cvxnn.preference.row_checks import (
    EmptyTextError,
    Row,
    check_text,
    optional_name,
    required_fields,
)
from cvxnn.preference.text_checks import kind
from cvxnn.preference.triplets import Message

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def turns_of(value: Any, where: str, field: str) -> list[Message]:
    """Return the messages of a ShareGPT conversation: a list of turns ``from`` and ``value``.

    Parameters
    ----------
    value : object
        The conversation, as JSON holds it.
    where : str
        Place of the row, with which errors begin.
    field : str
        Name of the field that holds it.
    """
    if value is None or value == "" or value == []:
        raise EmptyTextError(f"{where}: {field!r} is empty; expected a list of turns")
    if not isinstance(value, list):
        raise ValueError(f"{where}: {field!r} is {kind(value)}; expected a list of turns")
    return [_turn(turn, where, f"{field}[{i}]") for i, turn in enumerate(value)]


def _turn(value: Any, where: str, field: str, *, blank: bool = False) -> Message:
    """Return the message of one turn, which may be blank if ``blank``."""
    if value is None:
        raise EmptyTextError(f"{where}: {field!r} is null; expected a turn")
    if not isinstance(value, dict) or not {"from", "value"} <= value.keys():
        raise ValueError(f"{where}: {field!r} is not a turn with 'from' and 'value'")
    if value["from"] not in _SPEAKERS:
        raise ValueError(
            f"{where}: {field!r} is from {value['from']!r}; expected one of {list(_SPEAKERS)}"
        )
    check_text(value["value"], where, f"{field}.value", blank=blank)
    return {"role": _SPEAKERS[value["from"]], "content": value["value"]}


def _recognises(row: Row) -> bool:
    return "chosen" in row and ("conversations" in row or "instruction" in row)


def _parse(row: Row, where: str) -> Parsed:
    pair = required_fields(row, ("chosen", "rejected"), where)
    messages: list[Message] = []
    if row.get("system"):
        check_text(row["system"], where, "system")
        messages.append({"role": "system", "content": row["system"]})
    if "conversations" in row:
        messages += turns_of(row["conversations"], where, "conversations")
        replies = [
            _turn(value, where, field, blank=True)["content"]
            for value, field in zip(pair, ("chosen", "rejected"), strict=True)
        ]
        if messages[-1]["role"] != "user":
            return "a prompt that does not end in a message of the user"
    else:
        for value, field in zip(pair, ("chosen", "rejected"), strict=True):
            check_text(value, where, field, blank=True)
        replies = pair
        messages += _history(row.get("history"), where)
        messages.append({"role": "user", "content": _instruction(row, where)})
    prompt = messages[0]["content"] if len(messages) == 1 else messages
    group = optional_name(row, GROUP_FIELDS, where)
    return stated_preference(prompt, replies[0], replies[1], group)


def _instruction(row: Row, where: str) -> str:
    """Return the instruction, and below it the input, if there is one."""
    parts = [row[name] for name in ("instruction", "input") if row.get(name)]
    for name in ("instruction", "input"):
        check_text(row.get(name) or "", where, name, blank=True)
    text = "\n".join(part for part in parts if part.strip())
    check_text(text, where, "instruction")
    return text


def _history(value: Any, where: str) -> list[Message]:
    """Return the messages of earlier rounds: a list of pairs, instruction and reply."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{where}: 'history' is {kind(value)}; expected a list of pairs")
    messages: list[Message] = []
    for i, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"{where}: 'history[{i}]' is not a pair of instruction and reply")
        for j, role in enumerate(("user", "assistant")):
            check_text(pair[j], where, f"history[{i}][{j}]")
            messages.append({"role": role, "content": pair[j]})
    return messages


LLAMA_FACTORY = Format(_recognises, _parse)
