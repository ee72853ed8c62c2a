"""Rules of decoding: which continuations of a reply are candidates, and which of them is taken.

Candidates are drawn from the model, or are the likeliest next tokens; `Guidance.mode` has the name
of the rule. The best candidate is taken, or one is drawn by the scores.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch

from cvxnn.llm.decoding.branches import Branches
from cvxnn.llm.decoding.guidance import Guidance
from cvxnn.llm.decoding.reply_text import ReplyText
from cvxnn.llm.models import LanguageModel

Ending = Literal["end", "stop", "length"]


class Continuations(NamedTuple):
    """Candidates for the continuation of a reply, one for each row of the branches.

    Attributes
    ----------
    tokens : list of list of int
        Tokens of each candidate.
    endings : list of ({"end", "stop"} or None)
        What ended the candidate; None if it has not ended.
    log_probabilities : ndarray of shape (n_candidates,)
        Log-probability for each token; -inf in rows that are not candidates.
    """

    tokens: list[list[int]]
    endings: list[Ending | None]
    log_probabilities: np.ndarray


class Proposer:
    """Source of candidates, which runs them through the model.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    guidance : Guidance
        Settings of the candidates.
    text : ReplyText
        Text of the reply, for the stop strings.
    n_given : int
        Number of tokens of the given beginning of the reply.
    """

    def __init__(
        self, lm: LanguageModel, guidance: Guidance, text: ReplyText, n_given: int
    ) -> None:
        self._sampler = torch.Generator(lm.device).manual_seed(guidance.seed)
        self.guidance = guidance
        self.text = text
        self.n_given = n_given
        self.ends = lm.end_tokens

    def __call__(self, branches: Branches, written: list[int]) -> Continuations:
        """Return candidates after the tokens written so far, as `Guidance` defines them.

        Parameters
        ----------
        branches : Branches
            Replies that all end with the tokens written so far; they get the candidates.
        written : list of int
            Tokens of the reply after the given beginning.

        Returns
        -------
        Continuations
            One candidate for each row.
        """
        logits = branches.logits
        if not written and not self.n_given:
            logits = without_end(logits, [*self.ends, *self.text.stop_tokens])
        if self.guidance.mode == "prefix":
            return self._segments(branches, logits, written)
        return self._single_tokens(branches, logits, written)

    def _segments(
        self, branches: Branches, logits: torch.Tensor, written: list[int]
    ) -> Continuations:
        """Draw segments of several tokens from the nucleus, one for each candidate.

        Parameters
        ----------
        branches : Branches
            A row for each candidate, at the end of the reply so far.
        logits : Tensor of shape (n_candidates, vocabulary)
            Logits of the next token.
        written : list of int
            Tokens of the reply so far.
        """
        n = self.guidance.n_candidates
        tokens: list[list[int]] = [[] for _ in range(n)]
        endings: list[Ending | None] = [None] * n
        sums, counts = np.zeros(n), np.zeros(n)
        room = self.guidance.max_new_tokens - len(written)
        for step in range(min(self.guidance.segment, room)):
            nucleus = Nucleus.of(logits, self.guidance)
            draws = torch.multinomial(nucleus.probabilities, 1, generator=self._sampler)
            drawn = nucleus.tokens.gather(1, draws)[:, 0]
            steps = nucleus.log_probabilities.gather(1, draws)[:, 0].double().cpu().numpy()
            going = np.array([ending is None for ending in endings])
            sums += np.where(going, steps, 0.0)
            counts += going
            for row, token in enumerate(drawn.tolist()):
                if going[row]:
                    endings[row] = self._append(token, tokens[row], written)
            self._feed(branches, drawn, [len(row) > step for row in tokens])
            if None not in endings:
                break
            logits = branches.logits
        return Continuations(tokens, endings, sums / counts)

    def _single_tokens(
        self, branches: Branches, logits: torch.Tensor, written: list[int]
    ) -> Continuations:
        """Take the likeliest tokens, each a candidate; the arguments are those of segments."""
        taken, log_probabilities = likeliest(logits[:1], self.guidance)
        tokens: list[list[int]] = [[] for _ in taken]
        endings = [
            self._append(token, row, written)
            for token, row in zip(taken.tolist(), tokens, strict=True)
        ]
        self._feed(branches, taken, [bool(row) for row in tokens])
        return Continuations(tokens, endings, log_probabilities)

    def _append(self, token: int, tokens: list[int], written: list[int]) -> Ending | None:
        """Append a token to a candidate, and return what ends it.

        Parameters
        ----------
        token : int
            The token.
        tokens : list of int
            Tokens of the candidate, to which the token is added unless it ends the reply.
        written : list of int
            Tokens of the reply before the candidate.
        """
        if token in self.ends:
            return "end"
        if token in self.text.stop_tokens:
            return "stop"
        tokens.append(token)
        return "stop" if self.text.stops(written + tokens) else None

    def _feed(self, branches: Branches, tokens: torch.Tensor, grows: list[bool]) -> None:
        """Run tokens through the model, in the rows that grow."""
        if any(grows):
            branches.feed(tokens, torch.tensor(grows, device=tokens.device))


class Nucleus(NamedTuple):
    """Tokens that may come next, the most likely first.

    Attributes
    ----------
    tokens : Tensor of shape (n, k), int64
        The tokens.
    probabilities : Tensor of shape (n, k)
        Probabilities at the given temperature; 0 outside `top_k` and `top_p`.
    log_probabilities : Tensor of shape (n, k)
        Log-probabilities under the model itself.
    """

    tokens: torch.Tensor
    probabilities: torch.Tensor
    log_probabilities: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor, guidance: Guidance) -> Nucleus:
        """Find the tokens from logits.

        Parameters
        ----------
        logits : Tensor of shape (n, vocabulary)
            Logits of the next token.
        guidance : Guidance
            Has `top_k`, `top_p` and `temperature`.

        Returns
        -------
        Nucleus
            The tokens of each row.
        """
        size, top_k = logits.shape[-1], guidance.top_k
        values, tokens = logits.topk(min(top_k, size) if top_k else size)
        probabilities = (values / guidance.temperature).softmax(dim=-1)
        if guidance.top_p < 1.0:
            before = probabilities.cumsum(dim=-1) - probabilities
            probabilities = probabilities * (before < guidance.top_p)
        return cls(tokens, probabilities, values - logits.logsumexp(dim=-1, keepdim=True))


def draw_candidate(scores: np.ndarray, tau: float | None, rng: np.random.Generator) -> int:
    """Choose a candidate by the scores.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Scores of the candidates; -inf for rows that are not candidates.
    tau : float or None
        Draw in proportion to ``exp(score / tau)``; None takes the best one.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    int
        Number of the candidate.
    """
    if tau is None:
        return int(scores.argmax())
    weights = np.exp((scores - scores.max()) / tau)
    return int(rng.choice(len(scores), p=weights / weights.sum()))


def likeliest(logits: torch.Tensor, guidance: Guidance) -> tuple[torch.Tensor, np.ndarray]:
    """Find the likeliest tokens.

    Parameters
    ----------
    logits : Tensor of shape (1, vocabulary)
        Logits of the next token.
    guidance : Guidance
        Has `n_candidates`, `top_k` and `top_p`.

    Returns
    -------
    tokens : Tensor of shape (n_candidates,)
        The tokens; the last one is repeated if there are too few.
    log_probabilities : ndarray of shape (n_candidates,)
        Their log-probabilities; -inf outside `top_k` and `top_p`.
    """
    nucleus = Nucleus.of(logits, guidance)
    n, found = guidance.n_candidates, nucleus.tokens.shape[1]
    rows = torch.arange(n, device=logits.device).clamp(max=found - 1)
    usable = nucleus.probabilities[0, rows] > 0
    usable[found:] = False
    values = nucleus.log_probabilities[0, rows].masked_fill(~usable, -math.inf)
    return nucleus.tokens[0, rows], values.double().cpu().numpy()


def without_end(logits: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Return logits under which a reply does not end.

    Parameters
    ----------
    logits : Tensor of shape (n, vocabulary)
        Logits of the first token of a reply.
    ends : list of int
        Tokens that end a reply.

    Returns
    -------
    Tensor of shape (n, vocabulary)
        The logits, with -inf for tokens that end a reply.
    """
    return logits.index_fill(1, torch.tensor(ends, device=logits.device).long(), -math.inf)
