"""Guidance inside ``generate`` of transformers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxnn._extras import require
from cvxnn.llm.guidance.branches import Branches
from cvxnn.llm.guidance.continuations import end_tokens, likeliest, without_end
from cvxnn.llm.guidance.scoring import DescribedHead, Scorer
from cvxnn.llm.guidance.settings import Guidance
from cvxnn.llm.models import LanguageModel

if TYPE_CHECKING:
    import torch


def reward_logits_processor(
    lm: LanguageModel,
    head: DescribedHead,
    guidance: Guidance | None = None,
    *,
    n_reply_tokens: int = 0,
) -> Any:
    """Make a ``transformers.LogitsProcessor`` that re-weights the likeliest tokens by their reward.

    The logits of candidates become ``score / tau`` (``tau`` is 1 if not given), with the scores of
    the token mode of `Guidance`; those of other tokens -inf. Greedy search then gives the text of
    ``Guidance(mode="token")``, sampling draws by ``exp(score / tau)``. The processor keeps keys and
    values of its own: it runs the candidates through the model beside what ``generate`` runs.

    Parameters
    ----------
    lm : LanguageModel
    head : object with ``reward(X) -> (n,)`` and ``embedding``
    guidance : Guidance, optional
        `n_candidates`, `top_p`, `top_k`, `temperature`, `weight`, `likelihood` and `tau` count; the
        rest is up to ``generate``.
    n_reply_tokens : int, default=0
        How many of the last input tokens belong to the reply already.

    Returns
    -------
    transformers.LogitsProcessor
        For one prompt at a time. It may be used again: tokens that do not continue those of its
        last call begin another reply.

    Raises
    ------
    ValueError
        As `generate_guided` does; when called, if there is more than one row (beams, several
        prompts or ``num_return_sequences``).

    Examples
    --------
    >>> processor = reward_logits_processor(lm, head)         # doctest: +SKIP
    >>> lm.model.generate(ids, logits_processor=[processor])  # doctest: +SKIP
    """
    if n_reply_tokens < 0:
        raise ValueError(f"n_reply_tokens is {n_reply_tokens}; expected at least 0")
    base = require("transformers", extra="llm").LogitsProcessor
    state = _State(lm, head, guidance or Guidance(mode="token"), n_reply_tokens)

    class RewardLogitsProcessor(base):  # type: ignore[misc, valid-type]
        """Re-weights the likeliest tokens by the reward of the reply that they give."""

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            """Logits of the next token, shape (1, vocabulary)."""
            return state.logits(input_ids, scores)

    return RewardLogitsProcessor()


class _State:
    """The reply as the last call left it: its tokens, and rows with one candidate each."""

    def __init__(
        self, lm: LanguageModel, head: DescribedHead, guidance: Guidance, n_reply_tokens: int
    ) -> None:
        self.score = Scorer(lm, head, guidance)
        self.n_reply_tokens = n_reply_tokens
        self.ends = end_tokens(lm)
        self.tokens: list[int] = []
        self.start = 0
        self.candidates: list[int] = []
        self.branches: Branches | None = None

    def logits(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        torch = require("torch", extra="llm")
        if len(input_ids) != 1:
            raise ValueError(
                f"the reward processor was called with {len(input_ids)} rows; generate for one "
                "prompt at a time, with num_beams=1 and num_return_sequences=1"
            )
        branches = self._continue(input_ids[0].tolist())
        if len(self.tokens) == self.start:
            logits = without_end(logits, self.ends)
        taken, log_probabilities = likeliest(logits.float(), self.score.guidance)
        self.candidates = taken.tolist()
        grows = [token not in self.ends for token in self.candidates]
        if any(grows):
            branches.feed(taken, torch.tensor(grows, device=taken.device))
        scores, _ = self.score(branches, log_probabilities)
        usable = np.isfinite(scores)
        new = torch.full_like(logits, -math.inf)
        new[0, taken[usable]] = torch.tensor(scores[usable] / (self.score.guidance.tau or 1.0)).to(
            new
        )
        return new

    def _continue(self, tokens: list[int]) -> Branches:
        """Rows that are all at the end of these tokens."""
        if self.branches is not None and tokens[:-1] == self.tokens:
            self.tokens = tokens
            if tokens[-1] in self.candidates and tokens[-1] not in self.ends:
                self.branches.keep(self.candidates.index(tokens[-1]))
                return self.branches
        else:
            self.tokens = tokens
            self.start = max(len(tokens) - self.n_reply_tokens, 0)
        self.branches = self.score.branches(tokens, self.start)
        return self.branches
