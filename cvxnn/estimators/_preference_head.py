"""What a fitted preference head does: label, reward, and guide a language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.exceptions import NotFittedError

if TYPE_CHECKING:
    from cvxnn.llm.models import LanguageModel
    from cvxnn.preference.triplets import Prompt


class PreferenceHead:
    """All that follows from the logit of a response."""

    beta: float
    classes_: NDArray[Any]
    embedding: Mapping[str, Any] | None

    if TYPE_CHECKING:

        def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
            """Logit ``g`` of each response, shape (n_responses,)."""

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Label of each response on its own."""
        preferred = self.decision_function(X) > 0
        return self.classes_[preferred.astype(int)]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        r"""Probabilities :math:`(1 - \pi, \pi)`, shape (n_responses, 2)."""
        positive = expit(self.decision_function(X))
        return np.column_stack([1 - positive, positive])

    def reward(self, X: ArrayLike) -> NDArray[np.floating]:
        r"""Reward :math:`\beta \log \pi`, at most 0, shape (n_responses,)."""
        return -self.beta * np.logaddexp(0, -self.decision_function(X))

    def reward_margin(self, chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.floating]:
        """Reward of each chosen minus that of its rejected response, shape (n_pairs,)."""
        won, lost = self.reward(chosen), self.reward(rejected)
        if won.shape != lost.shape:
            raise ValueError(
                f"chosen has {len(won)} rows and rejected {len(lost)}; expected equal numbers."
            )
        return won - lost

    def generate(
        self,
        model: LanguageModel,
        prompt: Prompt,
        *,
        reply_start: str = "",
        stream: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> str:
        """Write a reply that a language model finds likely and this head finds good.

        Needs the extra ``llm``. ``cvxnn.llm.guidance.generate_guided`` does the work, and tells
        more about it than the text.

        Parameters
        ----------
        model : cvxnn.llm.LanguageModel
            The one whose embeddings the head was trained on.
        prompt : str or list of Message
        reply_start : str, default=""
            What the reply begins with.
        stream : callable, optional
            Is called with each piece of the text as soon as it is decided.
        **settings
            Of ``cvxnn.llm.guidance.Guidance``: ``weight``, ``max_new_tokens``, ``seed``, ...

        Returns
        -------
        str
            The reply, with its start.

        Raises
        ------
        ValueError
            If the head has no ``embedding``, the model is not the one of its features, or a
            setting is out of range.
        """
        from cvxnn.llm.guidance import Guidance, generate_guided

        if not hasattr(self, "classes_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")
        guidance = Guidance(**settings)
        reply = generate_guided(
            model, self, prompt, guidance, reply_start=reply_start, stream=stream
        )
        return reply.text

    def _check_embedding(self) -> None:
        if self.embedding is not None:
            from cvxnn.features.description import check_description

            check_description(self.embedding)

    def _check_width(self, n_features: int) -> None:
        if self.embedding is not None and n_features != self.embedding["width"]:
            raise ValueError(
                f"X has {n_features} features, but those of embedding are "
                f"{self.embedding['width']}; give the description of the embedder that made X."
            )
