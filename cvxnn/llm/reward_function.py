"""Rewards for trainers that call a function with prompts and completions, such as those of TRL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvxnn.llm.decoding.scoring import RewardHead, check_embedder
from cvxnn.llm.embeddings import Embedder
from cvxnn.preference.text_checks import check_prompt
from cvxnn.preference.triplets import Message, Prompt, as_messages


class RewardFunction:
    """Function of prompts and completions that returns the rewards of a head.

    ``GRPOTrainer(reward_funcs=RewardFunction(head, embedder))`` of TRL trains with it. Texts and
    conversations are taken, as TRL passes them.

    Parameters
    ----------
    head : RewardHead
        Fitted head.
    embedder : Embedder
        Makes the embeddings that the head was fitted to, on a model of its own: not the one that
        is trained.

    Attributes
    ----------
    __name__ : str
        Name in the log of the trainer: ``"cvxnn_reward"``.

    Raises
    ------
    ValueError
        If the head says that it was fitted to other embeddings; make the embedder by
        ``Embedder.from_description(lm, head.embedding)``.
    """

    def __init__(self, head: RewardHead, embedder: Embedder) -> None:
        check_embedder(head, embedder)
        self.head = head
        self.embedder = embedder
        self.__name__ = "cvxnn_reward"

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str | list[Message]],
        **columns: object,
    ) -> list[float]:
        """Return the reward of each completion.

        Parameters
        ----------
        prompts : sequence of (str or list of Message), length n
            What is replied to; equal prompts are cut at one place, if they are too long.
        completions : sequence of (str or list of Message), length n
            Replies. Of a list of messages, the last one is scored and the others belong to its
            prompt.
        **columns : object
            What else the trainer passes; it has no effect.

        Returns
        -------
        list of float, length n
            The rewards. A completion without text has the lowest reward of the others: a reward
            left out would count as 0 in a sum, and be the best where all rewards are negative.

        Raises
        ------
        ValueError
            If a prompt or a completion is neither a text nor a list of messages.
        """
        asked, replies = [], []
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            if not isinstance(completion, str):
                turns = _with_text(completion, f"completion {i}")
                prompt = [*as_messages(prompt), *turns[:-1]]
                completion = turns[-1]["content"] if turns else ""
            asked.append(prompt)
            replies.append(completion)
        filled = [i for i, reply in enumerate(replies) if reply.strip()]
        rewards = np.zeros(len(replies))
        if filled:
            X = self.embedder.embed(
                [asked[i] for i in filled], [replies[i] for i in filled], common_cut=True
            )
            found = np.asarray(self.head.reward(X), float)
            rewards[:] = found.min()
            rewards[filled] = found
        values: list[float] = rewards.tolist()
        return values


def _with_text(turns: Any, name: str) -> list[Message]:
    """Return checked messages, of which the last may have no content, as calls of tools have."""
    if turns == []:
        return []
    last = turns[-1] if isinstance(turns, list) else None
    if isinstance(last, dict) and last.get("content", "") is None:
        turns = [*turns[:-1], {**last, "content": ""}]
    check_prompt(turns, name)
    return list(turns)
