"""Fine-tuned language models, as rows of a comparison: by the reward that an objective implies."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvxnn.comparison.results import MethodResult, accuracy_and_error, peak_memory
from cvxnn.costs.meter import CostMeter
from cvxnn.llm.fine_tuning import FineTuned, FineTuningConfig, fine_tune
from cvxnn.llm.log_probabilities import response_log_probabilities
from cvxnn.preference.data import PreferenceTriplet
from cvxnn.preference.metrics import reward_metrics

if TYPE_CHECKING:
    from cvxnn.llm.models import LanguageModel

FINE_TUNED = ("sft", "dpo", "r_dpo", "orpo", "simpo", "rrhf")
CHECKPOINT = "checkpoint.safetensors"  # what `fine_tune` keeps in its folder
_CACHE = "reference.sqlite"  # log-probabilities that `fine_tune` has computed already
_TRAINING_PAIRS = 64  # on which the accuracy on training pairs is taken


def fine_tuning_config(
    method: str, settings: Mapping[str, Any], parameters: Mapping[str, Any], seed: int
) -> FineTuningConfig:
    """The configuration of a method: what all have in common, and what is its own.

    Raises
    ------
    ValueError
        For a name that is no field of `FineTuningConfig`, or a value out of range.
    """
    given = {**settings, **parameters}
    known = {field.name for field in dataclasses.fields(FineTuningConfig)}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise ValueError(f"{unknown} are no settings of fine-tuning; expected some of {known}")
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
    """Fine-tune for one objective and measure the reward it implies.

    Parameters
    ----------
    lm : LanguageModel
        Left as it is; the reference.
    config : FineTuningConfig
    train, test : sequence of PreferenceTriplet
        The accuracy on training pairs is taken on some of them, evenly spaced.
    folder : path-like
        Keeps checkpoints, and at the end the adapters in ``adapter``. The same call after an
        interruption goes on from there.
    progress : bool, default=False

    Returns
    -------
    MethodResult
    """
    folder = Path(folder)
    tuned = fine_tune(
        lm, config, preferences=train, held_out=test, folder=folder, progress=progress
    )
    tuned.save(folder / "adapter")
    won, lost = implied_rewards(lm, tuned, test, cache=folder / _CACHE)
    spaced = np.linspace(0, len(train) - 1, min(len(train), _TRAINING_PAIRS)).round().astype(int)
    seen = [train[i] for i in np.unique(spaced)]
    seen_won, seen_lost = implied_rewards(lm, tuned, seen, cache=folder / _CACHE)
    accuracy, error = accuracy_and_error(won - lost, [pair.group for pair in test])
    # Evaluations of held-out pairs are no training.
    meter = CostMeter.from_dict({k: v for k, v in tuned.costs.items() if k != "evaluate"})
    return MethodResult(
        method=config.objective,
        accuracy=accuracy,
        standard_error=error,
        train_accuracy=accuracy_and_error(seen_won - seen_lost, [p.group for p in seen])[0],
        metrics=reward_metrics(won, lost),
        margins=[float(margin) for margin in won - lost],
        history=_columns(tuned.history),
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
    """Rewards of chosen and rejected replies that the objective implies; see `OBJECTIVES`.

    Parameters
    ----------
    lm : LanguageModel
        The one that was fine-tuned: the reference.
    tuned : FineTuned
    pairs : sequence of PreferenceTriplet
    cache : path-like, optional
        Keeps log-probabilities.

    Returns
    -------
    chosen, rejected : ndarray, shape (n_pairs,)
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


def _columns(history: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Entries as columns; None where an entry lacks the name."""
    names = ["step", *{name: None for row in history for name in row if "rewards/" in name}]
    names += [name for name in ("loss", "eval_loss") if any(name in row for row in history)]
    return {name: [row.get(name) for row in history] for name in names}
