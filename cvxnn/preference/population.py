"""Alternating Population Strategy: preference triplets from conversations only."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cvxnn._messages import counted
from cvxnn.preference.triplets import Conversation, Message, PreferenceTriplet


def alternating_population(conversations: Iterable[Conversation]) -> list[PreferenceTriplet]:
    """Extract preference triplets from conversations, without a judge or a second model.

    Each reply of the assistant is preferred to the reply that follows it. The prompt is the
    conversation up to and including a message of the user, ``chosen`` is the assistant's answer to
    it (message i), and ``rejected`` is the assistant's next answer (message i + 2), which was given
    to a later question. For the next triplet, the prompt is extended by that answer and the next
    message of the user (COALA, appendices E.2 and E.3).

    - Consecutive messages of one role are first joined by a newline.
    - System messages remain in the prompt. So does a message of the assistant before the first
      message of the user, which is not a reply because it answers nothing.
    - Two consecutive replies that are identical give no triplet.

    Parameters
    ----------
    conversations : iterable of Conversation
        Conversations; those with fewer than two replies give no triplets.

    Returns
    -------
    list of PreferenceTriplet
        Triplets in the order of the conversations; the group is the id of the conversation.

    See Also
    --------
    summarize_population : Counts the triplets, and the conversations that give none.

    Notes
    -----
    A conversation with A replies yields A - 1 triplets, because the last reply is preferred to no
    other. The paper says in one place that there are as many triplets as replies, but its worked
    example makes one triplet of two replies, and it counts 2-3 triplets in a conversation of 3-4
    turns.

    The paper writes the speaker's name ("agent2:") into the text of the user; here the role of the
    message names the speaker.

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
    """Counts of the triplets that conversations give; ``print`` describes them in words.

    Parameters
    ----------
    conversations : int
        Number of conversations.
    used : int
        Number of conversations that give at least one triplet.
    triplets : int
        Number of triplets.
    triplets_each : mapping of int to int
        Numbers of conversations by the number of their triplets, in ascending order.
    prompt_turns : mapping of int to int
        Numbers of triplets by the number of messages in their prompt, in ascending order.
    chosen_length, rejected_length : float
        Mean lengths of the replies, in characters; NaN without triplets.
    dropped : mapping of str to int
        Numbers of conversations and replies that give no triplet, by reason. The last reply of each
        conversation is not counted.
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
            f"{counted(self.triplets, 'triplet')} from {self.used} of "
            f"{counted(self.conversations, 'conversation')}",
            f"triplets per conversation   {_distribution(self.triplets_each)}",
            f"turns per prompt            {_distribution(self.prompt_turns)}",
            f"mean length of replies      {self.chosen_length:.0f} characters chosen, "
            f"{self.rejected_length:.0f} rejected",
        ]
        reasons = ", ".join(f"{reason}: {count}" for reason, count in self.dropped.items())
        return "\n".join([*lines, f"left out                    {reasons or 'nothing'}"])


def summarize_population(conversations: Iterable[Conversation]) -> PopulationSummary:
    """Count the triplets that `alternating_population` makes of conversations.

    Parameters
    ----------
    conversations : iterable of Conversation
        Conversations, as for `alternating_population`.

    Returns
    -------
    PopulationSummary
        Numbers of triplets and mean lengths of replies.
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
    """Return the triplets of a conversation, and the reasons for which messages gave none."""
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
    """Return mean and range in words, and the frequencies of up to eight values."""
    total = sum(counts.values())
    if not total:
        return "none"
    mean = sum(value * count for value, count in counts.items()) / total
    text = f"mean {mean:.1f}, {min(counts)} to {max(counts)}"
    if len(counts) > 8:
        return text
    return f"{text} ({', '.join(f'{value}: {count}' for value, count in counts.items())})"
