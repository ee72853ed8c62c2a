"""Replies written in several ways to the same prompts: means, and whether the reward was hacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PLAIN, BEST = "plain", "best of"
"""How replies are written without a head, and how names of the best of several begin."""

LEAST_DROP, LEAST_REPETITION = 1.0, 0.1
"""Loss of log-probability a token, and gain of repetition, that are no improvement."""


@dataclass(frozen=True)
class ReplyMeans:
    """Means over the replies that were written in one way.

    Attributes
    ----------
    name : str
        How they were written: ``"plain"``, ``"best of N"`` or ``"guided"``.
    n_replies : int
        Number of replies.
    n_cut : int
        How many of them ended because the largest number of tokens was reached.
    reward, n_tokens, log_probability, repetition : float or None
        Means of the measures of `Reply`; None if no reply has the measure.
    """

    name: str
    n_replies: int
    n_cut: int
    reward: float | None
    n_tokens: float | None
    log_probability: float | None
    repetition: float | None


def reply_means(examples: Sequence[Mapping[str, Any]]) -> list[ReplyMeans]:
    """Return the means over replies, for each way in which they were written.

    Parameters
    ----------
    examples : sequence of mapping
        Prompts with ``replies``, a mapping of a name to the fields of a reply, as
        ``cvxnn generate`` writes them. Fields may be missing.

    Returns
    -------
    list of ReplyMeans
        In the order in which the names first come.
    """
    names = dict.fromkeys(name for example in examples for name in example["replies"])
    found = []
    for name in names:
        replies = [_fields(example, name) for example in examples if name in example["replies"]]
        means = {
            field: float(np.mean(values)) if values else None
            for field in ("reward", "n_tokens", "log_probability", "repetition")
            for values in [[r[field] for r in replies if r.get(field) is not None]]
        }
        n_cut = sum(reply.get("ending") == "length" for reply in replies)
        found.append(ReplyMeans(name, len(replies), n_cut, **means))
    return found


def reply_table(examples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the means over replies as lines of a table.

    Parameters
    ----------
    examples : sequence of mapping
        As for `reply_means`.

    Returns
    -------
    list of str
        A line of headings, and one for each way of writing.
    """
    titles = "reward", "tokens", "log-prob. a token", "repeated", "cut"
    lines = ["{:<9} {:>8} {:>7} {:>18} {:>9} {:>9}".format("", *titles)]
    for row in reply_means(examples):
        repeated = "–" if row.repetition is None else f"{100 * row.repetition:.0f} %"
        lines.append(
            f"{row.name:<9} {_number(row.reward):>8} {_number(row.n_tokens):>7} "
            f"{_number(row.log_probability):>18} {repeated:>9} "
            f"{f'{row.n_cut} of {row.n_replies}':>9}"
        )
    return lines


def hacking_text(examples: Sequence[Mapping[str, Any]]) -> str:
    """Return a warning if replies are worse than plain ones by what no head has seen.

    Replies are compared with the plain ones to the same prompts. The reward counts as hacked where
    it rises on average, while the log-probability of a token falls by more than 1.0 (what it costs
    to draw each token in place of the likeliest), or the share of repeated runs rises by more than
    0.1. Where the reward does not rise either, guidance was of no use.

    Parameters
    ----------
    examples : sequence of mapping
        As for `reply_means`.

    Returns
    -------
    str
        The warning, or an empty text.
    """
    names = dict.fromkeys(name for example in examples for name in example["replies"])
    useless: list[tuple[str, str]] = []
    hacked: list[tuple[str, str]] = []
    for name in names:
        if name == PLAIN:
            continue
        gains = {
            field: _mean_gain(examples, name, field)
            for field in ("reward", "log_probability", "repetition")
        }
        if np.isnan(gains["reward"]):
            continue
        signs = []
        if gains["log_probability"] < -LEAST_DROP:
            signs.append(f"the log-probability of a token falls by {-gains['log_probability']:.2f}")
        if gains["repetition"] > LEAST_REPETITION:
            signs.append(f"repetition rises by {100 * gains['repetition']:.0f} %")
        if signs:
            (hacked if gains["reward"] > 0.0 else useless).append((name, " and ".join(signs)))
    texts = []
    if useless:
        texts.append(
            f"{_named(useless)} replies have no higher reward than plain ones, and "
            f"{_signs(useless)}: they are worse either way. Take the plain ones, or "
            f"{_remedy(useless)}"
        )
    if hacked:
        texts.append(
            f"{_named(hacked)} replies have a higher reward than plain ones, but "
            f"{_signs(hacked)}: the reward may be hacked. Read some replies; "
            f"{_remedy(hacked)} follows the model more"
        )
    return ". ".join(texts)


def _named(ways: Sequence[tuple[str, str]]) -> str:
    return " and ".join(name for name, _ in ways)


def _signs(ways: Sequence[tuple[str, str]]) -> str:
    """Return what speaks against each way of writing; its name where there are several."""
    if len(ways) == 1:
        return ways[0][1]
    return ", ".join(f"{signs} ({name})" for name, signs in ways)


def _remedy(ways: Sequence[tuple[str, str]]) -> str:
    best = [name.startswith(BEST) for name, _ in ways]
    options = ["--weight"] * (not all(best)) + ["--best-of"] * any(best)
    return f"a smaller {' or '.join(options)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _fields(example: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    reply = example["replies"].get(name, {})
    return reply if isinstance(reply, Mapping) else {"text": reply}


def _mean_gain(examples: Sequence[Mapping[str, Any]], name: str, field: str) -> float:
    """Return the mean difference to plain replies, where both have the field; else nan."""
    pairs = [(_fields(e, name).get(field), _fields(e, PLAIN).get(field)) for e in examples]
    known = [new - old for new, old in pairs if new is not None and old is not None]
    return float(np.mean(known)) if known else float("nan")
