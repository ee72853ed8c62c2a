"""Scorer of replies: differentiable log-probabilities of their tokens under a language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from cvxnn.llm.batches import (
    batches,
    may_share,
    members_of,
    model_inputs,
    prefix_trees,
    trees_are_exact,
)
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item, Pack

_CHUNK = 1 << 24  # logits held at a time


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

    def sums(
        self, items: list[Item], planned: Iterable[list[Pack]]
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Compute log-probabilities of many items without gradients, batch by batch.

        Parameters
        ----------
        items : list of Item
            The items.
        planned : iterable of list of Pack
            Batches of their numbers, as `plan` makes them.

        Yields
        ------
        members : list of int
            Numbers of items.
        sums : ndarray of shape (n_members,), float32
            Their log-probabilities.
        """
        for batch in planned:
            with torch.no_grad():
                sums = self(items, batch).float().cpu().numpy()
            yield members_of(batch), sums

    def plan(self, items: list[Item], batch_tokens: int) -> list[list[Pack]]:
        """Return batches of rows of similar length, and of prefix trees where they pay.

        Parameters
        ----------
        items : list of Item
            The items.
        batch_tokens : int
            Largest number of tokens in one call of the model, padding included.

        Returns
        -------
        list of list of Pack
            The batches.
        """
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


def _predictions(
    lm: LanguageModel, items: Sequence[Item], batch: Sequence[Pack]
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
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
        ctx: torch.autograd.function.FunctionCtx,
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
            Tokens whose log-probabilities are computed.

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
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None]:
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
