"""A system's replies against a baseline's, in random order, with a log to go on from."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cvxnn.evaluation import Judgement, WinRate, win_rate
from cvxnn.evaluation.judges._log import Log, Order
from cvxnn.evaluation.judges._text import as_text
from cvxnn.preference.data import Prompt

Judge = Callable[[Prompt, str, str], float]


class BatchJudge(Protocol):
    """A judge of several questions at once."""

    def batch(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]
    ) -> Sequence[float] | NDArray[np.float64]:
        """Preferences for the first replies, each in [0, 1]."""


@dataclass(frozen=True)
class PositionBias:
    """What being shown first is worth.

    Attributes
    ----------
    first : WinRate
        Of the reply that was shown first: 50 % if the judge has no bias.
    consistency : float
        Share of the questions asked in both orders that got the same winner (or a tie) twice; NaN
        if none was.
    """

    first: WinRate
    consistency: float


@dataclass(frozen=True)
class Comparison:
    """Judgements of a system against a baseline.

    Attributes
    ----------
    judgements : list of Judgement
        In the order of the prompts; `output_a` is the system's.
    position_bias : PositionBias or None
        None if all replies were equal, so that the judge was not asked.
    """

    judgements: list[Judgement] = field(repr=False)
    position_bias: PositionBias | None

    @property
    def preferences(self) -> NDArray[np.float64]:
        """For the system, shape (n,); what `win_rate` takes."""
        return np.array([judgement.preference for judgement in self.judgements])

    @property
    def length_differences(self) -> NDArray[np.float64]:
        """In characters, shape (n,); what `length_controlled_win_rate` takes."""
        return np.array([float(judgement.length_difference) for judgement in self.judgements])


def compare_with_judge(
    judge: Judge | BatchJudge,
    prompts: Sequence[Prompt],
    outputs: Sequence[str],
    baseline: Sequence[str],
    *,
    both_orders: bool = False,
    systems: tuple[str, str] = ("system", "baseline"),
    seed: int = 0,
    log: str | os.PathLike[str] | None = None,
    judge_name: str = "",
    batch_size: int = 32,
    progress: bool = False,
) -> Comparison:
    """Ask a judge which replies are better, in random order.

    Parameters
    ----------
    judge : callable or BatchJudge
        ``judge(prompt, first, second)`` gives the preference for the first reply, in [0, 1].
    prompts : sequence of Prompt, length n
    outputs, baseline : sequence of str, length n
        The replies to compare. Equal ones are a tie, without asking.
    both_orders : bool, default=False
        Ask each question in both orders and average: twice the cost, no position bias left.
    systems : (str, str)
        Who wrote `outputs` and `baseline`, for the judgements; the judge is not told.
    seed : int, default=0
        Of the order of presentation, which depends on this and the question alone.
    log : path-like, optional
        A JSON lines file to which each answer is appended. Answers that it already has are not
        asked for again, so a run that was killed goes on where it was. A last line that was cut
        short is dropped. One log may serve several comparisons, but one process at a time.
    judge_name : str, default=""
        Keeps the answers of different judges apart in one log.
    batch_size : int, default=32
        Questions at once, for a judge with a method ``batch``.
    progress : bool, default=False
        Count the answers on standard error.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If the lengths differ, there is nothing to judge, the log is damaged or something else, or
        the judge's answer is no number in [0, 1].
    RuntimeError
        If the judge fails; the prompt is named. The answers before it are in the log.

    Examples
    --------
    >>> def terse(prompt, first, second):
    ...     return float(len(first) < len(second))
    >>> result = compare_with_judge(terse, ["2 + 2?"], ["4"], ["I think it is 4."])
    >>> result.judgements[0].preference
    1.0
    """
    if not len(prompts) == len(outputs) == len(baseline):
        raise ValueError(
            f"{len(prompts)} prompts, {len(outputs)} outputs and {len(baseline)} baseline replies; "
            "expected as many of each"
        )
    if not prompts:
        raise ValueError("there are no prompts; expected at least one")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    pairs = list(zip(prompts, outputs, baseline, strict=True))
    keys = _keys(pairs, judge_name)
    orders: list[tuple[Order, ...]] = []
    for key, (_, a, b) in zip(keys, pairs, strict=True):
        both: tuple[Order, ...] = ("ab", "ba")
        first = int(_digest([seed, key]), 16) % 2
        orders.append(() if a == b else both if both_orders else (both[first],))
    answers = Log(None if log is None else Path(log))
    open_questions = [
        (i, order)
        for i, key in enumerate(keys)
        for order in orders[i]
        if (key, order) not in answers.known
    ]
    size = batch_size if hasattr(judge, "batch") else 1
    for start in range(0, len(open_questions), size):
        chunk = open_questions[start : start + size]
        verdicts = _ask(judge, pairs, chunk)
        answers.add([(keys[i], shown, p) for (i, shown), p in zip(chunk, verdicts, strict=True)])
        if progress:
            done = start + len(chunk)
            end = "\n" if done == len(open_questions) else ""
            text = f"\rjudging: {done}/{len(open_questions)}"
            print(text, end=end, file=sys.stderr, flush=True)
    judgements = []
    bias: list[list[float]] = []
    for key, shown, pair in zip(keys, orders, pairs, strict=True):
        firsts = [answers.known[key, order] for order in shown]
        bias += [firsts] if firsts else []
        for_a = [p if order == "ab" else 1 - p for p, order in zip(firsts, shown, strict=True)]
        preference = sum(for_a) / len(for_a) if for_a else 0.5
        what = None if not shown else shown[0] if len(shown) == 1 else "both"
        judgements.append(Judgement(*pair, preference, what, *systems))
    return Comparison(judgements, _position_bias(bias))


def _ask(
    judge: Any, pairs: list[tuple[Prompt, str, str]], questions: list[tuple[int, Order]]
) -> list[float]:
    """Preferences for the replies shown first."""
    shown = []
    for i, order in questions:
        prompt, a, b = pairs[i]
        shown.append((prompt, a, b) if order == "ab" else (prompt, b, a))
    where = f"prompt {questions[0][0]} ({as_text(shown[0][0])[:60]!r})"
    if len(questions) > 1:
        where += f" and the {len(questions) - 1} after it in one batch"
    try:
        if hasattr(judge, "batch"):
            prompts, firsts, seconds = map(list, zip(*shown, strict=True))
            answers = list(judge.batch(prompts, firsts, seconds))
        else:
            answers = [judge(*shown[0])]
    except Exception as error:
        raise RuntimeError(
            f"the judge failed on {where}: {error!r}; answers before it are kept if there is a "
            "log, so call again to go on"
        ) from error
    if len(answers) != len(questions):
        raise ValueError(f"the judge gave {len(answers)} answers on {where}; expected one each")
    for (i, _), answer in zip(questions, answers, strict=True):
        number = isinstance(answer, int | float | np.number | np.bool_)
        if not number or not 0.0 <= answer <= 1.0:
            raise ValueError(
                f"the judge answered {answer!r} on prompt {i} ({as_text(pairs[i][0])[:60]!r}); "
                "expected a number from 0 (the second is better) to 1 (the first is)"
            )
    return [float(answer) for answer in answers]


def _position_bias(firsts: list[list[float]]) -> PositionBias | None:
    if not firsts:
        return None
    twice = [pair for pair in firsts if len(pair) == 2]
    same = [np.sign(ab - 0.5) == np.sign(0.5 - ba) for ab, ba in twice]
    consistency = float(np.mean(same)) if same else math.nan
    return PositionBias(win_rate([sum(pair) / len(pair) for pair in firsts]), consistency)


def _keys(pairs: list[tuple[Prompt, str, str]], judge_name: str) -> list[str]:
    """Names of questions; one that comes again gets a name of its own."""
    seen: Counter[str] = Counter()
    keys = []
    for pair in pairs:
        key = _digest([judge_name, *pair])
        keys.append(_digest([key, seen[key]]))
        seen[key] += 1
    return keys


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]
