"""Strategies of joint training compared on a language model, trade-off by trade-off."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cvxnn.files.digests import digest
from cvxnn.files.json_files import made_once
from cvxnn.joint.strategies import planned_runs
from cvxnn.llm.fine_tuning.config import FineTuningConfig
from cvxnn.llm.fine_tuning.training_data import Supervised
from cvxnn.llm.fine_tuning.training_loop import fine_tune
from cvxnn.llm.log_probabilities import response_log_probabilities
from cvxnn.llm.models import LanguageModel
from cvxnn.preference.catalogue import OBJECTIVES
from cvxnn.preference.triplets import PreferenceTriplet

JOINT_STRATEGIES = ("sequential", "mix", "alright", "maxright", "orpo")
"""Strategies of `compare_strategies`; ORPO learns from pairs alone, whatever the trade-off."""
_ALONE = {"dpo": 1.0, "sft": 0.0}
_CACHE = "reference.sqlite"


class JointData(NamedTuple):
    """Preference pairs and supervised replies, to learn from or held out.

    Attributes
    ----------
    preferences : sequence of PreferenceTriplet
        The pairs.
    supervised : sequence of (prompt, reply)
        The replies.
    """

    preferences: Sequence[PreferenceTriplet]
    supervised: Supervised


def compare_strategies(
    lm: LanguageModel,
    config: FineTuningConfig,
    train: JointData,
    test: JointData,
    folder: str | os.PathLike[str],
    *,
    strategies: Sequence[str] = ("sequential", "alright", "maxright"),
    trade_offs: Sequence[float] = (0.5,),
    periods: Sequence[int] | None = None,
    supervised_first: bool = False,
    progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a model by several strategies and trade-offs, and measure both objectives of each.

    First it is trained for each objective alone, which gives the optima that MAXRIGHT needs and the
    ideal point. Objectives are those of DPO and SFT over all training data, as in figure 3 of
    "Understanding Forgetting in LLM Supervised Fine-Tuning and Preference Learning", and over
    held-out data. A call that was interrupted continues.

    Parameters
    ----------
    lm : LanguageModel
        Model to start from, which is the reference of DPO; it is not changed.
    config : FineTuningConfig
        Settings for all runs; its objective, strategy, `lam` and optima do not count. Of a number
        of `steps`, ``"mix"`` makes half, as its steps take both batches.
    train, test : JointData
        Data to learn from, and held-out data.
    folder : path-like
        Folder with a folder for each run: its checkpoint, its result, and the tuned model.
    strategies : sequence of str, default=("sequential", "alright", "maxright")
        Some of `JOINT_STRATEGIES`.
    trade_offs : sequence of float, default=(0.5,)
        Weights of the preferences, in [0, 1].
    periods : sequence of int, optional
        Intervals at which ``"maxright"`` evaluates both objectives, at least 1; each is a run. By
        default the one of `config`.
    supervised_first : bool, default=False
        Whether ``"sequential"`` begins with the replies.
    progress : bool, default=False
        Whether to show progress bars on stderr.
    say : callable, optional
        Function that receives a line of text before each run.

    Returns
    -------
    dict
        ``policies``, a row for each strategy and trade-off; ``front``, which has the ``ideal``
        point; and ``start``, both objectives of the given model.

    Raises
    ------
    ValueError
        If a strategy is unknown, or there are no data of one kind.
    OtherSettingsError
        If the folder has runs of other settings; choose another one.
    """
    unknown = [name for name in strategies if name not in JOINT_STRATEGIES]
    if unknown:
        raise ValueError(
            f"strategies are {unknown}; of a language model, expected {JOINT_STRATEGIES}"
        )
    folder = Path(folder)
    measure = _Measures(lm, config, train, test, folder / _CACHE)
    start = measure.objectives(lm)
    rows: list[dict[str, Any]] = []
    optima: dict[str, float] = {}
    periods = [config.max_evaluation_steps] if periods is None else periods
    for name, label, settings in _runs(strategies, trade_offs, periods):
        if say is not None:
            say(name)
        own = dataclasses.replace(config, objective="dpo", supervised_first=supervised_first)
        if settings["strategy"] == "orpo":
            own = dataclasses.replace(own, objective="orpo", strategy="single", beta=None)
        else:
            own = dataclasses.replace(own, **settings)
        if own.strategy == "mix" and own.steps is not None:
            own = dataclasses.replace(own, steps=max(own.steps // 2, 1))
        if own.strategy == "maxright":
            own = dataclasses.replace(
                own, preference_optimum=optima["dpo"], supervised_optimum=optima["sft"]
            )
        row = measure.run(own, folder / name, progress)
        if name in _ALONE:
            optima[name] = row[name]
        else:
            rows.append({"strategy": label, "lam": settings["lam"], **row})
    ideal = [optima["dpo"], optima["sft"]]
    for row in rows:
        gaps = [row["dpo"] - ideal[0], row["sft"] - ideal[1]]
        row |= {"dpo_gap": gaps[0], "sft_gap": gaps[1], "ideal_distance": float(np.hypot(*gaps))}
    return {"policies": rows, "front": {"dpo": [], "sft": [], "ideal": ideal}, "start": start}


def _runs(
    strategies: Sequence[str], trade_offs: Sequence[float], periods: Sequence[int]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield name and label of each run and what sets it apart, those of one objective first."""
    for name, lam in _ALONE.items():
        yield name, name, {"strategy": "sequential", "lam": lam}
    for label, strategy, lam, period in planned_runs(strategies, trade_offs, periods):
        settings = {"strategy": strategy, "lam": lam}
        if strategy == "maxright":
            settings["max_evaluation_steps"] = period
        yield f"{label}-{lam:g}", label, settings


@dataclasses.dataclass(frozen=True)
class _Measures:
    """Trains by a configuration, and measures both objectives on all data."""

    lm: LanguageModel
    config: FineTuningConfig
    train: JointData
    test: JointData
    cache: Path

    def run(self, config: FineTuningConfig, folder: Path, progress: bool) -> dict[str, Any]:
        """Return the result of a run, which is made once."""
        data = {part: digest(*map(repr, self.train[part]), digits=32) for part in (0, 1)}
        settings = {
            "config": dataclasses.asdict(config),
            "model": self.lm.fingerprint,
            "data": list(data.values()),
        }

        def make() -> dict[str, Any]:
            both = config.strategy != "single"
            tuned = fine_tune(
                self.lm,
                config,
                preferences=self.train.preferences,
                supervised=self.train.supervised if both else None,
                folder=folder,
                progress=progress,
            )
            tuned.save(folder / "tuned")
            cost = tuned.costs["train"]
            return {
                "file": str(folder / "tuned"),
                "steps": int(tuned.history[-1]["step"]),
                "cpu_seconds": cost["cpu_seconds"],
                "flops": cost["flops"],
                "peak_bytes": max(cost["peak_bytes"], cost["device_peak_bytes"]),
                **self.objectives(tuned.lm),
            }

        found = made_once(folder / "result.json", settings, make, overwrite=False)
        return {k: v for k, v in found.items() if k not in ("settings", "output", "status")}

    def objectives(self, lm: LanguageModel) -> dict[str, Any]:
        """Return both objectives of a model on training data, and on held-out data."""
        dpo, sft, _ = self._of(lm, self.train)
        held_dpo, held_sft, margins = self._of(lm, self.test)
        held = {"held_dpo": held_dpo, "held_sft": held_sft}
        return {"dpo": dpo, "sft": sft, **held, "margins": margins.tolist()}

    def _of(self, lm: LanguageModel, data: JointData) -> tuple[float, float, np.ndarray]:
        pairs, beta = data.preferences, self.config.beta
        arrays: dict[str, np.ndarray] = {}
        for prefix, model in (("", lm), ("reference_", self.lm)):
            for side in ("chosen", "rejected"):
                found = self._scored(
                    model, [p.prompt for p in pairs], [getattr(p, side) for p in pairs]
                )
                arrays[f"{prefix}{side}"], arrays[f"{side}_length"] = found
        parameters = {"beta": OBJECTIVES["dpo"].parameters["beta"] if beta is None else beta}
        losses = OBJECTIVES["dpo"].losses(arrays, **parameters)
        won, lost = OBJECTIVES["dpo"].rewards(arrays, **parameters)
        sums, lengths = self._scored(lm, *map(list, zip(*data.supervised, strict=True)))
        replies = {"chosen": sums, "chosen_length": lengths}
        per_token = {"per_token": self.config.per_token}
        demonstrated = OBJECTIVES["sft"].losses(replies, **per_token)
        return float(losses.mean()), float(demonstrated.mean()), np.asarray(won - lost)

    def _scored(
        self, lm: LanguageModel, prompts: Sequence[Any], replies: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-probabilities and lengths; those of the given model are kept on disk."""
        found = response_log_probabilities(
            lm,
            prompts,
            replies,
            max_length=self.config.max_length,
            end_of_turn=self.config.end_of_turn,
            cache=self.cache if lm is self.lm else None,
        )
        return found.log_probabilities, found.lengths
