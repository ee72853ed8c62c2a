"""Judges that score each reply separately."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cvxnn.preference.triplets import PreferenceTriplet, Prompt, as_text, split_units


class RewardModelJudge:
    """Reward model as a judge: the reply with the higher score is better.

    Each reply is scored separately, so there is no position bias, and one order of presentation is
    enough. Use a model that was trained on other data than the data it judges.

    Parameters
    ----------
    model : callable or estimator
        A callable ``model(prompts, replies)`` that returns scores of shape (n,); or a fitted object
        with a method ``reward``, ``decision_function`` or ``predict``, of which the first one that
        exists is called with ``features(prompts, replies)``.
    features : callable, optional
        ``features(prompts, replies)`` returns the input of the estimator for lists of n prompts and
        n replies; ``Embedder.embed`` is an example. By default, prompt and reply are joined to one
        text, for a pipeline that begins with a vectoriser.
    margin : float, default=0.0
        Largest difference between two scores that counts as a tie, at least 0.
    temperature : float, optional
        With a temperature above 0, the preference is the probability
        ``sigmoid(difference / temperature)``; by default it is 1 or 0.

    Raises
    ------
    ValueError
        If `margin` or `temperature` is out of range.
    TypeError
        If `model` is neither callable nor an object with one of the methods.

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
        """Return the scores of replies.

        Parameters
        ----------
        prompts : sequence of Prompt, length n
            The prompts.
        replies : sequence of str, length n
            One reply to each prompt.

        Returns
        -------
        ndarray of shape (n,)
            Scores; higher is better.

        Raises
        ------
        ValueError
            If the model does not return one finite number for each reply.
        """
        arguments = list(prompts), list(replies)
        if self._method is None:
            scores = self.model(*arguments)
        else:
            scores = getattr(self.model, self._method)(self.features(*arguments))
        array = np.asarray(scores, dtype=np.float64)
        if array.shape != (len(replies),) or not np.isfinite(array).all():
            raise ValueError(
                f"the reward model gave {array!r} for {len(replies)} replies; expected one finite "
                "number for each reply"
            )
        return array

    def batch(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]
    ) -> NDArray[np.float64]:
        """Return the preferences for the first replies.

        Parameters
        ----------
        prompts : sequence of Prompt, length n
            The prompts.
        firsts, seconds : sequence of str, length n
            The replies shown first and second; their order makes no difference.

        Returns
        -------
        ndarray of shape (n,)
            Preferences for the first replies, each in [0, 1].
        """
        scores = self.score([*prompts, *prompts], [*firsts, *seconds])
        difference = scores[: len(firsts)] - scores[len(firsts) :]
        if self.temperature is None:
            preference = (1 + np.sign(difference)) / 2
        else:
            preference = (1 + np.tanh(difference / (2 * self.temperature))) / 2
        return np.where(np.abs(difference) <= self.margin, 0.5, preference)

    def __call__(self, prompt: Prompt, first: str, second: str) -> float:
        """Return the preference for the first reply, in [0, 1]."""
        return float(self.batch([prompt], [first], [second])[0])


def text_judge(triplets: Iterable[PreferenceTriplet], *, C: float = 1.0) -> RewardModelJudge:
    """Fit a judge that knows words only: a Bradley-Terry model on TF-IDF features of the replies.

    The features are those of single words and of two in a row. The judge is cheap, and independent
    of the language model under test. Measure its accuracy on held-out pairs before relying on it.

    Parameters
    ----------
    triplets : iterable of PreferenceTriplet
        Training data, without the prompts that the judge will be asked about.
    C : float, default=1.0
        Inverse strength of the ridge penalty, above 0.

    Returns
    -------
    RewardModelJudge
        Judge whose scores are the rewards of the fitted model.

    Raises
    ------
    ValueError
        If there are no triplets, or if their replies contain no words.
    """
    # Imported here, because scikit-learn's text tools take long to import.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = list(triplets)
    if not rows:
        raise ValueError("there are no triplets; expected at least one")
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    X = words.fit_transform([*(row.chosen for row in rows), *(row.rejected for row in rows)])
    margins = X[: len(rows)] - X[len(rows) :]
    # Each pair is used in both directions at half weight, so that both classes occur and the
    # intercept is 0.
    model = LogisticRegression(C=C / 2, fit_intercept=False)
    model.fit(sparse.vstack([margins, -margins]), np.repeat([1, 0], len(rows)))
    return RewardModelJudge(make_pipeline(words, model), features=_replies)


def text_judge_accuracy(
    triplets: Iterable[PreferenceTriplet], n_folds: int = 5, *, C: float = 1.0
) -> float:
    """Return how often `text_judge` is right about pairs that it was not fitted to.

    Parameters
    ----------
    triplets : iterable of PreferenceTriplet
        Pairs of at least two groups that share no prompt.
    n_folds : int, default=5
        Number of folds, at least 2; a group is never divided, and of fewer groups each is a fold.
    C : float, default=1.0
        As of `text_judge`.

    Returns
    -------
    float
        Share of pairs whose chosen reply has the higher score, when the judge was fitted to the
        other folds; equal scores count a half.

    Raises
    ------
    ValueError
        If there are fewer than two groups.
    """
    from sklearn.model_selection import GroupKFold

    rows = list(triplets)
    units = split_units(rows)
    if len(set(units)) < 2:
        raise ValueError("all pairs belong to one group; expected two or more, to hold one out")
    right = 0.0
    for seen, other in GroupKFold(min(n_folds, len(set(units)))).split(rows, groups=units):
        judge, unseen = text_judge([rows[i] for i in seen], C=C), [rows[i] for i in other]
        sides = [row.chosen for row in unseen], [row.rejected for row in unseen]
        right += float(judge.batch([row.prompt for row in unseen], *sides).sum())
    return right / len(rows)


def _joined(prompts: list[Prompt], replies: list[str]) -> list[str]:
    return [f"{as_text(p)}\n\n{reply}" for p, reply in zip(prompts, replies, strict=True)]


def _replies(prompts: list[Prompt], replies: list[str]) -> list[str]:
    return replies
