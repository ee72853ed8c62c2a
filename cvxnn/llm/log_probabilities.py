"""How likely a language model finds given replies: ``log pi(y | x)`` summed over their tokens."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cvxnn._extras import require
from cvxnn.llm.batches import batches, may_share, model_inputs, trees_are_exact
from cvxnn.llm.cache import EmbeddingCache
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item, Pack, plan

if TYPE_CHECKING:
    import torch

    from cvxnn.preference.triplets import Prompt

_CHUNK = 1 << 24  # logits held at a time


class ResponseLogProbabilities(NamedTuple):
    """Log-probabilities of replies and the number of tokens they are summed over."""

    log_probabilities: np.ndarray  # (n,) float64, with the precision of float32
    lengths: np.ndarray  # (n,) int64


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
    """Log-probability of each reply given its prompt, in natural logarithms.

    Texts become tokens as for `Embedder`; the tokens of the prompt are conditioned on and not
    counted. Equal pairs are computed once, and so are common beginnings.

    Parameters
    ----------
    lm : LanguageModel
    prompts : sequence of (str or list of Message), length n
    responses : sequence of str, length n
    max_length : int, default=1024
        Tokens of prompt and reply together; capped by the context length of the model. Of longer
        pairs, the oldest tokens of the prompt are dropped; of a reply that is longer still, the
        end. A warning tells how many.
    end_of_turn : bool, default=True
        Count the token that ends the reply (the tokenizer's ``eos_token``, if it has one): it is
        the probability of saying this *and then stopping*, which a model has to learn. Without it
        the number is the probability of all replies that begin like this. A reply that was cut
        gets none.
    batch_tokens : int, default=2048
        Tokens in one call of the model, padding included.
    share_prefixes : bool, default=True
        Compute common beginnings once, where the model is found to give the same either way.
    cache : EmbeddingCache or path-like, optional
        Look log-probabilities up there before they are computed, and keep them, batch by batch.
        They are keyed by the weights of the model and the tokens.
    progress : bool, default=False
        Show progress on stderr.

    Returns
    -------
    ResponseLogProbabilities
        ``log_probabilities`` and ``lengths``, each of shape (n,).

    Raises
    ------
    ValueError
        If there is no pair, the lengths differ, a reply is empty, the model is in training mode or
        a result is not finite.

    Examples
    --------
    >>> from cvxnn.llm import load_model                                        # doctest: +SKIP
    >>> from cvxnn.llm.log_probabilities import response_log_probabilities      # doctest: +SKIP
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
    """Tokens of prompts and replies, within `max_length`; see `response_log_probabilities`."""
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
                f"prompt {len(rows)} has no token ({name!r:.80}) and {lm.name} none to begin "
                "with, so its reply's first token follows nothing; write some prompt"
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
    """Log-probabilities of token sequences' replies, as a differentiable torch function.

    Logits are computed where a token of a reply is predicted, a few at a time, and the slope of
    each in the hidden state along with them: memory never holds those of a whole batch. Where the
    output layer is not a frozen linear map of the hidden states (soft caps, scales, an adapter on
    it), the model's own logits are used, at all positions.

    Parameters
    ----------
    lm : LanguageModel
        In evaluation mode.
    share_prefixes : bool, default=True
    autocast : torch.dtype, optional
        Cast the arithmetic to this type, as ``torch.autocast`` does.

    Attributes
    ----------
    tokens_computed : int
        Tokens run through the model so far, padding included.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        share_prefixes: bool = True,
        autocast: torch.dtype | None = None,
    ) -> None:
        torch = require("torch", extra="llm")
        self.lm = lm
        self._autocast = autocast
        self._head = lm.model.get_output_embeddings()
        plain = type(self._head) is torch.nn.Linear
        # A cap hardly shows on small logits, and so not on every sample.
        plain = plain and not getattr(lm.config, "final_logit_softcapping", None)
        with torch.no_grad():
            self._has_plain_head = plain and self._head_is_all()
        self._shares = share_prefixes and trees_are_exact(lm)
        self.tokens_computed = 0

    def shares(self, longest: int) -> bool:
        """Whether rows of up to `longest` tokens may be prefix trees."""
        return self._shares and may_share(self.lm, longest)

    def __call__(self, items: Sequence[Item], batch: Sequence[Pack]) -> torch.Tensor:
        """Summed log-probabilities of the members of a batch of rows, one call of the model.

        Parameters
        ----------
        items : sequence of Item
        batch : sequence of Pack
            Rows; with several members, prefix trees. Members are numbers of items.

        Returns
        -------
        Tensor of shape (n_members,), float32 (float64 if the model is)
            In the order of the members.
        """
        torch = require("torch", extra="llm")
        inputs, rows, columns, targets, counts = _predictions(self.lm, items, batch)
        self.tokens_computed += inputs["input_ids"].numel()
        # Entered anew for each call, as it keeps casts of weights for as long as it lasts.
        with torch.autocast(self.lm.device.type, self._autocast, self._autocast is not None):
            head = self._head
            trained = torch.is_grad_enabled() and head.weight.requires_grad
            if self._has_plain_head and not trained:
                hidden = self.lm.decoder(**inputs, use_cache=False).last_hidden_state
                each = _token_function().apply(
                    hidden[rows, columns], head.weight, head.bias, targets
                )
            else:
                logits = self.lm.model(**inputs, use_cache=False).logits[rows, columns]
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                each = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        return torch.stack([part.sum() for part in each.split(counts)])

    def sums(self, items: list[Item], batch_tokens: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """Log-probabilities of many items, without slopes, batch by batch.

        Yields
        ------
        members : list of int
            Numbers of items.
        sums : ndarray of shape (n_members,), float32
        """
        torch = require("torch", extra="llm")
        for batch in self._plan(items, batch_tokens):
            with torch.no_grad():
                sums = self(items, batch).float().cpu().numpy()
            yield [i for pack in batch for i in pack.members], sums

    def _plan(self, items: list[Item], batch_tokens: int) -> list[list[Pack]]:
        """Batches of rows of similar length; prefix trees where that pays."""
        longest = max(len(item.tokens) for item in items)
        packs = [Pack([i], len(item.tokens)) for i, item in enumerate(items)]
        if len(items) > 1 and self.shares(longest):
            # A token costs 2 n_parameters operations, a pair in attention 4 width a layer.
            config = self.lm.config
            operations = 2 * config.hidden_size * config.num_hidden_layers
            capacity = max(batch_tokens, longest)
            packs = plan(items, capacity, self.lm.n_parameters / operations)
        return batches(packs, batch_tokens)

    def _head_is_all(self) -> bool:
        """Whether logits are the output layer's, seen on a few tokens."""
        torch = require("torch", extra="llm")
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
    """Log-probabilities, shape (n,), of tokens; and how many were run through the model."""
    distinct = {item.key: item for item in items}
    found: dict[bytes, float] = {}
    stored: dict[bytes, bytes] = {}
    n_tokens = 0
    with contextlib.ExitStack() as stack:
        if cache is not None:
            if not isinstance(cache, EmbeddingCache):
                cache = stack.enter_context(EmbeddingCache(cache))
            settings = f"log-probability {lm.fingerprint} {autocast or lm.dtype}".encode()
            stored = {key: hashlib.sha256(settings + key).digest() for key in distinct}
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
    tqdm = require("tqdm", extra="llm").tqdm
    return tqdm(total=n, desc="log-probabilities", unit="reply", disable=not progress)


def _predictions(
    lm: LanguageModel, items: Sequence[Item], batch: Sequence[Pack]
) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
    """Inputs of the decoder; where tokens of replies are predicted, which, and how many each."""
    torch = require("torch", extra="llm")
    inputs, paths = model_inputs(lm, items, batch)
    members = [items[i] for pack in batch for i in pack.members]
    columns = [path[item.start - 1 : -1] for item, (_, path) in zip(members, paths, strict=True)]
    targets = [item.tokens[item.start :] for item in members]
    rows = [np.full(len(part), row) for part, (row, _) in zip(columns, paths, strict=True)]
    where = [torch.from_numpy(np.concatenate(x)).to(lm.device) for x in (rows, columns, targets)]
    return inputs, where[0], where[1], where[2], [len(part) for part in targets]


@functools.cache
def _token_function() -> Any:
    """``log softmax(states @ weight.T + bias)`` at the targets, with its slope in the states.

    The output layer is frozen, so the slope ``weight[target] - softmax(logits) @ weight`` of each
    token is all that the way back needs. Computed on the way there, in chunks, it costs what it
    would cost then, and no logits are kept.
    """
    torch = require("torch", extra="llm")

    class TokenLogProbabilities(torch.autograd.Function):  # type: ignore[name-defined]
        @staticmethod
        def forward(
            ctx: Any,
            states: Any,
            weight: Any,
            bias: Any,
            targets: Any,
        ) -> Any:
            size = max(1, _CHUNK // len(weight))
            values, slopes = [], []
            for part, target in zip(states.split(size), targets.split(size), strict=True):
                logits = torch.nn.functional.linear(part, weight, bias)
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                total = logits.logsumexp(-1, keepdim=True)
                values.append((logits.gather(-1, target[:, None]) - total)[:, 0])
                if ctx.needs_input_grad[0]:
                    shares = logits.sub_(total).exp_().to(weight.dtype)
                    slopes.append((weight[target] - shares @ weight).to(states.dtype))
            if slopes:
                ctx.save_for_backward(torch.cat(slopes))
            return torch.cat(values)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None, None]:
            [slopes] = ctx.saved_tensors
            return slopes * gradient[:, None].to(slopes.dtype), None, None, None

    return TokenLogProbabilities
