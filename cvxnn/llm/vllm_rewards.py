"""Rewards from a server of vLLM: an IO processor of its pooling runner, written to its interface.

``vllm serve MODEL --runner pooling --convert embed --io-processor-plugin cvxnn_rewards`` loads it
by the entry point of this package, and ``POST /pooling`` takes a prompt and its replies::

    {"model": MODEL, "data": {"prompt": "Why?", "responses": ["Because.", "No idea."]}}

vLLM runs the model; tokens, cuts and pooling are those of `Embedder`, and the head is the file that
``CVXNN_HEAD`` names. The answer's ``data`` has ``rewards``, one for each reply.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from cvxnn._extras import require
from cvxnn._progress import Progress
from cvxnn.features.description import Description, check_description
from cvxnn.llm.cutting import cut_pairs, longest_replies
from cvxnn.llm.embeddings import Embedder
from cvxnn.llm.loading import load_model
from cvxnn.llm.packing import Item
from cvxnn.llm.vllm_embedder import check_layer, embedder_of_tokens
from cvxnn.preference.triplets import Prompt
from cvxnn.serving import load_reward_head

HEAD = "CVXNN_HEAD"
"""Environment variable: the file of the head."""

_TASK = "token_embed"


class RankRequest(NamedTuple):
    """A prompt and its replies.

    Attributes
    ----------
    prompt : str or list of Message
        What is replied to.
    responses : list of str
        The replies.
    """

    prompt: Prompt
    responses: list[str]


def processor() -> str:
    """Return the name by which vLLM finds the processor; the entry point is this function."""
    interface: Any = require("vllm.plugins.io_processors.interface", extra="vllm")
    interface.IOProcessor.register(RewardProcessor)  # an abstract base class
    return f"{__name__}.RewardProcessor"


class RewardProcessor:
    """IO processor that turns a prompt and its replies into rewards.

    It has the methods of vLLM's ``IOProcessor``, and imports without vLLM.

    Parameters
    ----------
    vllm_config : vllm.config.VllmConfig
        Settings of the server; ``model_config.model`` names the model.
    renderer : object
        The server's renderer, which is not needed.

    Raises
    ------
    RuntimeError
        If ``CVXNN_HEAD`` names no head; set it before the server starts.
    ValueError
        If the head belongs to another model, or to another layer than the last.
    """

    def __init__(self, vllm_config: Any, renderer: Any) -> None:
        self.vllm_config = vllm_config
        path = os.environ.get(HEAD)
        if not path:
            raise RuntimeError(f"{HEAD} is not set; expected the file of a preference head")
        self.head = load_reward_head(path)
        if self.head.embedding is None:
            raise ValueError(
                f"{path} does not say which embeddings it was fitted to; fit the head with "
                "embedding=embedder.description, as cvxnn fit does"
            )
        lm = load_model(vllm_config.model_config.model)
        check_description(self.head.embedding)
        self.embedder = Embedder.from_description(lm, cast("Description", self.head.embedding))
        check_layer(self.embedder)
        # What post_process has to know of a request; those without a name are answered in turn.
        self._items: dict[str | None, deque[list[Item]]] = defaultdict(deque)

    def parse_data(self, data: object) -> RankRequest:
        """Check a request.

        Parameters
        ----------
        data : object
            ``data`` of the request.

        Returns
        -------
        RankRequest
            Its prompt and replies.

        Raises
        ------
        ValueError
            If it is not an object with a prompt and a list of texts; the message shows the form.
        """
        known = data if isinstance(data, Mapping) else {}
        prompt, responses = known.get("prompt"), known.get("responses")
        texts = isinstance(responses, list) and all(isinstance(text, str) for text in responses)
        if not isinstance(prompt, str | list) or not texts or not responses:
            raise ValueError(
                'expected {"prompt": TEXT OR MESSAGES, "responses": [TEXT, ...]} with at least one '
                "response"
            )
        return RankRequest(prompt, list(responses))

    def merge_sampling_params(self, params: Any = None) -> Any:
        """Return settings of sampling, of which there is none here.

        Parameters
        ----------
        params : vllm.SamplingParams, optional
            What the request asks for.
        """
        return params or require("vllm", extra="vllm").SamplingParams()

    def merge_pooling_params(self, params: Any = None) -> Any:
        """Return what vLLM is asked for: the hidden states of all tokens, as they are.

        Parameters
        ----------
        params : vllm.PoolingParams, optional
            What the request asks for.
        """
        return params or require("vllm", extra="vllm").PoolingParams(task=_TASK)

    def pre_process(
        self, prompt: RankRequest, request_id: str | None = None, **kwargs: object
    ) -> list[dict[str, list[int]]]:
        """Return the tokens of the prompt with each reply.

        Parameters
        ----------
        prompt : RankRequest
            What `parse_data` returned.
        request_id : str, optional
            Name of the request.
        **kwargs : object
            What else vLLM passes; it has no effect.

        Returns
        -------
        list of dict
            ``prompt_token_ids`` of each reply.
        """
        prompts = [prompt.prompt] * len(prompt.responses)
        lm, limit = self.embedder.lm, self.embedder.limit
        reserved = longest_replies(lm, prompts, prompt.responses)
        items, _ = cut_pairs(lm, prompts, prompt.responses, limit, reserved)
        self._items[request_id].append(items)
        return [{"prompt_token_ids": item.tokens.tolist()} for item in items]

    async def pre_process_async(
        self, prompt: RankRequest, request_id: str | None = None, **kwargs: object
    ) -> list[dict[str, list[int]]]:
        """Return what `pre_process` does.

        Parameters
        ----------
        prompt : RankRequest
            What `parse_data` returned.
        request_id : str, optional
            Name of the request.
        **kwargs : object
            What else vLLM passes; it has no effect.
        """
        return self.pre_process(prompt, request_id)

    async def post_process_async(
        self,
        model_output: AsyncIterator[tuple[int, Any]],
        request_id: str | None = None,
        **kwargs: object,
    ) -> dict[str, list[float]]:
        """Return what `post_process` does, of outputs that come in any order.

        Parameters
        ----------
        model_output : async iterator of (int, vllm.PoolingRequestOutput)
            Number of each reply, and the hidden states of its tokens.
        request_id : str, optional
            Name of the request.
        **kwargs : object
            What else vLLM passes; it has no effect.
        """
        found = [pair async for pair in model_output]
        ordered = [output for _, output in sorted(found, key=lambda pair: pair[0])]
        return self.post_process(ordered, request_id)

    def post_process(
        self, model_output: Sequence[Any], request_id: str | None = None, **kwargs: object
    ) -> dict[str, list[float]]:
        """Return the rewards.

        Parameters
        ----------
        model_output : sequence of vllm.PoolingRequestOutput
            Hidden states of the tokens of each reply with its prompt, in the order of the replies.
        request_id : str, optional
            Name of the request.
        **kwargs : object
            What else vLLM passes; it has no effect.

        Returns
        -------
        dict
            ``rewards``, one for each reply.
        """
        waiting = self._items[request_id]
        items = waiting.popleft()
        if not waiting:
            del self._items[request_id]
        states = {item.key: out for item, out in zip(items, model_output, strict=True)}
        given = _KnownStates({item.tokens.tobytes(): states[item.key] for item in items})
        run = embedder_of_tokens(self.embedder, given)
        X = run.embed(items, Progress("embedding", len(items), "replies", show=False))
        return {"rewards": np.asarray(self.head.reward(X), float).tolist()}


class _KnownStates:
    """Engine that has run already."""

    def __init__(self, outputs: dict[bytes, Any]) -> None:
        self._outputs = outputs

    def encode(
        self, prompts: list[dict[str, list[int]]], *, pooling_task: str, use_tqdm: bool
    ) -> list[Any]:
        """Return what there is of each prompt."""
        tokens = (np.asarray(prompt["prompt_token_ids"], np.int64) for prompt in prompts)
        return [self._outputs[each.tobytes()] for each in tokens]
