"""Judges, and the comparison of a system's replies with those of a baseline.

A judge is any callable ``judge(prompt, first, second) -> preference``: 1 if the first reply is
better, 0 if the second is, 0.5 for a tie, or a probability. A judge with a method ``batch(prompts,
firsts, seconds) -> preferences`` is asked several questions at once.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cvxnn._messages import counted
from cvxnn._progress import Progress
from cvxnn.evaluation.judge_log import JudgeLog, Order
from cvxnn.evaluation.win_rates import Judgement, WinRate, win_rate
from cvxnn.files.digests import digest
from cvxnn.preference.triplets import Prompt, as_text

Judge = Callable[[Prompt, str, str], float]
"""``judge(prompt, first, second)`` returns the preference for the first reply, in [0, 1]."""


class BatchJudge(Protocol):
    """Judge that answers several questions at once."""

    def batch(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]
    ) -> Sequence[float] | NDArray[np.float64]:
        """Return the preferences for the first replies.

        Parameters
        ----------
        prompts : sequence of Prompt, length n
            The prompts.
        firsts, seconds : sequence of str, length n
            The replies shown first and second.

        Returns
        -------
        sequence of float, length n
            Preferences for the first replies, each in [0, 1].
        """


@dataclass(frozen=True)
class PositionBias:
    """Advantage of the reply that the judge sees first.

    Attributes
    ----------
    first : WinRate
        Win rate of the reply that was shown first: 50 % if the judge has no bias.
    consistency : float
        Share of the questions asked in both orders whose answers name the same winner (or a tie)
        twice, in [0, 1]; NaN if no question was asked in both orders.
    """

    first: WinRate
    consistency: float


@dataclass(frozen=True)
class JudgedComparison:
    """Judgements of a system against a baseline.

    Attributes
    ----------
    judgements : list of Judgement
        Judgements in the order of the prompts; `output_a` is the reply of the system.
    position_bias : PositionBias or None
        Advantage of the reply shown first; None if all replies were equal, so that the judge was
        not asked.
    """

    judgements: list[Judgement] = field(repr=False)
    position_bias: PositionBias | None

    @property
    def preferences(self) -> NDArray[np.float64]:
        """Preferences for the system, shape (n,), as `win_rate` takes them."""
        return np.array([judgement.preference for judgement in self.judgements])

    @property
    def length_differences(self) -> NDArray[np.float64]:
        """Differences in length, in characters, shape (n,), for `length_controlled_win_rate`."""
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
) -> JudgedComparison:
    """Ask a judge which replies are better, in random order.

    Parameters
    ----------
    judge : callable or BatchJudge
        ``judge(prompt, first, second)`` returns the preference for the first reply, in [0, 1].
    prompts : sequence of Prompt, length n
        Prompts that the replies answer, at least one.
    outputs, baseline : sequence of str, length n
        Replies of the system and of the baseline. Equal replies are a tie, and the judge is not
        asked about them.
    both_orders : bool, default=False
        Ask each question in both orders and average the answers, which costs twice as much and
        removes the position bias.
    systems : (str, str), default=("system", "baseline")
        Names of the systems that wrote `outputs` and `baseline`, for the judgements. The judge does
        not see them.
    seed : int, default=0
        Seed of the order of presentation, which depends on the seed and the question only.
    log : path-like, optional
        JSON lines file to which each answer is appended. The judge is not asked again for answers
        that the file contains, so an interrupted run continues where it stopped. An incomplete last
        line is removed. Several comparisons may share one log; a second one at the same time, in
        another process, waits.
    judge_name : str, default=""
        Name that distinguishes the answers of different judges in one log.
    batch_size : int, default=32
        Number of questions at once, at least 1, for a judge with a method ``batch``.
    progress : bool, default=False
        Whether to say on stderr how many questions are answered, and how long the rest will take.

    Returns
    -------
    JudgedComparison
        Judgements in the order of the prompts, and the position bias of the judge.

    Raises
    ------
    ValueError
        If the lengths differ, there are no prompts, `batch_size` is below 1, the log is damaged or
        not a log, or an answer of the judge is not a number in [0, 1].
    RuntimeError
        If the judge fails; the message names the prompt. Earlier answers are in the log, so call
        again to continue.

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
            f"{counted(len(prompts), 'prompt')}, {counted(len(outputs), 'output')} and "
            f"{counted(len(baseline), 'baseline reply')}; expected equal numbers"
        )
    if not prompts:
        raise ValueError("there are no prompts; expected at least one")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    pairs = list(zip(prompts, outputs, baseline, strict=True))
    keys = _question_keys(pairs, judge_name)
    orders: list[tuple[Order, ...]] = []
    for key, (_, a, b) in zip(keys, pairs, strict=True):
        both: tuple[Order, ...] = ("ab", "ba")
        first = int(digest([seed, key]), 16) % 2
        orders.append(() if a == b else both if both_orders else (both[first],))
    with (
        JudgeLog(None if log is None else Path(log)) as answers,
        Progress("judging", sum(map(len, orders)), "questions", show=progress, done=0) as bar,
    ):
        open_questions = [
            (i, order)
            for i, key in enumerate(keys)
            for order in orders[i]
            if (key, order) not in answers.known
        ]
        bar.update(sum(map(len, orders)) - len(open_questions), skipped=True)
        size = batch_size if hasattr(judge, "batch") else 1
        for start in range(0, len(open_questions), size):
            chunk = open_questions[start : start + size]
            verdicts = _ask(judge, pairs, chunk)
            answers.add(
                [(keys[i], shown, p) for (i, shown), p in zip(chunk, verdicts, strict=True)]
            )
            bar.update(len(chunk))
    judgements = []
    bias: list[list[float]] = []
    for key, shown, pair in zip(keys, orders, pairs, strict=True):
        firsts = [answers.known[key, order] for order in shown]
        bias += [firsts] if firsts else []
        for_a = [p if order == "ab" else 1 - p for p, order in zip(firsts, shown, strict=True)]
        preference = sum(for_a) / len(for_a) if for_a else 0.5
        what = None if not shown else shown[0] if len(shown) == 1 else "both"
        judgements.append(Judgement(*pair, preference, what, *systems))
    return JudgedComparison(judgements, _position_bias(bias))


def _ask(
    judge: Any, pairs: list[tuple[Prompt, str, str]], questions: list[tuple[int, Order]]
) -> list[float]:
    """Return the preferences for the replies shown first."""
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
        outside = isinstance(error, OSError)  # a server that does not answer, say
        raise RuntimeError(
            f"the judge failed on {where}: {error if outside else repr(error)}; earlier answers "
            "are kept if there is a log, so call again to continue"
        ) from error
    if len(answers) != len(questions):
        raise ValueError(
            f"the judge gave {len(answers)} answers on {where}; expected one for each question"
        )
    for (i, _), answer in zip(questions, answers, strict=True):
        number = isinstance(answer, int | float | np.number | np.bool_)
        if not number or not 0.0 <= answer <= 1.0:
            raise ValueError(
                f"the judge answered {answer!r} on prompt {i} ({as_text(pairs[i][0])[:60]!r}); "
                "expected a number from 0 (the second reply is better) to 1 (the first is better)"
            )
    return [float(answer) for answer in answers]


def _position_bias(firsts: list[list[float]]) -> PositionBias | None:
    if not firsts:
        return None
    twice = [pair for pair in firsts if len(pair) == 2]
    same = [np.sign(ab - 0.5) == np.sign(0.5 - ba) for ab, ba in twice]
    consistency = float(np.mean(same)) if same else math.nan
    return PositionBias(win_rate([sum(pair) / len(pair) for pair in firsts]), consistency)


def _question_keys(pairs: list[tuple[Prompt, str, str]], judge_name: str) -> list[str]:
    """Return the key of each question; repeated questions have different keys."""
    seen: Counter[str] = Counter()
    keys = []
    for pair in pairs:
        key = digest([judge_name, *pair])
        keys.append(digest([key, seen[key]]))
        seen[key] += 1
    return keys
