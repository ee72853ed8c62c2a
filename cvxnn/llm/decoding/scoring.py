"""Scores of candidates: the opinion of the language model and that of a reward head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from cvxnn.features.description import differences
from cvxnn.llm.decoding.branches import Branches
from cvxnn.llm.decoding.guidance import Guidance
from cvxnn.llm.embeddings import Embedder
from cvxnn.llm.identity import is_same_model
from cvxnn.llm.models import LanguageModel


class RewardHead(Protocol):
    """Protocol of heads that score embeddings."""

    def reward(self, X: np.ndarray) -> ArrayLike:
        """Return the rewards of embeddings.

        Parameters
        ----------
        X : ndarray of shape (n, width)
            Embeddings of replies.

        Returns
        -------
        array of shape (n,)
            Reward of each reply.
        """


class DescribedHead(RewardHead, Protocol):
    """Protocol of reward heads that know which embeddings they were fitted to.

    If the head has a ``decision_function``, its values guide; else the rewards do.
    """

    @property
    def embedding(self) -> Mapping[str, object] | None:
        """Description of the embeddings."""


_SETTINGS = ("layer", "pooling", "max_length", "date", "context")


def check_embedder(head: RewardHead, embedder: Embedder) -> None:
    """Refuse an embedder whose embeddings are not those that a head was fitted to.

    Parameters
    ----------
    head : RewardHead
        Fitted head. One without ``embedding`` is taken as it is.
    embedder : Embedder
        Makes the embeddings that it is to score. The type of the weights does not matter.

    Raises
    ------
    ValueError
        If the model or a setting is another one; the message names what differs.
    """
    own = getattr(head, "embedding", None)
    if own is None:
        return
    there: Mapping[str, Any] = embedder.description
    differ = differences({n: own[n] for n in _SETTINGS}, {n: there[n] for n in _SETTINGS})
    known = {"exact": own["fingerprint"]}
    known |= {name: own[f"fingerprint_{name}"] for name in ("float16", "bfloat16")}
    if not is_same_model(embedder.lm, own["dtype"], known):
        differ = [f"the model is {own['model']} and {there['model']}, with other weights", *differ]
    if differ:
        raise ValueError(
            f"the head was fitted to other embeddings ({'; '.join(differ)}, of the head first); "
            "make the embedder by Embedder.from_description(lm, head.embedding)"
        )


class Scorer:
    """Score of candidates under the language model and a head, which must fit together.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    head : object with ``reward(X) -> (n,)`` and ``embedding``
        A fitted head, with the description of its embeddings.
    guidance : Guidance
        Weights of the two.

    Attributes
    ----------
    embedder : Embedder
        Embedder of the description.

    Raises
    ------
    ValueError
        If the head has no description, or that of another model, or the model is in training mode.
    """

    def __init__(self, lm: LanguageModel, head: DescribedHead, guidance: Guidance) -> None:
        description = getattr(head, "embedding", None)
        if description is None:
            raise ValueError(
                "the head does not say which embeddings it was fitted to; set them with "
                "head.set_params(embedding=embedder.description), where embedder made them"
            )
        if lm.model.training:
            raise ValueError(
                "the model is in training mode (dropout is on); call model.eval() first"
            )
        self.head = head
        self.guidance = guidance
        self.embedder = Embedder.from_description(lm, description)

    def branches(self, tokens: list[int], start: int) -> Branches:
        """Begin a row for each candidate.

        Parameters
        ----------
        tokens : list of int
            Tokens of the prompt and of the reply so far.
        start : int
            Number of the first token of the reply.

        Returns
        -------
        Branches
            As many equal rows as there are candidates.
        """
        used = self.embedder
        return Branches(
            used.lm,
            tokens,
            start,
            self.guidance.n_candidates,
            layer=used.layer,
            pooling=used.pooling,
            context=used.context,
        )

    def __call__(
        self, branches: Branches, log_probabilities: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores and the embeddings of the rows as they are.

        Parameters
        ----------
        branches : Branches
            One candidate in each row.
        log_probabilities : ndarray of shape (n,)
            Log-probability for each token; -inf in rows that are not candidates.

        Returns
        -------
        scores : ndarray of shape (n,)
            Scores as in `Guidance`; -inf in rows that are not candidates.
        embeddings : ndarray of shape (n, width), float32
            Embeddings of the replies so far.

        Raises
        ------
        ValueError
            If the head gives another number of values, or values that are not finite.
        """
        embeddings = branches.embeddings()
        judge = getattr(self.head, "decision_function", self.head.reward)
        values = np.asarray(judge(embeddings), dtype=np.float64)
        if values.shape != log_probabilities.shape or not np.isfinite(values).all():
            raise ValueError(
                f"the head gives {len(embeddings)} replies the values {values!r}; expected as many "
                "finite numbers"
            )
        usable = np.isfinite(log_probabilities)
        likelihood = self.guidance.likelihood * np.where(usable, log_probabilities, 0.0)
        scores = likelihood + self.guidance.weight * (values - values[usable].mean())
        return np.where(usable, scores, -np.inf), embeddings
