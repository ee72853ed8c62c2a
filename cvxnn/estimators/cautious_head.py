"""A preference head whose rewards are lower where its pairs say little."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._messages import counted

if TYPE_CHECKING:
    from cvxnn.estimators._preference_head import PreferenceHead
    from cvxnn.explanation import Curvature


@dataclass(frozen=True, repr=False)
class CautiousHead:
    r"""The rewards of a head, less what is not known of them; see ``COALAPreferenceHead.cautious``.

    The logit of a response loses :math:`\kappa\,s \sqrt{\varphi^T (n H)^{-1} \varphi}`, with its
    features :math:`\varphi`, the Hessian :math:`H` of phase I over :math:`n` pairs and the scale
    :math:`s` of phase II. Wherever a head with ``reward`` and ``embedding`` serves, this one does:
    ``cvxnn.llm.generate_guided``, ``choose_reply``, a server.

    Attributes
    ----------
    head : COALAPreferenceHead
        The head itself.
    curvature : cvxnn.explanation.Curvature
        Its inverse Hessian.
    caution : float
        How many deviations a logit loses, at least 0.
    scale : float
        Scale of phase II.
    """

    head: PreferenceHead
    curvature: Curvature
    caution: float
    scale: float

    def __repr__(self) -> str:
        """Return the caution and the head."""
        return f"CautiousHead({self.head!r}, caution={self.caution:g})"

    @property
    def embedding(self) -> Mapping[str, Any] | None:
        """Description of the embeddings of the head."""
        return self.head.embedding

    @property
    def training_record_(self) -> Any:
        """Record of the training pairs of the head, which a head of ``cvxnn fit`` has."""
        return self.head.training_record_

    def decision_function(
        self, X: ArrayLike, prompts: Sequence[Hashable] | None = None
    ) -> NDArray[np.floating]:
        """Return the logit of each response, less its deviations.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.
        prompts : sequence of hashable, length n_responses, optional
            Prompt of each response. Deviations are then those among the responses to one prompt,
            from which what they have in common is taken away; a response alone has none.

        Returns
        -------
        ndarray, shape (n_responses,)
            At most the logits of the head.
        """
        rows = np.asarray(X)
        logits = self.head.decision_function(rows)
        if prompts is None:
            return logits - self.caution * self.scale * self.curvature.deviation_on(rows)
        if len(prompts) != len(rows):
            raise ValueError(
                f"{counted(len(prompts), 'prompt')} for {counted(len(rows), 'response')}; expected "
                "one of each."
            )
        places: dict[Hashable, list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(prompt, []).append(place)
        deviation = np.zeros(len(rows))
        for own in places.values():
            deviation[own] = self.curvature.deviation_among(rows[own])
        return logits - self.caution * self.scale * deviation

    def reward(
        self, X: ArrayLike, prompts: Sequence[Hashable] | None = None
    ) -> NDArray[np.floating]:
        r"""Return the reward :math:`\beta \log \pi` of each response, of its lower logit.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.
        prompts : sequence of hashable, length n_responses, optional
            Prompt of each response, as for :meth:`decision_function`.

        Returns
        -------
        ndarray, shape (n_responses,)
            At most the rewards of the head.
        """
        return -self.head.beta * np.logaddexp(0, -self.decision_function(X, prompts))
