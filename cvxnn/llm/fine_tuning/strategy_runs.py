"""Strategies of joint training compared on a language model, trade-off by trade-off."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cvxnn._progress import Progress
from cvxnn.files.digests import digest
from cvxnn.files.json_files import made_once
from cvxnn.joint.strategies import planned_runs
from cvxnn.joint.trade_offs import ParetoFront, reference_front
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
_STOPPED = "mix", "maxright"  # strategies that may end near the front
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
    stop_excess: float | None = None,
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
    stop_excess : float, optional
        Fraction, above 0. ``"alright"`` runs first, and the held-out objectives that its runs end
        with are a front; ``"mix"`` and ``"maxright"`` end where both held-out objectives, computed
        every ``config.evaluate_every`` steps, exceed it by at most this (appendix B.2). By default
        all runs go on to their ends.
    progress : bool, default=False
        Whether to show progress bars on stderr.
    say : callable, optional
        Function that receives a line of text before each run.

    Returns
    -------
    dict
        ``policies``, a row for each strategy and trade-off, with ``stopped`` for a run that ended
        near the front; ``front``, which has the ``ideal`` point; and ``start``, both objectives of
        the given model.

    Raises
    ------
    ValueError
        If a strategy is unknown, there are no data of one kind, or `stop_excess` comes without
        ``"alright"``.
    OtherSettingsError
        If the folder has runs of other settings; choose another one.
    """
    unknown = [name for name in strategies if name not in JOINT_STRATEGIES]
    if unknown:
        raise ValueError(
            f"strategies are {unknown}; of a language model, expected {JOINT_STRATEGIES}"
        )
    if stop_excess is not None:
        if "alright" not in strategies:
            raise ValueError(
                f"stop_excess is {stop_excess:g}, and strategies are {list(strategies)}; it needs "
                "'alright' among them, whose runs are the front"
            )
        strategies = sorted(strategies, key=lambda name: name != "alright")
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
        near = None
        if stop_excess is not None and own.strategy in _STOPPED:
            near = _Near(_ends(rows), stop_excess)
        row = measure.run(own, folder / name, progress, near)
        if name in _ALONE:
            optima[name] = row[name]
        else:
            rows.append({"strategy": label, "lam": settings["lam"], **row})
    ideal = [optima["dpo"], optima["sft"]]
    for row in rows:
        gaps = [row["dpo"] - ideal[0], row["sft"] - ideal[1]]
        row |= {"dpo_gap": gaps[0], "sft_gap": gaps[1], "ideal_distance": float(np.hypot(*gaps))}
    return {"policies": rows, "front": {"dpo": [], "sft": [], "ideal": ideal}, "start": start}


class _Near(NamedTuple):
    """Front and excess at which a run ends."""

    front: ParetoFront
    excess: float


def _ends(rows: Sequence[dict[str, Any]]) -> ParetoFront:
    """Return the front of the held-out objectives of ALRIGHT's runs."""
    ends = [(r["lam"], r["held_dpo"], r["held_sft"]) for r in rows if r["strategy"] == "alright"]
    return reference_front(*zip(*ends, strict=True))


@dataclasses.dataclass
class _Watcher:
    """Shows the progress of a run, and ends it near a front.

    Attributes
    ----------
    near : _Near
        The front, and how near.
    bar : Progress
        Where steps are shown.
    """

    near: _Near
    bar: Progress

    def __call__(self, entry: dict[str, float]) -> bool:
        """Return True at an evaluation near the front."""
        if "loss" in entry:
            self.bar.update(note=f"loss {entry['loss']:.4f}")
        if "eval_loss" not in entry:
            return False
        excess = self.near.front.excess(entry["eval_loss"], entry["eval_loss/supervised"])
        return bool(excess <= self.near.excess)


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

    def run(
        self, config: FineTuningConfig, folder: Path, progress: bool, near: _Near | None
    ) -> dict[str, Any]:
        """Return the result of a run, which is made once."""
        data = {part: digest(*map(repr, self.train[part]), digits=32) for part in (0, 1)}
        settings = {
            "config": dataclasses.asdict(config),
            "model": self.lm.fingerprint,
            "data": list(data.values()),
        }
        if near is not None:
            front = near.front
            ends = [array.tolist() for array in (front.lambdas, front.dpo, front.sft)]
            settings["stop"] = {"excess": near.excess, "front": ends}

        def make() -> dict[str, Any]:
            both, pairs, replies = config.strategy != "single", *self.train
            n_steps = config.n_steps(len(pairs), len(replies) if both else 0)
            with Progress(
                "fine-tuning", n_steps, "steps", show=progress and near is not None
            ) as bar:
                tuned = fine_tune(
                    self.lm,
                    config,
                    preferences=pairs,
                    supervised=replies if both else None,
                    held_out=None if near is None else self.test.preferences,
                    held_out_supervised=None if near is None else self.test.supervised,
                    folder=folder,
                    progress=progress if near is None else _Watcher(near, bar),
                )
            tuned.save(folder / "tuned")
            cost, steps = tuned.costs["train"], int(tuned.history[-1]["step"])
            return {
                "file": str(folder / "tuned"),
                "steps": steps,
                "stopped": steps < n_steps,
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
