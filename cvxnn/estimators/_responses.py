"""Responses to prompts and the pairs among them, as preference heads are fitted to them."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from cvxnn.estimators._rows import require_range
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.stored_rows import StoredRows, is_stored


class Responses(NamedTuple):
    """Responses of positive weight, and their pairs.

    Attributes
    ----------
    X : ndarray, shape (n_responses, n_features)
        Embeddings.
    preferred : ndarray of bool, shape (n_responses,)
        True for a preferred response.
    weight : ndarray, shape (n_responses,)
        Positive weights of the responses.
    pairs : ndarray of int, shape (n_pairs, 2), or None
        Row numbers of a preferred response and of the one that it was preferred to; None where
        responses are labelled one by one.
    pair_weight : ndarray, shape (n_pairs,), or None
        Weights of the pairs.
    groups : ndarray of int, shape (n_responses,), or None
        Groups, such as conversations, that a choice leaves out as wholes, if there are any.
    """

    X: NDArray[np.floating]
    preferred: NDArray[np.bool_]
    weight: NDArray[np.floating]
    pairs: NDArray[np.intp] | None = None
    pair_weight: NDArray[np.floating] | None = None
    groups: NDArray[np.intp] | None = None

    @classmethod
    def of_pairs(
        cls,
        chosen: NDArray[np.floating],
        rejected: NDArray[np.floating],
        weight: NDArray,
        groups: NDArray[np.intp] | None = None,
    ) -> Responses:
        """Stack chosen and rejected responses; row ``k`` of both is a pair of ``weight[k]``."""
        n = len(chosen)
        pairs = np.column_stack([np.arange(n), np.arange(n) + n])
        parts: list[Any] = [chosen, rejected]
        stored = all(map(is_stored, parts))
        X: Any = StoredRows.stacked(parts) if stored else np.concatenate(parts)
        twice = np.tile(weight, 2)
        require_range(twice, "sample_weight")
        both = None if groups is None else np.tile(groups, 2)
        return cls(X, np.arange(2 * n) < n, twice, pairs, weight, both)

    def paired_by(self, pair_id: NDArray) -> Responses:
        """Pair each preferred response with each other one of its id.

        Parameters
        ----------
        pair_id : ndarray, shape (n_responses,)
            Responses to one prompt share an id.

        Returns
        -------
        Responses
            With pairs, each of the product of its two responses' weights.

        Raises
        ------
        ValueError
            If no id has both a preferred and another response.
        """
        rows = np.argsort(pair_id, kind="stable")
        groups = np.split(rows, np.flatnonzero(pair_id[rows][1:] != pair_id[rows][:-1]) + 1)
        won = self.preferred
        found = [
            np.stack(np.meshgrid(g[won[g]], g[~won[g]], indexing="ij"), -1).reshape(-1, 2)
            for g in groups
        ]
        pairs = np.concatenate(found)
        if len(pairs) == 0:
            raise ValueError(
                "no pair_id has both a preferred and another response, so no pair can be formed; "
                "give the two responses to one prompt the same id, or leave pair_id out."
            )
        with np.errstate(over="ignore"):
            pair_weight = self.weight[pairs].prod(axis=1)
        require_range(pair_weight, "sample_weight of pairs, the product of that of two responses")
        return self._replace(pairs=pairs, pair_weight=pair_weight)

    def paired_in_halves(self) -> Responses:
        """Pair the chosen responses with the rejected ones that follow them in the same order.

        Raises
        ------
        ValueError
            If the rows are not such halves.
        """
        n = len(self.X) // 2
        if not (self.preferred[:n].all() and not self.preferred[n:].any() and len(self.X) == 2 * n):
            raise ValueError(
                "the head was fitted to pairs: give pair_id, or all chosen embeddings followed by "
                "the rejected ones in the same order."
            )
        groups = None if self.groups is None else self.groups[:n]
        return Responses.of_pairs(self.X[:n], self.X[n:], self.weight[:n], groups)

    @property
    def signs(self) -> NDArray[np.floating]:
        """Targets of least squares, 1 and -1, shape (n_responses, 1)."""
        return np.where(self.preferred, 1, -1).astype(self.X.dtype)[:, None]

    def take(self, rows: NDArray[np.intp]) -> Responses:
        """Return some of the responses, with the pairs among them."""
        pairs, pair_weight = self.pairs, self.pair_weight
        if pairs is not None and pair_weight is not None:
            position = np.full(len(self.X), -1)
            position[rows] = np.arange(len(rows))
            inside = (position[pairs] >= 0).all(axis=1)
            pairs, pair_weight = position[pairs[inside]], pair_weight[inside]
        groups = None if self.groups is None else self.groups[rows]
        return Responses(
            self.X[rows], self.preferred[rows], self.weight[rows], pairs, pair_weight, groups
        )

    def folds(self, n_folds: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Return folds that split no pair and no group, or with equal parts of preferred responses.

        Equal responses stay together, whatever their order. Of a label with fewer distinct
        responses than folds, some folds hold out none.

        Parameters
        ----------
        n_folds : int
            Number of folds, at least 2.

        Returns
        -------
        list of (training rows, held-out rows)
            One pair of index arrays for each fold.

        Raises
        ------
        ValueError
            If there are more folds than prompts, than groups, or than distinct responses of either
            label.
        """
        content = np.column_stack([self.X, self.preferred])
        _, first, same = np.unique(content, axis=0, return_index=True, return_inverse=True)
        if self.pairs is None and self.groups is None:
            most = np.bincount(self.preferred[first]).max()
            if most < n_folds:
                raise ValueError(
                    f"n_folds={n_folds}, but no label has more than {most} distinct responses; "
                    "expected at most as many folds."
                )
            splitter = StratifiedKFold(n_folds, shuffle=True, random_state=0)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The least populated class", UserWarning)
                return _rows_of(same, list(splitter.split(first, self.preferred[first])))
        # Parts of the distinct responses, in their order: neither the order of the rows nor how
        # often one is repeated changes a fold.
        links = [np.empty((0, 2), np.intp)]
        if self.groups is not None:
            _, beginning, number = np.unique(self.groups, return_index=True, return_inverse=True)
            links.append(np.column_stack([same, same[beginning[number]]]))
        if self.pairs is not None:
            links.append(same[self.pairs])
        edges = np.concatenate(links)
        graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(first),) * 2)
        n_parts, part = connected_components(graph, directed=False)
        if self.pairs is None:
            if n_parts < n_folds:
                raise ValueError(
                    f"n_folds={n_folds}, but there are only {n_parts} groups without a response in "
                    "common; expected at most as many folds."
                )
            grouped = StratifiedGroupKFold(n_folds).split(first, self.preferred[first], part)
            return _rows_of(same, list(grouped))
        # Responses without a partner have no pair to be scored: they are always trained on.
        paired = np.flatnonzero(np.isin(part, part[same[self.pairs]]))
        n_prompts = len(np.unique(part[paired]))
        if n_prompts < n_folds:
            raise ValueError(
                f"n_folds={n_folds}, but there are only {n_prompts} prompts with a pair; expected "
                "at most as many folds. Prompts that share a response count as one."
            )
        split = GroupKFold(n_folds).split(paired, groups=part[paired])
        return _rows_of(same, [(seen, paired[unseen]) for seen, unseen in split])

    def accuracy(self, network: TwoLayerNetwork) -> float:
        """Return the weighted part of the pairs, or of the responses, that a head has right."""
        logits = network.forward(self.X)[:, 0]
        if self.pairs is None:
            return float(np.average((logits > 0) == self.preferred, weights=self.weight))
        won, lost = logits[self.pairs].T
        return float(np.average(won > lost, weights=self.pair_weight))


def check_sides(chosen: Any, rejected: Any) -> None:
    """Refuse the two sides of pairs if their shapes differ."""
    if np.shape(chosen) != np.shape(rejected):
        raise ValueError(
            f"chosen has shape {np.shape(chosen)} and rejected {np.shape(rejected)}; expected "
            "one row of each for every pair."
        )


def refuse_pairs(X: Any, y: Any) -> None:
    """Refuse the two sides of pairs where responses and their labels are expected."""
    # Not np.shape, which objects that become arrays only when asked to may refuse.
    of_X, of_y = (a.shape if hasattr(a, "shape") else np.asarray(a).shape for a in (X, y))
    if len(of_y) == 2 and of_y[1] != 1 and of_y == of_X:
        raise ValueError(
            "y has the shape of X, like the two sides of pairs; expected responses and a label for "
            "each: X = np.concatenate([chosen, rejected]), y = np.repeat([1, 0], len(chosen)). "
            "Pairs are fitted by fit_pairs(chosen, rejected) or partial_fit_pairs, and their "
            "accuracy is (reward_margin(chosen, rejected) > 0).mean()."
        )


def _rows_of(
    same: NDArray[np.intp], parts: list[tuple[NDArray[np.intp], NDArray[np.intp]]]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return the rows of folds of distinct responses: what is not held out is trained on."""
    held_out = [np.isin(same, unseen) for _, unseen in parts]
    return [(np.flatnonzero(~held), np.flatnonzero(held)) for held in held_out]
