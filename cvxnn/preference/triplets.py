"""Preference triplets and conversations; duplicates among triplets; splits without leaks."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cvxnn.files.digests import digest
from cvxnn.preference.text_checks import check_is_text, check_prompt

Message = dict[str, str]
"""One turn of a conversation: ``{"role": ..., "content": ...}``."""

ROLES = ("system", "user", "assistant")
"""Roles that a message may have."""

Prompt = str | list[Message]
"""Plain text, or the messages of a conversation up to the reply."""


@dataclass(frozen=True)
class PreferenceTriplet:
    """A prompt with a preferred and a less preferred reply.

    Parameters
    ----------
    prompt : str or list of Message
        The text or the messages that the replies answer.
    chosen, rejected : str
        The preferred and the less preferred reply.
    group : str, optional
        Name of the conversation or of the question that the triplet comes from. `split_by_group`
        keeps all triplets of a group on one side. The default is a hash of the prompt, which is the
        same on every machine.

    Raises
    ------
    ValueError
        If a reply or a message is not text, or not valid Unicode; the message names it.

    Examples
    --------
    >>> PreferenceTriplet("What is 2 + 2?", "Four.", "Let us talk about the moon.").group
    'ebdf808d37e9525d'
    """

    prompt: Prompt
    chosen: str
    rejected: str
    group: str = ""

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        for name in ("chosen", "rejected", "group"):
            check_is_text(getattr(self, name), f"{name!r} of the triplet")
        if not self.group:
            object.__setattr__(self, "group", digest(self.prompt))


@dataclass(frozen=True)
class Conversation:
    """A conversation of several turns.

    Parameters
    ----------
    messages : tuple of Message
        The messages, oldest first.
    id : str, optional
        Name of the conversation; the default is a hash of its messages.
    subject : str or None, default=None
        Subject of the conversation, such as "chemistry".

    Raises
    ------
    ValueError
        If a message is not text, or not valid Unicode; the message names it.
    """

    messages: tuple[Message, ...]
    id: str = ""
    subject: str | None = None

    def __post_init__(self) -> None:
        check_prompt(list(self.messages), "the conversation")
        if not self.id:
            object.__setattr__(self, "id", digest(list(self.messages)))


@dataclass(frozen=True)
class DuplicateReport:
    """Counts of the triplets that `deduplicate` kept and left out; ``print`` describes them.

    Parameters
    ----------
    rows, kept : int
        Numbers of the triplets given and returned.
    duplicates : int
        Number of triplets left out because an equal one precedes them.
    indistinct : int
        Number of triplets left out because their replies differ in white space or encoding only.
    contradictions : tuple of (int, int)
        For each pair of replies that occurs in both orders, the positions in the input of the first
        triplet in one order and of the first triplet in the other.
    contradictory : int
        Number of triplets with such a pair, without duplicates.
    contradictions_kept : bool
        True if those triplets were returned.
    """

    rows: int
    kept: int
    duplicates: int
    indistinct: int
    contradictions: tuple[tuple[int, int], ...]
    contradictory: int
    contradictions_kept: bool

    def __str__(self) -> str:
        counts = {
            "duplicates": self.duplicates,
            "with replies that differ in white space only": self.indistinct,
            f"in {len(self.contradictions)} contradictions": self.contradictory
            * (not self.contradictions_kept),
        }
        left_out = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        text = f"{self.rows} triplets, {self.kept} kept; left out: {left_out or 'none'}"
        if self.contradictions_kept and self.contradictory:
            text += f"; kept {self.contradictory} in {len(self.contradictions)} contradictions"
        return text


def deduplicate(
    triplets: Sequence[PreferenceTriplet], contradictions: Literal["drop", "keep"] = "drop"
) -> tuple[list[PreferenceTriplet], DuplicateReport]:
    """Leave out repeated triplets, and pairs of replies that occur in both orders.

    Texts are compared exactly after two normalisations: Unicode's NFC (one code for each character)
    and one space for each run of white space. A prompt that is a text equals a single user message.
    Groups are not compared: of equal triplets the first is kept, with its group.

    Parameters
    ----------
    triplets : sequence of PreferenceTriplet
        Triplets in any order. Neither they nor their texts are changed.
    contradictions : {"drop", "keep"}, default="drop"
        Treatment of triplets whose replies also occur in the other order: judges disagreed, or one
        judge answered twice, and no reward can agree with both. ``"drop"`` leaves out both orders,
        ``"keep"`` keeps one triplet of each order.

    Returns
    -------
    kept : list of PreferenceTriplet
        Remaining triplets in the given order.
    report : DuplicateReport
        Numbers of triplets by the reason for which they were left out.

    Raises
    ------
    ValueError
        If `contradictions` is neither "drop" nor "keep".

    Examples
    --------
    >>> rows = [PreferenceTriplet("Hi", *pair) for pair in ("ab", "ab", "ba", "ac")]
    >>> kept, report = deduplicate(rows)
    >>> [(triplet.chosen, triplet.rejected) for triplet in kept], report.contradictions
    ([('a', 'c')], ((0, 2),))
    """
    if contradictions not in ("drop", "keep"):
        raise ValueError(f"contradictions is {contradictions!r}; expected 'drop' or 'keep'")
    first: dict[tuple[str, str, str], int] = {}
    indistinct = 0
    for i, triplet in enumerate(triplets):
        chosen, rejected = _normal(triplet.chosen), _normal(triplet.rejected)
        if chosen == rejected:
            indistinct += 1
        else:
            first.setdefault((prompt_key(triplet.prompt), chosen, rejected), i)
    in_both_orders = {
        (i, first[prompt, rejected, chosen])
        for (prompt, chosen, rejected), i in first.items()
        if (prompt, rejected, chosen) in first
    }
    contradictory = {i for i, _ in in_both_orders}
    kept = [
        triplets[i] for i in first.values() if contradictions == "keep" or i not in contradictory
    ]
    report = DuplicateReport(
        rows=len(triplets),
        kept=len(kept),
        duplicates=len(triplets) - indistinct - len(first),
        indistinct=indistinct,
        contradictions=tuple(sorted((i, j) for i, j in in_both_orders if i < j)),
        contradictory=len(contradictory),
        contradictions_kept=contradictions == "keep",
    )
    return kept, report


def split_by_group(
    triplets: Sequence[PreferenceTriplet],
    test_size: float = 0.25,
    random_state: int = 0,
    *,
    by: Literal["both", "group", "prompt"] = "both",
) -> tuple[list[PreferenceTriplet], list[PreferenceTriplet]]:
    """Split triplets so that no group and no prompt is on both sides.

    The split depends on the sets of groups and prompts only, not on the order or the number of
    their triplets.

    Parameters
    ----------
    triplets : sequence of PreferenceTriplet
        Triplets of at least two groups.
    test_size : float, default=0.25
        Fraction of the units, such as conversations, to hold out, above 0 and below 1; each side
        has at least one unit.
    random_state : int, default=0
        Seed of the shuffle.
    by : {"both", "group", "prompt"}, default="both"
        Definition of a unit, which is never divided. ``"group"``: triplets of the same group.
        ``"prompt"``: triplets with the same prompt, compared as in `deduplicate`. ``"both"``:
        triplets that are connected by a chain of equal groups and equal prompts, so that two
        conversations that begin with the same question are one unit, and neither the conversation
        nor the prompt leaks.

    Returns
    -------
    train, test : list of PreferenceTriplet
        The two sides, each in the given order.

    Raises
    ------
    ValueError
        If `test_size` or `by` is out of range, or if there are fewer than two units; the message
        says how to obtain more.
    """
    if not 0.0 < test_size < 1.0:
        raise ValueError(f"test_size is {test_size!r}; expected a fraction between 0 and 1")
    if by not in ("both", "group", "prompt"):
        raise ValueError(f"by is {by!r}; expected 'both', 'group' or 'prompt'")
    units = split_units(triplets, by)
    names = sorted(set(units))
    if len(names) < 2:
        groups = len({triplet.group for triplet in triplets})
        remedy = (
            f"equal prompts connect all {groups} groups; pass by='group' if equal prompts may be "
            "on both sides"
            if by == "both" and groups > 1
            else "give each conversation or question a group of its own; a group is never divided"
        )
        raise ValueError(f"cannot split {len(names)} group(s); expected two or more: {remedy}")
    order = np.random.default_rng(random_state).permutation(len(names))
    n_test = min(max(round(test_size * len(names)), 1), len(names) - 1)
    held_out = {names[i] for i in order[:n_test]}
    sides: tuple[list[PreferenceTriplet], list[PreferenceTriplet]] = ([], [])
    for triplet, unit in zip(triplets, units, strict=True):
        sides[unit in held_out].append(triplet)
    return sides


def as_messages(prompt: Prompt) -> list[Message]:
    """Return a prompt as a list of messages; a text becomes one user message.

    Parameters
    ----------
    prompt : str or list of Message
        The prompt; a list is returned as it is.

    Returns
    -------
    list of Message
        The messages, oldest first.

    Raises
    ------
    ValueError
        If it is neither a text nor a list of messages.
    """
    check_prompt(prompt)
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def as_text(prompt: Prompt) -> str:
    """Return a prompt as one text, in which each message follows its role.

    Parameters
    ----------
    prompt : str or list of Message
        The prompt; a text is returned as it is.

    Returns
    -------
    str
        For messages, paragraphs such as ``"User: Hello"``.

    Raises
    ------
    ValueError
        If it is neither a text nor a list of messages.
    """
    check_prompt(prompt)
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in prompt)


def prompt_key(prompt: Prompt) -> str:
    """Return a digest that two prompts share if `deduplicate` takes them for the same.

    Parameters
    ----------
    prompt : str or list of Message
        The prompt; a text equals a single user message.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    turns = [(turn["role"], _normal(turn["content"])) for turn in as_messages(prompt)]
    return digest(turns)


def split_units(triplets: Sequence[PreferenceTriplet], by: str = "both") -> list[str]:
    """Return the unit of each triplet, which `split_by_group` never divides.

    Parameters
    ----------
    triplets : sequence of PreferenceTriplet
        The triplets.
    by : {"both", "group", "prompt"}, default="both"
        As of `split_by_group`.

    Returns
    -------
    list of str
        A name for each triplet; those of one unit are equal.
    """
    if by == "group":
        return [triplet.group for triplet in triplets]
    prompts = [prompt_key(triplet.prompt) for triplet in triplets]
    if by == "prompt":
        return prompts
    # Union-find over groups, joined wherever they share a prompt. The smallest name is the root,
    # so that a unit's name does not depend on the order of the rows.
    parent = {triplet.group: triplet.group for triplet in triplets}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    owner: dict[str, str] = {}
    for triplet, prompt in zip(triplets, prompts, strict=True):
        low, high = sorted((root(triplet.group), root(owner.setdefault(prompt, triplet.group))))
        parent[high] = low
    return [root(triplet.group) for triplet in triplets]


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
