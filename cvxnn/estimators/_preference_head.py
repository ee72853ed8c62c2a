"""What all preference heads share: fitting on responses or pairs, rewards, guided generation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import with_callbacks
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_n_features as check_n_features
from sklearn.utils.validation import check_is_fitted

from cvxnn.estimators._certified import names_of
from cvxnn.estimators._classes import require_two_classes
from cvxnn.estimators._missing_values import checked_data, refuse_missing
from cvxnn.estimators._monitor import Hook, Watched, all_or_nothing
from cvxnn.estimators._responses import Responses, check_sides, refuse_pairs
from cvxnn.estimators._rows import (
    FLOATS,
    groups_of,
    labels_of,
    numbers_only,
    select,
    to_host,
    weights_of,
)
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.scores import log_probabilities, probabilities, winner
from cvxnn.numerics.stored_rows import StoredRows, is_stored

# Bytes of both sides of pairs up to which a fit copies them, seven times at most.
_MOST_COPIED = 2**30

if TYPE_CHECKING:
    from cvxnn.llm.models import LanguageModel
    from cvxnn.preference.triplets import Prompt


class PreferenceHead(ClassifierMixin, Watched, BaseEstimator):
    """A classifier of responses whose logit is a reward; subclasses say how it is fitted."""

    beta: float
    embedding: Mapping[str, Any] | None
    classes_: NDArray[Any]
    network_: TwoLayerNetwork

    @abstractmethod
    def _check_parameters(self) -> None:
        """Raise a ValueError for parameters that are out of range."""

    @abstractmethod
    def _fit(self, rows: Responses, hook: Hook | None) -> None:
        """Set all fitted attributes but ``classes_``; ``hook`` is called after measurements."""

    @with_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        pair_id: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit on labelled responses.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.
        y : array-like, shape (n_responses,)
            Two labels; the larger one (1, True, ...) means preferred.
        pair_id : array-like, shape (n_responses,), optional
            Responses to one prompt share an id. Each preferred response is paired with each other
            one of its id. Without it responses are classified one by one, whatever ``loss`` says,
            so that the head works in pipelines and cross-validation.
        sample_weight : array-like, shape (n_responses,), optional
            Non-negative; a pair weighs the product of its two responses' weights.
        groups : array-like, shape (n_responses,), optional
            Labels of groups of responses that resemble each other, such as conversations; at least
            two. An automatic strength is then chosen by leaving out whole groups.

        Returns
        -------
        self
            The estimator itself. An interrupted or failed fit leaves it as it was.

        Raises
        ------
        ValueError
            For bad parameters or data, or if no id has both a preferred and another response.
        """
        self._check_parameters()
        end = self._begin_fit(X, y, sample_weight)
        with all_or_nothing(self):
            self.__dict__.pop("training_record_", None)  # of other data
            data, labels = self._validate(X, y)
            check_classification_targets(labels)
            classes, codes = np.unique(labels, return_inverse=True)
            if len(classes) > 2:
                raise ValueError(
                    "Only binary classification is supported. The type of the target is "
                    f"multiclass, {len(classes)} labels; expected 2, preferred or not."
                )
            weight = weights_of(sample_weight, len(data), data.dtype)
            keep = np.flatnonzero(weight > 0)
            require_two_classes(self, classes, codes[keep])
            rows = Responses(data, codes == 1, weight, groups=groups_of(groups, len(data)))
            rows = rows.take(keep)
            if pair_id is not None:
                ids = labels_of(pair_id, len(data), "pair_id")[1]
                rows = rows.paired_by(ids[keep])
            self._fit(rows, self._hook(X, y, sample_weight, {"classes_": classes}))
            self.classes_ = classes
            self._given = names_of(sample_weight=sample_weight, groups=groups)
            end()
        return self

    @with_callbacks
    def fit_pairs(
        self,
        chosen: ArrayLike,
        rejected: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit on pairs of embeddings.

        Parameters
        ----------
        chosen, rejected : array-like, shape (n_pairs, n_features)
            Row ``k`` of both belongs to one prompt.
        sample_weight : array-like, shape (n_pairs,), optional
            Non-negative weights; an integer weight equals repetition of the pair.
        groups : array-like, shape (n_pairs,), optional
            Labels of groups of pairs that resemble each other, such as conversations; at least two.
            An automatic strength is then chosen by leaving out whole groups.

        Returns
        -------
        self
            The estimator itself; ``classes_`` is ``[0, 1]``.

        Raises
        ------
        ValueError
            If the two have different shapes, are empty or not finite.
        """
        self._check_parameters()
        check_sides(chosen, rejected)
        end = self._begin_fit(None, None, None)
        with all_or_nothing(self):
            self.__dict__.pop("training_record_", None)  # of other data
            won = self._validate(chosen)
            lost = self._validate(rejected, reset=False)
            in_memory = not is_stored(won) and not is_stored(lost)
            if in_memory and self._fits_by_blocks() and won.nbytes + lost.nbytes > _MOST_COPIED:
                won, lost = StoredRows(won), StoredRows(lost)
            weight = weights_of(sample_weight, len(won), won.dtype)
            keep = weight > 0
            numbers = groups_of(groups, len(won))
            numbers = None if numbers is None else numbers[keep]
            won, lost = select(won, keep), select(lost, keep)
            rows = Responses.of_pairs(won, lost, weight[keep], numbers)
            classes = np.array([0, 1])
            labels = rows.preferred.astype(int)
            self._fit(rows, self._hook(rows.X, labels, None, {"classes_": classes}))
            self.classes_ = classes
            self._given = names_of(sample_weight=sample_weight, groups=groups)
            end()
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the logit ``g`` of each response.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.

        Returns
        -------
        ndarray, shape (n_responses,)
            Positive for a response that is more likely preferred than not.
        """
        check_is_fitted(self)
        rows = self._validate(X, reset=False)
        return self.network_.forward(rows)[:, 0]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label of each response on its own.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.

        Returns
        -------
        ndarray, shape (n_responses,)
            Labels of ``classes_``.
        """
        codes = winner(self.decision_function(X))
        return self.classes_[codes]

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy of :meth:`predict`; on pairs, see the signs of :meth:`reward_margin`.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.
        y : array-like, shape (n_responses,)
            Labels of responses.
        sample_weight : array-like, shape (n_responses,), optional
            Non-negative.

        Returns
        -------
        float
            Between 0 and 1.

        Raises
        ------
        ValueError
            If ``y`` has the shape of ``X``, as the two sides of pairs have.
        """
        refuse_pairs(X, y)
        return super().score(X, y, sample_weight)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        r"""Return the probabilities :math:`(1 - \pi, \pi)`.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.

        Returns
        -------
        ndarray, shape (n_responses, 2)
            Columns are in the order of ``classes_``.
        """
        return probabilities(self.decision_function(X))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        r"""Return :math:`(\log(1 - \pi), \log \pi)`, exact where :math:`\pi` rounds to 0 or 1.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.

        Returns
        -------
        ndarray, shape (n_responses, 2)
            At most 0; columns are in the order of ``classes_``.
        """
        return log_probabilities(self.decision_function(X))

    def reward(self, X: ArrayLike) -> NDArray[np.floating]:
        r"""Return the reward :math:`\beta \log \pi` of each response.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.

        Returns
        -------
        ndarray, shape (n_responses,)
            At most 0; the larger the better.
        """
        return -self.beta * np.logaddexp(0, -self.decision_function(X))

    def reward_margin(self, chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.floating]:
        """Return the reward of each chosen response minus that of its rejected one.

        Parameters
        ----------
        chosen, rejected : array-like, shape (n_pairs, n_features)
            Embeddings; row ``k`` of both belongs to one prompt.

        Returns
        -------
        ndarray, shape (n_pairs,)
            Positive where the head agrees with the preference.

        Raises
        ------
        ValueError
            If the two have different numbers of rows.
        """
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

        This needs the extra ``llm``. ``cvxnn.llm.generate_guided`` does the work, and returns
        more about it than the text.

        Parameters
        ----------
        model : cvxnn.llm.LanguageModel
            The one whose embeddings the head was trained on.
        prompt : str or list of Message
            What is asked.
        reply_start : str, default=""
            What the reply begins with.
        stream : callable, optional
            It is called with each piece of the text as soon as it is decided.
        **settings
            Of ``cvxnn.llm.Guidance``: ``weight``, ``max_new_tokens``, ``seed``, ...

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
        from cvxnn.llm import Guidance, generate_guided

        if not hasattr(self, "classes_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")
        guidance = Guidance(**settings)
        reply = generate_guided(
            model, self, prompt, guidance, reply_start=reply_start, stream=stream
        )
        return reply.text

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether ``fit`` has come to its end."""
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags: a classifier of two labels."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _fits_by_blocks(self) -> bool:
        """Return whether a fit to pairs can read its rows a block at a time, for the same head."""
        return False

    def _validate(self, X: Any, y: Any = "no_validation", **options: Any) -> Any:
        """Check rows, and labels if given, and bring them to the host in a dtype of FLOATS."""
        y = to_host(y, "y")
        refuse_missing(y)
        refuse_pairs(X, y)
        if is_stored(X) and isinstance(y, str):
            return self._validate_stored(X, **options)
        with numbers_only("X"):
            validated = checked_data(self, to_host(X, "X"), y, dtype=list(FLOATS), **options)
        self._check_width(self.n_features_in_)
        return validated

    def _validate_stored(self, X: StoredRows, *, reset: bool = True) -> StoredRows:
        """Check rows on the disk, which stay there."""
        check_n_features(self, X, reset=reset)
        if not X.is_finite():
            raise ValueError("Input X contains NaN or infinity, or holds values too large.")
        self._check_width(self.n_features_in_)
        return X

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
