"""UltraFeedback as published: several completions of an instruction, each with scores."""

from __future__ import annotations

from typing import Any

from cvxnn.preference.formats.format import GROUP_FIELDS, Format, Parsed, stated_preference
from cvxnn.preference.row_checks import (
    EmptyTextError,
    Row,
    check_text,
    optional_name,
    optional_number,
    required_fields,
)
from cvxnn.preference.text_checks import kind

_SCORES = ("overall_score", "fine-grained_score")


def _recognises(row: Row) -> bool:
    return "instruction" in row and "completions" in row


def _parse(row: Row, where: str) -> Parsed:
    prompt, completions = required_fields(row, ("instruction", "completions"), where)
    check_text(prompt, where, "instruction")
    if completions is None or completions == "":
        raise EmptyTextError(f"{where}: 'completions' is empty; expected a list")
    if not isinstance(completions, list):
        raise ValueError(f"{where}: 'completions' is {kind(completions)}; expected a list")
    scored = [_scored(value, where, f"completions[{i}]") for i, value in enumerate(completions)]
    # Replies are compared on one scale: the one on which more of them have a score.
    scale = max(_SCORES, key=lambda name: sum(scores[name] is not None for _, scores in scored))
    ranked = []
    for response, scores in scored:
        score = scores[scale]
        if response.strip() and score is not None:
            ranked.append((score, response))
    if len(ranked) < 2:
        return "fewer than two scored replies"
    best = max(ranked, key=lambda pair: pair[0])
    worst = min(ranked, key=lambda pair: pair[0])
    if best[0] == worst[0]:
        return "a tie"
    return stated_preference(prompt, best[1], worst[1], optional_name(row, GROUP_FIELDS, where))


def _scored(completion: Any, where: str, field: str) -> tuple[str, dict[str, float | None]]:
    if not isinstance(completion, dict):
        raise ValueError(f"{where}: {field!r} is {kind(completion)}; expected an object")
    [response] = required_fields(completion, ["response"], f"{where}: {field!r}")
    check_text(response, where, f"{field}.response", blank=True)
    if not any(name in completion for name in _SCORES):
        required_fields(completion, _SCORES[:1], f"{where}: {field!r}")
    scores = {
        name: optional_number(completion.get(name), where, f"{field}.{name}") for name in _SCORES
    }
    return response, scores


ULTRAFEEDBACK = Format(_recognises, _parse)
