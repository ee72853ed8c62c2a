"""Strategies that decide which objectives a step trains: one, both, or one of two.

The joint strategies are those of Fernando et al., "Understanding Forgetting in LLM Supervised
Fine-Tuning and Preference Learning" (2024): Algorithms 1 (sequential), 2 (ALRIGHT) and 3 (MAXRIGHT
with evaluations every few steps).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from cvxnn.llm.fine_tuning.config import FineTuningConfig

PREFERENCE, SUPERVISED = "preference", "supervised"
_DRAWS = 2  # sets these random numbers apart from those of the batches


class Stage(NamedTuple):
    """Steps with one optimiser and one schedule.

    Attributes
    ----------
    start : int
        First step, counted from 0.
    stop : int
        Step after the last one.
    sides : tuple of str
        Names of the objectives.
    n_rows : int or None
        Number of rows after which the data end; None if they do not.
    """

    start: int
    stop: int
    sides: tuple[str, ...]
    n_rows: int | None = None


def stages(config: FineTuningConfig, sizes: Mapping[str, int]) -> list[Stage]:
    """Return the stages of a run.

    Parameters
    ----------
    config : FineTuningConfig
        Settings of the run.
    sizes : mapping of str to int
        Number of rows for each objective.

    Returns
    -------
    list of Stage
        Stages in order, none of them empty.
    """
    n_steps = config.n_steps(sizes.get(PREFERENCE, 0), sizes.get(SUPERVISED, 0))
    if config.strategy == "single":
        [(side, n)] = sizes.items()
        return [Stage(0, n_steps, (side,), config.epochs * n if config.steps is None else None)]
    if config.strategy != "sequential":
        return [Stage(0, n_steps, (PREFERENCE, SUPERVISED))]
    n_preference = round(config.lam * n_steps)
    if config.supervised_first:
        middle, order = n_steps - n_preference, (SUPERVISED, PREFERENCE)
    else:
        middle, order = n_preference, (PREFERENCE, SUPERVISED)
    parts = [Stage(0, middle, order[:1]), Stage(middle, n_steps, order[1:])]
    return [stage for stage in parts if stage.stop > stage.start]


def weight(config: FineTuningConfig, side: str) -> float:
    """Return the weight of an objective.

    Parameters
    ----------
    config : FineTuningConfig
        Has the weight of the preferences.
    side : {"preference", "supervised"}
        The objective.

    Returns
    -------
    float
        Its weight, in [0, 1].
    """
    return config.lam if side == PREFERENCE else 1.0 - config.lam


def gap(config: FineTuningConfig, side: str, value: float) -> float:
    """Return the weighted distance of the value of an objective from its optimum.

    Parameters
    ----------
    config : FineTuningConfig
        Has the weights and the optima.
    side : {"preference", "supervised"}
        The objective.
    value : float
        Its value.

    Returns
    -------
    float
        The distance that ``"maxright"`` compares.
    """
    known = {PREFERENCE: config.preference_optimum, SUPERVISED: config.supervised_optimum}
    return weight(config, side) * (value - known[side])


def weigh_objectives(
    config: FineTuningConfig,
    stage: Stage,
    step: int,
    gaps: dict[str, float],
    evaluate: Callable[[str], float],
) -> dict[str, float]:
    """Return the objectives of a step and their weights.

    Parameters
    ----------
    config : FineTuningConfig
        Has the strategy.
    stage : Stage
        Stage of the step.
    step : int
        Number of the step, counted from 0.
    gaps : dict of str to float
        Last known `gap` of each objective for ``"maxright"``; updated at each evaluation.
    evaluate : callable
        Function that gives the value of an objective on the batch of the step.

    Returns
    -------
    dict of str to float
        Weights of the objectives that the step trains, none of them 0.
    """
    if len(stage.sides) == 1:
        return {stage.sides[0]: 1.0}
    if config.strategy == "mix":
        weights = {side: weight(config, side) for side in stage.sides}
        return {side: share for side, share in weights.items() if share > 0}
    if config.strategy == "alright":
        draw = np.random.default_rng([config.seed, _DRAWS, step]).random()
        return {PREFERENCE if draw < config.lam else SUPERVISED: 1.0}
    if step == 0 or (step + 1) % config.max_evaluation_steps == 0:  # steps 1, k, 2k, ... from 1
        gaps.update({side: gap(config, side, evaluate(side)) for side in stage.sides})
    return {max(stage.sides, key=lambda side: gaps[side]): 1.0}
