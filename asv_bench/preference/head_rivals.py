"""Methods of ``heads.py``: each fits a reward to pairs of embeddings and scores the test pairs.

A method sees a `Task` and chooses its own settings by the held-out log-loss in the same folds of
whole groups. A reward is odd in a pair: exchanging the two responses changes its sign.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from kernel_head import GATES, Gates, PairEmbeddings, choose, pair_kernel, solve
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold
from sklearn.svm import SVC

Array = NDArray[np.float32]
Setting = dict[str, Any]
N_FOLDS = 3
MOST_PAIRS = 2000  # of which settings are chosen


class Pairs(NamedTuple):
    """Embeddings of pairs, shape ``(n, n_layers * d)`` each, and numbers of their groups."""

    chosen: Array
    rejected: Array
    prompt: Array
    groups: NDArray[np.intp]
    d: int

    def take(self, rows: NDArray[Any]) -> Pairs:
        return Pairs(*(part[rows] for part in self[:4]), d=self.d)

    def columns(self, columns: slice) -> Pairs:
        return Pairs(*(part[:, columns] for part in self[:3]), groups=self.groups, d=self.d)

    def beside_prompts(self) -> Pairs:
        parts = [np.concatenate([part, self.prompt], axis=1) for part in self[:2]]
        return Pairs(*parts, prompt=self.prompt, groups=self.groups, d=self.d)

    @property
    def differences(self) -> Array:
        return self.chosen - self.rejected


class Found(NamedTuple):
    """Margins of the test pairs, the factor that makes them logits, and what was chosen."""

    margins: NDArray[np.floating]
    scale: float
    setting: Setting
    fit_s: float  # processor time of the last fit, with the choices that the method itself makes


def sample(pairs: Pairs, seed: int = 0) -> Pairs:
    """Whole groups of at most ``MOST_PAIRS`` pairs."""
    order = np.random.default_rng(seed).permutation(pairs.groups.max() + 1)
    n_pairs = np.bincount(pairs.groups)[order].cumsum()
    return pairs.take(np.isin(pairs.groups, order[n_pairs <= MOST_PAIRS]))


def folds(pairs: Pairs) -> Iterator[tuple[Pairs, Pairs]]:
    for seen, unseen in GroupKFold(N_FOLDS).split(pairs.groups, groups=pairs.groups):
        yield pairs.take(seen), pairs.take(unseen)


def log_loss(margins: NDArray[np.floating]) -> float:
    return float(np.logaddexp(0, -margins).mean())


def scale_of(margins: NDArray[np.floating]) -> float:
    """The factor of held-out margins that has the least log-loss."""
    found = minimize_scalar(
        lambda t: log_loss(np.exp(t) * margins), bounds=(-8, 8), method="bounded"
    )
    return float(np.exp(found.x))


# Heads of the package -----------------------------------------------------------------------------


def head(make: Callable[[], Any], train: Pairs, test: Pairs) -> Found:
    """A head that chooses its settings itself; folds of the sample say its scale.

    Margins are differences of logits: those of rewards, which are log-sigmoids of logits, have the
    same signs, but are no log-odds of a preference.
    """

    def fit(seen: Pairs, unseen: Pairs) -> tuple[Any, NDArray[np.floating]]:
        fitted = make().fit_pairs(seen.chosen, seen.rejected, groups=seen.groups)
        won, lost = (fitted.decision_function(part) for part in (unseen.chosen, unseen.rejected))
        return fitted, won - lost

    held_out = np.concatenate([fit(*parts)[1] for parts in folds(sample(train))])
    start = time.process_time()
    fitted, margins = fit(train, test)
    spent = time.process_time() - start
    chosen = {
        name: np.round(np.asarray(getattr(fitted, name), float), 6).tolist()
        for name in ("C_", "strength_", "block_factors_", "uses_context_")
        if hasattr(fitted, name)
    }
    return Found(margins, scale_of(held_out), chosen, spent)


def linear(train: Pairs, test: Pairs) -> Found:
    from cvxnn import LinearPreferenceHead

    return head(LinearPreferenceHead, train, test)


def algorithm_1(train: Pairs, test: Pairs) -> Found:
    from cvxnn import COALAPreferenceHead

    return head(
        partial(COALAPreferenceHead, formulation="relu", tol=1e-2, random_state=0), train, test
    )


def gated(blocks: bool, prompts: str | None, train: Pairs, test: Pairs) -> Found:
    """Many gates; with a strength for each layer, or with the prompt beside the response.

    The prompt's columns are features as the response's are, or a context, which has gates only.
    """
    from cvxnn import COALAPreferenceHead

    width, context = train.chosen.shape[1], None
    if prompts is not None:
        train, test = train.beside_prompts(), test.beside_prompts()
        context = width if prompts == "context" else None
        width = width if prompts == "context" else 2 * width
    widths = [train.d] * (width // train.d) if blocks else None
    options = {"formulation": "gated", "blocks": widths, "context": context, "random_state": 0}
    return head(partial(COALAPreferenceHead, **options), train, test)


def input_of(train: Pairs, layers: dict[str, slice]) -> dict[str, float]:
    """Score layers, and all of them side by side, by the held-out log-loss of the linear head."""
    from cvxnn import LinearPreferenceHead

    scores = {}
    for name, columns in layers.items():
        part = train.columns(columns)
        fitted = LinearPreferenceHead().fit_pairs(part.chosen, part.rejected, groups=part.groups)
        scores[name] = round(float(fitted.cv_scores_.mean(axis=0).max()), 5)
    return scores


def kernel_head(gates: Gates, each_layer: bool, train: Pairs, test: Pairs) -> Found:
    """Infinitely many gates, with a strength for each layer or one; see ``kernel_head.py``."""
    start = time.process_time()
    some, width = sample(train), train.chosen.shape[1]
    layers = [slice(k, k + train.d) for k in range(0, width, train.d)]
    layers = layers if each_layer else [slice(None)]
    kernels = [pair_kernel(*2 * [_layer(some, train, columns)], gates) for columns in layers]
    units = np.array([np.diag(K).mean() for K in kernels])
    weights, held_out = choose(
        [K / unit for K, unit in zip(kernels, units, strict=True)], some.groups
    )
    del kernels
    K, K_test = (
        sum(
            weight
            * pair_kernel(_layer(pairs, train, columns), _layer(train, train, columns), gates)
            for columns, weight in zip(layers, weights / units, strict=True)
        )
        for pairs in (train, test)
    )
    margins = K_test @ solve(K)
    setting = {"weights": [float(f"{weight:.3g}") for weight in weights]}
    return Found(margins, scale_of(held_out), setting, time.process_time() - start)


def _layer(pairs: Pairs, train: Pairs, columns: slice) -> PairEmbeddings:
    mean = (train.chosen[:, columns].mean(axis=0) + train.rejected[:, columns].mean(axis=0)) / 2
    prompt = pairs.prompt[:, columns] - train.prompt[:, columns].mean(axis=0)
    return PairEmbeddings(
        pairs.chosen[:, columns] - mean, pairs.rejected[:, columns] - mean, prompt
    )


# Rivals -------------------------------------------------------------------------------------------


def svm(train: Pairs, test: Pairs) -> Found:
    """RBF-SVM on differences: the kernel ``k(d, e) - k(d, -e)`` makes it odd."""

    def fit(setting: Setting, seen: Pairs, unseen: Pairs) -> dict[int, NDArray[np.floating]]:
        mean_square = np.square(seen.differences).sum(axis=1).mean()
        gamma = setting["gamma"] / mean_square
        # The classes that SVC needs: every second pair the other way round.
        signs = np.where(np.arange(len(seen.chosen)) % 2, 1, -1)
        rows = seen.differences * signs[:, None]
        machine = SVC(kernel="precomputed", C=setting["C"], cache_size=1000)
        machine.fit(_odd_kernel(rows, rows, gamma), signs)
        odd = _odd_kernel(unseen.differences, rows, gamma)
        return {0: machine.decision_function(odd) - machine.intercept_}

    return tuned(fit, {"C": (0.03, 0.3, 3.0), "gamma": (0.03, 0.1, 0.3)}, train, test)


def _odd_kernel(A: Array, B: Array, gamma: float) -> Array:
    squares = np.square(A).sum(axis=1)[:, None] + np.square(B).sum(axis=1)
    inner = 2 * A @ B.T
    return np.exp(-gamma * (squares - inner)) - np.exp(-gamma * (squares + inner))


def boosting(train: Pairs, test: Pairs) -> Found:
    """Gradient boosting on differences, each pair in both directions."""

    def fit(setting: Setting, seen: Pairs, unseen: Pairs) -> dict[int, NDArray[np.floating]]:
        n_trees = setting.get("step", 150)
        trees = HistGradientBoostingClassifier(
            max_iter=n_trees,
            max_leaf_nodes=setting["leaves"],
            learning_rate=0.1,
            early_stopping=False,
            random_state=0,
        )
        D = seen.differences
        trees.fit(np.concatenate([D, -D]), np.repeat([1, 0], len(D)))
        both = zip(
            trees.staged_decision_function(unseen.differences),
            trees.staged_decision_function(-unseen.differences),
            strict=True,
        )
        margins = {k: there - back for k, (there, back) in enumerate(both, 1)}
        return {k: m for k, m in margins.items() if k == n_trees or k % 10 == 0}

    return tuned(fit, {"leaves": (4, 15)}, train, test)


def catboost(train: Pairs, test: Pairs) -> Found:
    """CatBoost on differences, each pair in both directions; the number of trees by folds."""
    from catboost import CatBoostClassifier

    def fit(setting: Setting, seen: Pairs, unseen: Pairs) -> dict[int, NDArray[np.floating]]:
        n_trees, D = setting.get("step", 300), seen.differences
        trees = CatBoostClassifier(
            n_trees, verbose=0, random_seed=0, thread_count=1, allow_writing_files=False
        )
        trees.fit(np.concatenate([D, -D]), np.repeat([1, 0], len(D)))
        margins = {}
        for k in range(50, n_trees + 1, 50):
            raw = {"prediction_type": "RawFormulaVal", "ntree_end": k}
            there, back = (trees.predict(sign * unseen.differences, **raw) for sign in (1, -1))
            margins[k] = there - back
        return margins

    return tuned(fit, {"depth": (6,)}, train, test)


def network(width: int, train: Pairs, test: Pairs) -> Found:
    """Bradley-Terry loss by AdamW: a linear reward for width 0, or a ReLU network."""

    def fit(setting: Setting, seen: Pairs, unseen: Pairs) -> dict[int, NDArray[np.floating]]:
        return _adamw(width, setting, seen, unseen)

    return tuned(fit, {"rate": (3e-4, 1e-3, 3e-3), "decay": (0.1, 10.0)}, train, test)


def _adamw(
    width: int, setting: Setting, seen: Pairs, unseen: Pairs
) -> dict[int, NDArray[np.floating]]:
    import torch

    torch.manual_seed(0)
    rows = np.concatenate([seen.chosen, seen.rejected])
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    won, lost, test_won, test_lost = (
        torch.from_numpy((part - mean) / scale) for part in (*seen[:2], *unseen[:2])
    )
    d = won.shape[1]
    reward: torch.nn.Module = torch.nn.Linear(d, 1)
    if width:
        layers = torch.nn.Linear(d, width), torch.nn.ReLU(), torch.nn.Linear(width, 1)
        reward = torch.nn.Sequential(*layers)
    optimiser = torch.optim.AdamW(
        reward.parameters(), lr=setting["rate"], weight_decay=setting["decay"]
    )
    epochs = setting.get("step", 30)
    margins = {}
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(won)).split(128):
            optimiser.zero_grad()
            loss = torch.nn.functional.softplus(reward(lost[batch]) - reward(won[batch])).mean()
            loss.backward()
            optimiser.step()
        with torch.inference_mode():
            margins[epoch] = (reward(test_won) - reward(test_lost))[:, 0].numpy()
    return margins


def tuned(
    fit: Callable[[Setting, Pairs, Pairs], dict[int, NDArray[np.floating]]],
    grid: dict[str, tuple[Any, ...]],
    train: Pairs,
    test: Pairs,
) -> Found:
    """Choose setting and step (trees or epochs) by the log-loss of scaled held-out margins.

    ``fit`` returns margins of its second pairs after each step that it names.
    """
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    parts = list(folds(sample(train)))
    best: tuple[float, float, Setting] = (np.inf, 1.0, {})
    for setting in settings:
        runs = [fit(setting, seen, unseen) for seen, unseen in parts]
        for step in runs[0]:
            held_out = np.concatenate([run[step] for run in runs])
            scale = scale_of(held_out)
            loss = log_loss(scale * held_out)
            if loss < best[0]:
                best = loss, scale, {**setting, "step": step}
    setting, start = best[2], time.process_time()
    margins = fit(setting, train, test)[setting["step"]]
    return Found(margins, best[1], setting, time.process_time() - start)


Method = Callable[[Pairs, Pairs], Found]

METHODS: dict[str, Method] = {
    "linear": linear,
    "gated": partial(gated, False, None),
    "gated_layers": partial(gated, True, None),
    "product": partial(gated, False, "context"),
    "product_layers": partial(gated, True, "context"),
    "kernel": partial(kernel_head, GATES, True),
    "svm": svm,
    "mlp": partial(network, 128),
    "bradley_terry_adamw": partial(network, 0),
    "boosting": boosting,
    "algorithm_1": algorithm_1,
}
VARIANTS: dict[str, Method] = {
    "catboost": catboost,
    "gated_prompt": partial(gated, False, "features"),
    "gated_layers_prompt": partial(gated, True, "features"),
    "kernel_no_gates": partial(kernel_head, (), True),
    "kernel_response_gates": partial(kernel_head, ("response",), True),
    "kernel_prompt_gates": partial(kernel_head, ("prompt",), True),
    "kernel_one_strength": partial(kernel_head, GATES, False),
}
# They weigh the layers themselves; the others see what `input_of` chooses.
ALL_LAYERS = (
    "kernel",
    "gated_layers",
    "product_layers",
    *(name for name in VARIANTS if name not in ("gated_prompt", "catboost")),
)
