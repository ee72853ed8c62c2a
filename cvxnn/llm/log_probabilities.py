"""Log-probabilities of replies under a language model: ``log pi(y | x)``, summed over tokens."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from cvxnn.llm.batches import batches, may_share, model_inputs, prefix_trees, trees_are_exact
from cvxnn.llm.cache import EmbeddingCache, cache_key
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item, Pack
from cvxnn.preference.triplets import Prompt

_CHUNK = 1 << 24  # logits held at a time


class ResponseLogProbabilities(NamedTuple):
    """Log-probabilities of replies, with the number of tokens that they are summed over.

    Attributes
    ----------
    log_probabilities : ndarray of shape (n,), float64
        Natural logarithms, with the precision of float32.
    lengths : ndarray of shape (n,), int64
        Number of tokens of each reply.
    """

    log_probabilities: np.ndarray
    lengths: np.ndarray


def response_log_probabilities(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    max_length: int = 1024,
    end_of_turn: bool = True,
    batch_tokens: int = 2048,
    share_prefixes: bool = True,
    cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> ResponseLogProbabilities:
    """Return the log-probability of each reply given its prompt, as a natural logarithm.

    Texts become tokens as in `Embedder`. Only the tokens of the reply count, each given the prompt
    and the tokens before it. Equal pairs are computed once, and so are common beginnings.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    prompts : sequence of (str or list of Message), length n
        What is replied to.
    responses : sequence of str, length n
        The replies.
    max_length : int, default=1024
        Largest number of tokens of prompt and reply together, capped by the context length of the
        model. If a pair is longer, the oldest tokens of the prompt are dropped; if the reply alone
        is longer, its end is dropped. A warning says how many pairs were cut.
    end_of_turn : bool, default=True
        Whether the token that ends the reply counts (``eos_token``, if the tokenizer has one). With
        it, the result is the probability of saying this *and then stopping*, which a model has to
        learn; without it, of all replies that begin like this. A reply that was cut gets none.
    batch_tokens : int, default=2048
        Largest number of tokens in one call of the model, padding included.
    share_prefixes : bool, default=True
        Whether to compute common beginnings once, where the model gives the same either way.
    cache : EmbeddingCache or path-like, optional
        Where log-probabilities are looked up before they are computed, and kept batch by batch.
        The key is made of the weights of the model and the tokens.
    progress : bool, default=False
        Whether to show a progress bar on stderr.

    Returns
    -------
    ResponseLogProbabilities
        ``log_probabilities`` and ``lengths``, each an array of shape (n,).

    Raises
    ------
    ValueError
        If there is no pair, the numbers of prompts and responses differ, a reply is empty, the
        model is in training mode or a result is not finite.

    Examples
    --------
    >>> from cvxnn.llm import load_model, response_log_probabilities
    >>> response_log_probabilities(load_model(), ["2 + 2?"] * 2, ["4", "5"])    # doctest: +SKIP
    """
    if lm.model.training:
        raise ValueError("the model is in training mode (dropout is on); call model.eval() first")
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens is {batch_tokens}; expected at least 1")
    items = encode_pairs(lm, prompts, responses, max_length=max_length, end_of_turn=end_of_turn)
    values, _ = score_items(
        lm,
        items,
        batch_tokens=batch_tokens,
        share_prefixes=share_prefixes,
        cache=cache,
        progress=progress,
    )
    lengths = np.array([len(item.tokens) - item.start for item in items], dtype=np.int64)
    return ResponseLogProbabilities(values, lengths)


def encode_pairs(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    max_length: int = 1024,
    end_of_turn: bool = True,
) -> list[Item]:
    """Encode prompts and replies as tokens, within `max_length`.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : sequence of (str or list of Message), length n
        What is replied to.
    responses : sequence of str, length n
        The replies.
    max_length : int, default=1024
        Largest number of tokens of prompt and reply; see `response_log_probabilities`.
    end_of_turn : bool, default=True
        Whether the token that ends a reply is part of it.

    Returns
    -------
    list of Item
        Tokens of each pair; each prompt and each reply has at least one.

    Raises
    ------
    ValueError
        If there is no pair, the numbers of prompts and responses differ, or a text is empty.
    """
    if isinstance(prompts, str) or isinstance(responses, str):
        raise ValueError("prompts and responses are lists with one entry a pair, not strings")
    if len(prompts) != len(responses):
        raise ValueError(
            f"{len(prompts)} prompts but {len(responses)} responses; expected as many of each"
        )
    if not len(prompts):
        raise ValueError("there is no reply: expected at least one prompt and response")
    limit = min(max_length, lm.context_length or max_length)
    if limit < 2:
        raise ValueError(f"max_length is {max_length}; expected at least 2, a prompt and a reply")
    names = [prompt if isinstance(prompt, str) else json.dumps(prompt) for prompt in prompts]
    distinct = dict(zip(names, prompts, strict=True))
    encoded = dict(zip(distinct, lm.encode_prompts(list(distinct.values())), strict=True))
    end = lm.tokenizer.eos_token_id
    ending = [] if end is None or not end_of_turn else [end]
    begin = end if lm.tokenizer.bos_token_id is None else lm.tokenizer.bos_token_id
    rows: list[Item] = []
    n_prompts = n_responses = 0
    for name, response in zip(names, lm.encode_responses(responses), strict=True):
        reply = [*response, *ending][: limit - 1]
        prompt = encoded[name] or ([] if begin is None else [begin])
        if not prompt:
            raise ValueError(
                f"prompt {len(rows)} has no token ({name!r:.80}) and {lm.name} has none to begin "
                "with, so the first token of its reply follows nothing; write some prompt"
            )
        room = limit - len(reply)
        n_prompts += len(prompt) > room
        n_responses += len(response) + len(ending) > len(reply)
        kept = prompt[-room:]
        rows.append(Item(np.array(kept + reply, dtype=np.int64), len(kept)))
    if n_prompts or n_responses:
        warnings.warn(
            f"{n_prompts} of {len(rows)} pairs lost the beginning of the prompt and {n_responses} "
            f"the end of the response: they are longer than {limit} tokens. Increase max_length "
            f"(now {max_length}) if the model and the memory allow it",
            stacklevel=3,
        )
    return rows


class ResponseScorer:
    """Differentiable log-probabilities of replies, as a function of tokens.

    Logits are computed only where a token of a reply is predicted, a few at a time, together with
    the gradient of each result in the hidden state: memory never holds the logits of a whole batch.
    Where the output layer is not a frozen linear map of the hidden states (soft caps, scales, an
    adapter on it), the logits of the model itself are used, at all positions.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    share_prefixes : bool, default=True
        Whether to compute common beginnings once, where the model allows it.
    autocast : torch.dtype, optional
        Type to which ``torch.autocast`` casts the arithmetic; by default that of the weights.

    Attributes
    ----------
    tokens_computed : int
        Number of tokens run through the model so far, padding included.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        share_prefixes: bool = True,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.lm = lm
        self._autocast = autocast
        self._head = lm.model.get_output_embeddings()
        plain = type(self._head) is torch.nn.Linear
        # A soft cap hardly changes small logits, so that a few tokens may not show it.
        plain = plain and not getattr(lm.config, "final_logit_softcapping", None)
        with torch.no_grad():
            self._has_plain_head = plain and self._logits_are_of_head()
        self._shares = share_prefixes and trees_are_exact(lm)
        self.tokens_computed = 0

    def shares(self, longest: int) -> bool:
        """Return True if rows may be prefix trees.

        Parameters
        ----------
        longest : int
            Number of tokens of the longest sequence.

        Returns
        -------
        bool
            False if sharing is off, or the model does not allow it.
        """
        return self._shares and may_share(self.lm, longest)

    def __call__(self, items: Sequence[Item], batch: Sequence[Pack]) -> torch.Tensor:
        """Return the summed log-probabilities of the members of a batch, by one call of the model.

        Parameters
        ----------
        items : sequence of Item
            The items.
        batch : sequence of Pack
            Rows, which are prefix trees if they have several members; members are numbers of items.

        Returns
        -------
        Tensor of shape (n_members,), float32 (float64 if the model is)
            In the order of the members.
        """
        inputs, rows, columns, targets, counts = _predictions(self.lm, items, batch)
        self.tokens_computed += inputs["input_ids"].numel()
        # It is entered for each call, as it keeps casts of weights for as long as it lasts.
        with torch.autocast(self.lm.device.type, self._autocast, self._autocast is not None):
            head = self._head
            trained = torch.is_grad_enabled() and head.weight.requires_grad
            if self._has_plain_head and not trained:
                hidden = self.lm.decoder(**inputs, use_cache=False).last_hidden_state
                states = hidden[rows, columns]
                each = TokenLogProbabilities.apply(states, head.weight, head.bias, targets)
            else:
                logits = self.lm.model(**inputs, use_cache=False).logits[rows, columns]
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                each = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        return torch.stack([part.sum() for part in each.split(counts)])

    def sums(self, items: list[Item], batch_tokens: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """Compute log-probabilities of many items without gradients, batch by batch.

        Parameters
        ----------
        items : list of Item
            The items.
        batch_tokens : int
            Largest number of tokens in one call of the model, padding included.

        Yields
        ------
        members : list of int
            Numbers of items.
        sums : ndarray of shape (n_members,), float32
            Their log-probabilities.
        """
        for batch in self._plan(items, batch_tokens):
            with torch.no_grad():
                sums = self(items, batch).float().cpu().numpy()
            yield [i for pack in batch for i in pack.members], sums

    def _plan(self, items: list[Item], batch_tokens: int) -> list[list[Pack]]:
        """Return batches of rows of similar length, and of prefix trees where they pay."""
        longest = max(len(item.tokens) for item in items)
        packs = [Pack([i], len(item.tokens)) for i, item in enumerate(items)]
        if len(items) > 1 and self.shares(longest):
            packs = prefix_trees(self.lm, items, batch_tokens)
        return batches(packs, batch_tokens)

    def _logits_are_of_head(self) -> bool:
        """Return True if the logits of a few tokens are those of the output layer."""
        ids = torch.arange(3, 11, device=self.lm.device)[None] % self.lm.config.vocab_size
        logits = self.lm.model(input_ids=ids, use_cache=False).logits
        states = self.lm.decoder(input_ids=ids, use_cache=False).last_hidden_state
        return _agree(self._head(states), logits)


def _agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    tolerance = 3e-2 if one.dtype.itemsize == 2 or other.dtype.itemsize == 2 else 1e-3
    return bool((one - other).norm() <= tolerance * other.norm())


def score_items(
    lm: LanguageModel,
    items: Sequence[Item],
    *,
    batch_tokens: int = 2048,
    share_prefixes: bool = True,
    cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    progress: bool = False,
    autocast: torch.dtype | None = None,
) -> tuple[np.ndarray, int]:
    """Return the log-probabilities of items, looked up in a cache or computed.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    items : sequence of Item
        The items; equal ones are computed once.
    batch_tokens : int, default=2048
        Largest number of tokens in one call of the model, padding included.
    share_prefixes : bool, default=True
        Whether to compute common beginnings once, where the model allows it.
    cache : EmbeddingCache or path-like, optional
        Where log-probabilities are looked up first, and kept batch by batch.
    progress : bool, default=False
        Whether to show a progress bar on stderr.
    autocast : torch.dtype, optional
        Type to which the arithmetic is cast; by default that of the weights.

    Returns
    -------
    log_probabilities : ndarray of shape (n,), float64
        Log-probability of the reply of each item.
    n_tokens : int
        Number of tokens that were run through the model.

    Raises
    ------
    ValueError
        If a log-probability is not finite; load the model in another type.
    """
    distinct = {item.key: item for item in items}
    found: dict[bytes, float] = {}
    stored: dict[bytes, bytes] = {}
    n_tokens = 0
    with contextlib.ExitStack() as stack:
        if cache is not None:
            if not isinstance(cache, EmbeddingCache):
                cache = stack.enter_context(EmbeddingCache(cache))
            settings = ["log-probability", lm.fingerprint, str(autocast or lm.dtype)]
            stored = {key: cache_key(settings, key) for key in distinct}
            kept = cache.get(stored.values())
            found = {key: float(kept[name][0]) for key, name in stored.items() if name in kept}
        keys = [key for key in distinct if key not in found]
        if keys:
            bar = stack.enter_context(_bar(len(keys), progress))
            scorer = ResponseScorer(lm, share_prefixes=share_prefixes, autocast=autocast)
            for members, sums in scorer.sums([distinct[key] for key in keys], batch_tokens):
                if not np.isfinite(sums).all():
                    raise ValueError(
                        f"a log-probability in {lm.dtype} is not finite; load the model with "
                        "dtype='bfloat16' or 'float32'"
                    )
                new = {keys[i]: sums[k : k + 1] for k, i in enumerate(members)}
                if cache is not None:
                    cache.put({stored[key]: vector for key, vector in new.items()})
                found.update({key: float(vector[0]) for key, vector in new.items()})
                bar.update(len(members))
            n_tokens = scorer.tokens_computed
    return np.array([found[item.key] for item in items], dtype=np.float64), n_tokens


def _bar(n: int, progress: bool) -> Any:
    return tqdm(total=n, desc="log-probabilities", unit="reply", disable=not progress)


def _predictions(
    lm: LanguageModel, items: Sequence[Item], batch: Sequence[Pack]
) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
    """Return inputs, then rows and columns of predictions, their targets, and counts per member."""
    inputs, paths = model_inputs(lm, items, batch)
    members = [items[i] for pack in batch for i in pack.members]
    columns = [path[item.start - 1 : -1] for item, (_, path) in zip(members, paths, strict=True)]
    targets = [item.tokens[item.start :] for item in members]
    rows = [np.full(len(part), row) for part, (row, _) in zip(columns, paths, strict=True)]
    where = [torch.from_numpy(np.concatenate(x)).to(lm.device) for x in (rows, columns, targets)]
    return inputs, where[0], where[1], where[2], [len(part) for part in targets]


class TokenLogProbabilities(torch.autograd.Function):
    """Function ``log softmax(states @ weight.T + bias)`` at the targets, for a frozen output layer.

    As the output layer is frozen, the gradient ``weight[target] - softmax(logits) @ weight`` of
    each token is all that the backward pass needs. It is computed in the forward pass, in chunks,
    at the same cost, so that no logits are kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        """Compute the log-probabilities, and the gradients that `backward` needs.

        Parameters
        ----------
        ctx : torch.autograd.function.FunctionCtx
            Keeps the gradients.
        states : Tensor of shape (n, width)
            Hidden states.
        weight : Tensor of shape (vocabulary, width)
            Weights of the output layer.
        bias : Tensor of shape (vocabulary,) or None
            Biases of the output layer.
        targets : Tensor of shape (n,), int64
            Tokens whose log-probabilities are asked for.

        Returns
        -------
        Tensor of shape (n,), float32 (float64 if the model is)
            Log-probability of each target.
        """
        size = max(1, _CHUNK // len(weight))
        values, gradients = [], []
        for part, target in zip(states.split(size), targets.split(size), strict=True):
            logits = torch.nn.functional.linear(part, weight, bias)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            total = logits.logsumexp(-1, keepdim=True)
            values.append((logits.gather(-1, target[:, None]) - total)[:, 0])
            if ctx.needs_input_grad[0]:
                shares = logits.sub_(total).exp_().to(weight.dtype)
                gradients.append((weight[target] - shares @ weight).to(states.dtype))
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return the gradient in the hidden states.

        Parameters
        ----------
        ctx : torch.autograd.function.FunctionCtx
            Holds the gradients of the log-probabilities.
        gradient : Tensor of shape (n,)
            Gradient in the log-probabilities.

        Returns
        -------
        tuple of (Tensor of shape (n, width), None, None, None)
            Gradient in each argument of `forward`; the frozen ones have none.
        """
        [kept] = ctx.saved_tensors
        return kept * gradient[:, None].to(kept.dtype), None, None, None
