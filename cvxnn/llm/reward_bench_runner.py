"""RewardBench's own runner takes a head: its registry of models, and the texts that it sends.

The runner writes each conversation by the chat template of a tokenizer, and gives the texts to a
pipeline. The tokenizer that is made here has a template that writes conversations as JSON, so that
the pipeline sees prompt and reply as they are, and embeds them as the head was fitted.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
from collections.abc import Sequence
from typing import Any

import torch

from cvxnn.llm.decoding.scoring import RewardHead
from cvxnn.llm.embeddings import Embedder
from cvxnn.llm.reward_function import RewardFunction
from cvxnn.preference.text_checks import check_prompt

_TEMPLATE = "{{ messages | tojson }}"


class BenchPipeline:
    """Pipeline of RewardBench that scores conversations by a head.

    Parameters
    ----------
    score : RewardFunction
        The head with its embedder.
    tokenizer : PreTrainedTokenizerBase
        The tokenizer of the runner, which sets its padding.

    Attributes
    ----------
    model : torch.nn.Module
        The language model, which the runner places.
    """

    def __init__(self, score: RewardFunction, tokenizer: Any) -> None:
        self.score = score
        self.model = score.embedder.lm.model
        self.tokenizer = tokenizer

    def __call__(self, samples: Sequence[str], **settings: object) -> torch.Tensor:
        """Return the rewards of conversations.

        Parameters
        ----------
        samples : sequence of str, length n
            Conversations as JSON, the last message of each is the reply. One prompt of the user
            is taken as a text, as pairs have it.
        **settings : object
            Batches and lengths of the runner; those of the embedder hold.

        Returns
        -------
        Tensor of shape (n,), float32
            The rewards.

        Raises
        ------
        ValueError
            If a sample is no such text: give the runner the tokenizer that was written for it.
        """
        prompts: list[Any] = []
        replies: list[str] = []
        for sample in samples:
            try:
                messages = json.loads(sample)
                check_prompt(messages, "the conversation")
                *before, reply = messages
                replies.append(reply["content"])
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"expected a conversation as JSON, got {sample[:60]!r}; pass the folder that "
                    "register_reward_bench wrote as the tokenizer of the runner"
                ) from error
            alone = len(before) == 1 and before[0]["role"] == "user"
            prompts.append(before[0]["content"] if alone else before)
        return torch.tensor(self.score(prompts, replies), dtype=torch.float32)


def register_reward_bench(
    head: RewardHead, embedder: Embedder, folder: str | os.PathLike[str], *, name: str = "cvxnn"
) -> str:
    """Register a head with RewardBench, and write the tokenizer that its runner has to use.

    Parameters
    ----------
    head : RewardHead
        Fitted head.
    embedder : Embedder
        Makes the embeddings that the head was fitted to.
    folder : path-like
        Folder to write the tokenizer to: the runner's ``tokenizer``.
    name : str, default="cvxnn"
        The runner's ``model``.

    Returns
    -------
    str
        The name.

    Raises
    ------
    ImportError
        If RewardBench is missing, or cannot be imported: up to 0.1.4, models of its own need
        transformers 4.51. The guide says how to leave these out.

    Examples
    --------
    >>> from rewardbench.rewardbench import Args, rewardbench                   # doctest: +SKIP
    >>> register_reward_bench(head, embedder, "bench")                          # doctest: +SKIP
    >>> rewardbench(Args(model="cvxnn", tokenizer="bench"))                     # doctest: +SKIP
    """
    try:
        registry = importlib.import_module("rewardbench").REWARD_MODEL_CONFIG
    except ImportError as error:
        missing = error.name == "rewardbench"
        raise ImportError(
            "RewardBench is missing; install it with: pip install --no-deps rewardbench"
            if missing
            else f"RewardBench cannot be imported ({error}); up to 0.1.4, models of its own need "
            "transformers 4.51: leave them out as the guide says (Evaluation, In RewardBench's own "
            "runner)",
            name=error.name,
        ) from error
    tokenizer = copy.deepcopy(embedder.lm.tokenizer)
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(os.fspath(folder))
    score = RewardFunction(head, embedder)
    registry[name] = {
        "model_builder": lambda *_, **__: embedder.lm.model,
        "pipeline_builder": lambda _, model, tokenizer: BenchPipeline(score, tokenizer),
        "quantized": False,
        "custom_dialogue": False,
        "model_type": "Custom",
    }
    return name
