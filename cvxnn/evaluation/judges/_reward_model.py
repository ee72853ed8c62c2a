"""Judges that score each reply on its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cvxnn.evaluation.judges._text import as_text
from cvxnn.preference.data import PreferenceTriplet, Prompt


class RewardModelJudge:
    """A reward model as a judge: the reply with the higher score is better.

    It scores each reply on its own, so it has no position bias, and one order is enough. Use a
    model that was trained on other data than what it judges.

    Parameters
    ----------
    model : callable or estimator
        A callable ``model(prompts, replies)`` that gives scores of shape (n,); or a fitted object
        with ``reward``, ``decision_function`` or ``predict`` (the first that it has), which is
        given ``features(prompts, replies)``.
    features : callable, optional
        From lists of n prompts and n replies to what the estimator takes, such as
        ``Embedder.embed``. The default joins prompt and reply to one text, for a pipeline that
        begins with a vectoriser.
    margin : float, default=0.0
        Scores that differ by no more than this are a tie.
    temperature : float, optional
        Answer with the probability ``sigmoid(difference / temperature)``; without it, 1 or 0.

    Examples
    --------
    >>> judge = RewardModelJudge(lambda prompts, replies: [-len(reply) for reply in replies])
    >>> judge("2 + 2?", "4", "I think it is 4.")
    1.0
    """

    def __init__(
        self,
        model: Any,
        *,
        features: Callable[[list[Prompt], list[str]], Any] | None = None,
        margin: float = 0.0,
        temperature: float | None = None,
    ) -> None:
        if not 0.0 <= margin < math.inf:
            raise ValueError(f"margin is {margin!r}; expected 0 or a positive number")
        if temperature is not None and not 0.0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature!r}; expected a positive number, or None")
        names = ("reward", "decision_function", "predict")
        method = next((name for name in names if hasattr(model, name)), None)
        if method is None and not callable(model):
            raise TypeError(
                f"model is a {type(model).__name__}; expected a callable, or an object with one of "
                f"{', '.join(names)}"
            )
        self.model, self.features = model, features or _joined
        self.margin, self.temperature = margin, temperature
        self._method = method

    def score(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> NDArray[np.float64]:
        """Scores of replies, shape (n,)."""
        arguments = list(prompts), list(replies)
        if self._method is None:
            scores = self.model(*arguments)
        else:
            scores = getattr(self.model, self._method)(self.features(*arguments))
        array = np.asarray(scores, dtype=np.float64)
        if array.shape != (len(replies),) or not np.isfinite(array).all():
            raise ValueError(
                f"the reward model gave {array!r} for {len(replies)} replies; expected one finite "
                "number each"
            )
        return array

    def batch(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]
    ) -> NDArray[np.float64]:
        """Preferences for the first replies, shape (n,)."""
        scores = self.score([*prompts, *prompts], [*firsts, *seconds])
        difference = scores[: len(firsts)] - scores[len(firsts) :]
        if self.temperature is None:
            preference = (1 + np.sign(difference)) / 2
        else:
            preference = (1 + np.tanh(difference / (2 * self.temperature))) / 2
        return np.where(np.abs(difference) <= self.margin, 0.5, preference)

    def __call__(self, prompt: Prompt, first: str, second: str) -> float:
        """Preference for the first reply."""
        return float(self.batch([prompt], [first], [second])[0])


def text_judge(triplets: Iterable[PreferenceTriplet], *, C: float = 1.0) -> RewardModelJudge:
    """Judge by words alone: Bradley-Terry on TF-IDF features of the replies.

    Cheap, and independent of the language model under test. Look at its accuracy on held-out pairs
    before you believe it.

    Parameters
    ----------
    triplets : iterable of PreferenceTriplet
        What it learns from; none of the prompts that it will judge.
    C : float, default=1.0
        Inverse strength of the ridge penalty.

    Returns
    -------
    RewardModelJudge

    Raises
    ------
    ValueError
        If there are no triplets, or no words in them.
    """
    # Here, since scikit-learn's text tools take a while to import.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = list(triplets)
    if not rows:
        raise ValueError("there are no triplets; expected at least one")
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    X = words.fit_transform([*(row.chosen for row in rows), *(row.rejected for row in rows)])
    margins = X[: len(rows)] - X[len(rows) :]
    # Each pair in both directions, at half weight: no intercept, and both classes are there.
    model = LogisticRegression(C=C / 2, fit_intercept=False)
    model.fit(sparse.vstack([margins, -margins]), np.repeat([1, 0], len(rows)))
    return RewardModelJudge(make_pipeline(words, model), features=_replies)


def _joined(prompts: list[Prompt], replies: list[str]) -> list[str]:
    return [f"{as_text(p)}\n\n{reply}" for p, reply in zip(prompts, replies, strict=True)]


def _replies(prompts: list[Prompt], replies: list[str]) -> list[str]:
    return replies
