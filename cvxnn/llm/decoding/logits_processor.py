"""Logits processor that brings guidance into ``generate`` of transformers."""

from __future__ import annotations

import math

import numpy as np
import torch
import transformers

from cvxnn.llm.decoding.branches import Branches
from cvxnn.llm.decoding.guidance import Guidance
from cvxnn.llm.decoding.rules import likeliest, without_end
from cvxnn.llm.decoding.scoring import DescribedHead, Scorer
from cvxnn.llm.models import LanguageModel


class RewardLogitsProcessor(transformers.LogitsProcessor):
    """Processor for ``generate`` of transformers that weighs the likeliest tokens by their reward.

    The logits of candidates become ``score / tau`` (``tau`` is 1 if it is not given), with the
    scores of the token mode of `Guidance`; those of other tokens become -inf. Greedy search then
    gives the text of ``Guidance(mode="token")``; sampling draws in proportion to
    ``exp(score / tau)``. The processor keeps keys and values of its own: it runs the candidates
    through the model beside what ``generate`` runs.

    It serves one prompt at a time. It may be used again: tokens that do not continue those of its
    last call begin another reply.

    Parameters
    ----------
    lm : LanguageModel
        The model whose embeddings the head was fitted to.
    head : object with ``reward(X) -> (n,)`` and ``embedding``
        A fitted head, with the description of its embeddings.
    guidance : Guidance, optional
        Settings, of which `n_candidates`, `top_p`, `top_k`, `temperature`, `weight`, `likelihood`
        and `tau` count; ``generate`` decides the rest. The default is ``Guidance(mode="token")``.
    n_reply_tokens : int, default=0
        Number of the last input tokens that belong to the reply already.

    Raises
    ------
    ValueError
        As `generate_guided` does; when called, if there is more than one row (beams, several
        prompts or ``num_return_sequences``).

    Examples
    --------
    >>> processor = RewardLogitsProcessor(lm, head)           # doctest: +SKIP
    >>> lm.model.generate(ids, logits_processor=[processor])  # doctest: +SKIP
    """

    def __init__(
        self,
        lm: LanguageModel,
        head: DescribedHead,
        guidance: Guidance | None = None,
        *,
        n_reply_tokens: int = 0,
    ) -> None:
        if n_reply_tokens < 0:
            raise ValueError(f"n_reply_tokens is {n_reply_tokens}; expected at least 0")
        self._score = Scorer(lm, head, guidance or Guidance(mode="token"))
        self._n_reply_tokens = n_reply_tokens
        self._ends = lm.end_tokens
        # The reply as the last call left it: its tokens, and rows with one candidate each.
        self._tokens: list[int] = []
        self._start = 0
        self._candidates: list[int] = []
        self._branches: Branches | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next token.

        Parameters
        ----------
        input_ids : Tensor of shape (1, length)
            Tokens of the prompt and of the reply so far.
        scores : Tensor of shape (1, vocabulary)
            Logits of the language model.

        Returns
        -------
        Tensor of shape (1, vocabulary)
            Weighted logits of the candidates, and -inf for all other tokens.
        """
        if len(input_ids) != 1:
            raise ValueError(
                f"the reward processor was called with {len(input_ids)} rows; generate for one "
                "prompt at a time, with num_beams=1 and num_return_sequences=1"
            )
        branches = self._continue(input_ids[0].tolist())
        logits = scores
        if len(self._tokens) == self._start:
            logits = without_end(logits, self._ends)
        guidance = self._score.guidance
        taken, log_probabilities = likeliest(logits.float(), guidance)
        self._candidates = taken.tolist()
        grows = [token not in self._ends for token in self._candidates]
        if any(grows):
            branches.feed(taken, torch.tensor(grows, device=taken.device))
        values, _ = self._score(branches, log_probabilities)
        usable = np.isfinite(values)
        new = torch.full_like(logits, -math.inf)
        new[0, taken[usable]] = torch.tensor(values[usable] / (guidance.tau or 1.0)).to(new)
        return new

    def _continue(self, tokens: list[int]) -> Branches:
        """Return rows that all end with these tokens."""
        if self._branches is not None and tokens[:-1] == self._tokens:
            self._tokens = tokens
            if tokens[-1] in self._candidates and tokens[-1] not in self._ends:
                self._branches.keep(self._candidates.index(tokens[-1]))
                return self._branches
        else:
            self._tokens = tokens
            self._start = max(len(tokens) - self._n_reply_tokens, 0)
        self._branches = self._score.branches(tokens, self._start)
        return self._branches
