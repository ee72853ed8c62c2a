"""The Alternating Population Strategy: preference triplets from conversations alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cvxnn.preference.triplets import Conversation, Message, PreferenceTriplet

__all__ = ["PopulationSummary", "alternating_population", "summarize_population"]


def alternating_population(conversations: Iterable[Conversation]) -> list[PreferenceTriplet]:
    """Extract preference triplets from conversations, without a judge or a second model.

    Each reply of the assistant is preferred to the reply that follows it: the prompt is the
    conversation up to and including a user turn, ``chosen`` the assistant's answer to it (message
    i), and ``rejected`` the assistant's next answer (message i + 2), which was given to a later
    question. Then the prompt grows by that answer and the next user turn, and so on (COALA,
    appendices E.2 and E.3).

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

    See Also
    --------
    summarize_population : What comes of which conversations, counted.

    Notes
    -----
    A conversation with A replies yields A - 1 triplets. The paper says in one place that there are
    as many triplets as replies, but its worked example makes one triplet of two replies, it counts
    2-3 triplets in a conversation of 3-4 turns, and the last reply has no later one to be preferred
    to. So A - 1 is what its procedure gives, and what is done here.

    The paper writes the speaker's name ("agent2:") into the user's text; here the role says it.

    Examples
    --------
    >>> turns = ["Why is the sky blue?", "Blue light scatters most.", "And red?", "It passes."]
    >>> roles = ["user", "assistant"] * 2
    >>> messages = tuple({"role": r, "content": c} for r, c in zip(roles, turns))
    >>> [triplet] = alternating_population([Conversation(messages, id="sky")])
    >>> triplet.prompt[-1]["content"], triplet.chosen, triplet.rejected
    ('Why is the sky blue?', 'Blue light scatters most.', 'It passes.')
    """
    return [triplet for each in conversations for triplet in _extract(each)[0]]


@dataclass(frozen=True)
class PopulationSummary:
    """What `alternating_population` makes of conversations; ``print(summary)`` says it in words.

    Parameters
    ----------
    conversations, used, triplets : int
        Conversations given, conversations with at least one triplet, and triplets.
    triplets_each : mapping of int to int
        Number of conversations by how many triplets they give, in ascending order.
    prompt_turns : mapping of int to int
        Number of triplets by how many turns their prompt has, in ascending order.
    chosen_length, rejected_length : float
        Mean length of the replies, in characters; NaN if there is no triplet.
    dropped : mapping of str to int
        Conversations and replies that give nothing, by reason. The last reply of each conversation
        is not among them.
    """

    conversations: int
    used: int
    triplets: int
    triplets_each: Mapping[int, int]
    prompt_turns: Mapping[int, int]
    chosen_length: float
    rejected_length: float
    dropped: Mapping[str, int]

    def __str__(self) -> str:
        lines = [
            f"{self.triplets} triplets from {self.used} of {self.conversations} conversations",
            f"triplets per conversation   {_distribution(self.triplets_each)}",
            f"turns per prompt            {_distribution(self.prompt_turns)}",
            f"mean length of replies      {self.chosen_length:.0f} characters chosen, "
            f"{self.rejected_length:.0f} rejected",
        ]
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        return "\n".join([*lines, f"left out                    {reasons or 'nothing'}"])


def summarize_population(conversations: Iterable[Conversation]) -> PopulationSummary:
    """Count what `alternating_population` makes of the same conversations.

    Parameters
    ----------
    conversations : iterable of Conversation
        As for `alternating_population`.

    Returns
    -------
    PopulationSummary
        Counts and mean lengths.
    """
    each: Counter[int] = Counter()
    dropped: Counter[str] = Counter()
    triplets: list[PreferenceTriplet] = []
    for conversation in conversations:
        made, reasons = _extract(conversation)
        each[len(made)] += 1
        dropped += reasons
        triplets += made
    n = len(triplets)
    chosen = sum(len(triplet.chosen) for triplet in triplets)
    rejected = sum(len(triplet.rejected) for triplet in triplets)
    return PopulationSummary(
        conversations=each.total(),
        used=each.total() - each[0],
        triplets=n,
        triplets_each=dict(sorted(each.items())),
        prompt_turns=dict(sorted(Counter(len(triplet.prompt) for triplet in triplets).items())),
        chosen_length=chosen / n if n else float("nan"),
        rejected_length=rejected / n if n else float("nan"),
        dropped=dict(dropped.most_common()),
    )


def _extract(conversation: Conversation) -> tuple[list[PreferenceTriplet], Counter[str]]:
    """Triplets of a conversation, and what gave none."""
    turns = _join_roles(conversation.messages)
    replies = [
        i
        for i in range(1, len(turns))
        if turns[i]["role"] == "assistant" and turns[i - 1]["role"] == "user"
    ]
    answers = sum(turn["role"] == "assistant" for turn in turns)
    dropped = Counter({"assistant messages that follow no user turn": answers - len(replies)})
    if not replies:
        dropped["conversations without a reply"] += 1
    elif len(replies) == 1:
        dropped["conversations with one reply"] += 1
    triplets = []
    for this, following in itertools.pairwise(replies):
        chosen, rejected = turns[this]["content"], turns[following]["content"]
        if chosen == rejected:
            dropped["replies identical to the next one"] += 1
        else:
            prompt = [dict(turn) for turn in turns[:this]]
            triplets.append(PreferenceTriplet(prompt, chosen, rejected, conversation.id))
    return triplets, dropped


def _join_roles(messages: Iterable[Message]) -> list[Message]:
    turns: list[Message] = []
    for message in messages:
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] += "\n" + message["content"]
        else:
            turns.append(dict(message))
    return turns


def _distribution(counts: Mapping[int, int]) -> str:
    """Mean and range, and how often each value occurs unless there are many."""
    total = sum(counts.values())
    if not total:
        return "none"
    mean = sum(value * count for value, count in counts.items()) / total
    text = f"mean {mean:.1f}, {min(counts)} to {max(counts)}"
    if len(counts) > 8:
        return text
    return f"{text} ({', '.join(f'{value}: {count}' for value, count in counts.items())})"
