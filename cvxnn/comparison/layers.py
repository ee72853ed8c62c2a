"""Choice of a layer of the language model, by folds of the training pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from cvxnn._progress import Progress
from cvxnn.comparison.heads import train_head
from cvxnn.features.pairs import PairFeatures

_N_FOLDS = 3


class LayerChoice(NamedTuple):
    """Layers to fit a head to.

    Attributes
    ----------
    layers : list of int
        The choice.
    accuracies : dict of int to float
        Share of the pairs of left-out folds that a linear head ranks correctly, by layer; empty
        where nothing was tried.
    """

    layers: list[int]
    accuracies: dict[int, float]

    def __str__(self) -> str:
        """Return a line that names the layers, and says how they were chosen."""
        chosen = ", ".join(map(str, self.layers))
        if not self.accuracies:
            return f"layers    {chosen}" + (", side by side" if len(self.layers) > 1 else "")
        shares = ", ".join(f"{layer}: {share:.1%}" for layer, share in self.accuracies.items())
        return (
            f"layers    {chosen}, with which a linear head ranks most pairs of left-out thirds of "
            f"the training pairs correctly ({shares})"
        )


def choose_layers(
    train: PairFeatures,
    layers: int | Sequence[int] | Literal["auto", "all"] = "auto",
    *,
    seed: int = 0,
    progress: bool = False,
) -> LayerChoice:
    """Choose layers of features that have several.

    Parameters
    ----------
    train : PairFeatures
        Training pairs. Held-out pairs must not be among them.
    layers : int, sequence of int, "auto" or "all", default="auto"
        Layers to take, side by side. ``"auto"`` fits a linear head to each layer on two thirds of
        the groups at a time, and takes the layer that ranks most of the pairs of the other third
        correctly; among equals the lowest, which costs least.
    seed : int, default=0
        Seed of the folds.
    progress : bool, default=False
        Whether to say on stderr how many layers are tried, and how long the rest will take.

    Returns
    -------
    LayerChoice
        The layers, and what was measured.

    Raises
    ------
    ValueError
        If the features lack a layer that is named; or if there are fewer than three groups, so that
        nothing can be left out: name the layers.
    """
    known = train.layers
    if not isinstance(layers, str):
        wanted = [layers] if isinstance(layers, int) else list(layers)
        return LayerChoice(train.take_layers(wanted).layers, {})
    if layers == "all" or len(known) == 1:
        return LayerChoice(known, {})
    groups = np.unique(train.groups, return_inverse=True)[1]
    n_groups = int(groups.max()) + 1
    if n_groups < _N_FOLDS:
        raise ValueError(
            f"the training pairs are of {n_groups} groups, too few to choose among the layers "
            f"{', '.join(map(str, known))} by leaving groups out; name the layers"
        )
    fold = np.random.default_rng(seed).permutation(np.arange(n_groups) % _N_FOLDS)[groups]
    accuracies, bar = {}, Progress("choosing", len(known), "layers", show=progress)
    for layer in known:
        own, right = train.take_layers([layer]), 0.0
        for k in range(_N_FOLDS):
            head, _ = train_head("linear", own.take(np.flatnonzero(fold != k).tolist()), seed=seed)
            left_out = own.take(np.flatnonzero(fold == k).tolist())
            margins = np.asarray(head.reward_margin(left_out.chosen, left_out.rejected))
            right += float(((margins > 0) + (margins == 0) / 2).sum())
        accuracies[layer] = right / len(train)
        bar.update()
    bar.close()
    best = min(known, key=lambda layer: (-accuracies[layer], layer))
    return LayerChoice([best], accuracies)
