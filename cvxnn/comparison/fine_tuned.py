"""Fine-tuned language models as rows of a comparison, measured by the rewards they imply."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvxnn.comparison.measures import accuracy_of, peak_memory
from cvxnn.comparison.results import ADAPTER, MethodResult
from cvxnn.costs.meter import CostMeter
from cvxnn.llm.fine_tuning.config import FineTuningConfig
from cvxnn.llm.fine_tuning.training_loop import fine_tune
from cvxnn.llm.fine_tuning.tuned_model import FineTuned
from cvxnn.llm.log_probabilities import response_log_probabilities
from cvxnn.preference.metrics import pair_accuracy, reward_metrics
from cvxnn.preference.triplets import PreferenceTriplet

if TYPE_CHECKING:
    from cvxnn.llm.models import LanguageModel

FINE_TUNED = ("sft", "dpo", "r_dpo", "orpo", "simpo", "rrhf")
CHECKPOINT = "checkpoint.safetensors"  # written by `fine_tune`
CACHE = "reference.sqlite"  # log-probabilities that `fine_tune` has computed
_TRAINING_PAIRS = 64  # number of training pairs to measure


def fine_tuning_config(
    method: str, settings: Mapping[str, Any], parameters: Mapping[str, Any], seed: int
) -> FineTuningConfig:
    """Return the configuration of a method.

    Parameters
    ----------
    method : str
        Objective, out of `FINE_TUNED`.
    settings : mapping of str to object
        Fields of `FineTuningConfig` for all methods.
    parameters : mapping of str to object
        Fields for this method, which take precedence.
    seed : int
        Seed of all random numbers.

    Returns
    -------
    FineTuningConfig
        The configuration.

    Raises
    ------
    ValueError
        If a name is not a field of `FineTuningConfig`, or a value is out of range.
    """
    given = {**settings, **parameters}
    known = {field.name for field in dataclasses.fields(FineTuningConfig)}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise ValueError(
            f"{unknown} are not settings of fine-tuning; expected some of {sorted(known)}"
        )
    if given.get("trained", "adapters") != "adapters":
        raise ValueError(
            "a comparison keeps adapters, not whole models; leave trained='all' to cvxnn.llm."
            "fine_tune, or to cvxnn joint on files of pairs"
        )
    return FineTuningConfig(**{**given, "objective": method, "seed": seed})


def fine_tune_and_evaluate(
    lm: LanguageModel,
    config: FineTuningConfig,
    train: Sequence[PreferenceTriplet],
    test: Sequence[PreferenceTriplet],
    *,
    folder: str | os.PathLike[str],
    progress: bool = False,
) -> MethodResult:
    """Fine-tune a model for one objective and measure the rewards that it implies.

    Parameters
    ----------
    lm : LanguageModel
        Model to start from, which is the reference of the objective. Its weights stay as they are.
    config : FineTuningConfig
        Objective and settings of the training.
    train : sequence of PreferenceTriplet
        Pairs to train on. The training accuracy is measured on at most 64 of them, evenly spaced.
    test : sequence of PreferenceTriplet
        Held-out pairs.
    folder : path-like
        Folder for checkpoints and, at the end, for the adapters (in ``adapter``). The same call
        after an interruption continues from the last checkpoint.
    progress : bool, default=False
        If True, show progress bars on stderr.

    Returns
    -------
    MethodResult
        Accuracy, margins and cost of the fine-tuned model.
    """
    folder = Path(folder)
    tuned = fine_tune(
        lm, config, preferences=train, held_out=test, folder=folder, progress=progress
    )
    tuned.save(folder / ADAPTER)
    won, lost = implied_rewards(lm, tuned, test, cache=folder / CACHE)
    spaced = np.linspace(0, len(train) - 1, min(len(train), _TRAINING_PAIRS)).round().astype(int)
    seen = [train[i] for i in np.unique(spaced)]
    seen_won, seen_lost = implied_rewards(lm, tuned, seen, cache=folder / CACHE)
    # Evaluations on held-out pairs are not part of the training.
    meter = CostMeter.from_dict({k: v for k, v in tuned.costs.items() if k != "evaluate"})
    return MethodResult(
        method=config.objective,
        **accuracy_of(won - lost, [pair.group for pair in test]),
        train_accuracy=pair_accuracy(seen_won - seen_lost),
        metrics=reward_metrics(won, lost),
        margins=[float(margin) for margin in won - lost],
        history=_columns(tuned.history, tuned.times),
        flops={name: float(cost.flops) for name, cost in meter.costs.items()},
        seconds={name: cost.seconds for name, cost in meter.costs.items()},
        peak_memory=peak_memory(meter.total),
        settings=dataclasses.asdict(config),
    )


def implied_rewards(
    lm: LanguageModel,
    tuned: FineTuned,
    pairs: Sequence[PreferenceTriplet],
    *,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the rewards of chosen and rejected replies that an objective implies.

    Parameters
    ----------
    lm : LanguageModel
        Model before fine-tuning, which is the reference of the objective.
    tuned : FineTuned
        Fine-tuned model with its configuration; see `cvxnn.preference.OBJECTIVES` for
        the rewards.
    pairs : sequence of PreferenceTriplet
        Pairs of replies.
    cache : path-like, optional
        SQLite file that keeps log-probabilities for later calls.

    Returns
    -------
    chosen, rejected : ndarray, shape (n_pairs,)
        Rewards of the two replies of each pair.
    """
    config, n = tuned.config, len(pairs)
    prompts = [pair.prompt for pair in pairs] * 2
    replies = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    policies = {"": tuned.lm, "reference_": lm} if config.method.needs_reference else {"": tuned.lm}
    arrays: dict[str, NDArray[Any]] = {}
    for prefix, model in policies.items():
        found = response_log_probabilities(
            model,
            prompts,
            replies,
            max_length=config.max_length,
            end_of_turn=config.end_of_turn,
            cache=cache,
        )
        for side, part in (("chosen", slice(n)), ("rejected", slice(n, None))):
            arrays[f"{prefix}{side}"] = found.log_probabilities[part]
            arrays[f"{side}_length"] = found.lengths[part]
    won, lost = config.method.rewards(arrays, **config.parameters)
    return np.asarray(won), np.asarray(lost)


def _columns(
    history: Sequence[Mapping[str, float]], times: Sequence[float]
) -> dict[str, list[float | None]]:
    """Return the entries of a history as columns, with None for what an entry lacks."""
    names = ["step", *{name: None for row in history for name in row if "rewards/" in name}]
    names += [name for name in ("loss", "eval_loss") if any(name in row for row in history)]
    columns = {name: [row.get(name) for row in history] for name in names}
    if len(times) == len(history):  # not after a checkpoint of an earlier version
        columns["seconds"] = list(times)
    return columns
