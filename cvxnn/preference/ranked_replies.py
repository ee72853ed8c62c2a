"""Preference pairs from sampled replies that a reward model ranks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cvxnn._messages import counted
from cvxnn.files.locks import locked
from cvxnn.files.writing import append
from cvxnn.preference.row_files import rows_so_far
from cvxnn.preference.triplets import Prompt, prompt_key


@dataclass(frozen=True)
class RankingCounts:
    """What the ranking of sampled replies gave.

    Attributes
    ----------
    pairs : int
        Number of pairs.
    without : int
        Number of prompts whose replies are all alike to the reward model, or equal.
    mean_margin : float
        Mean difference of the rewards of a pair; NaN without pairs.
    longer : float
        Share of pairs whose chosen reply is the longer one, a tie counting half; NaN without pairs.
        Near 1 or 0 the reward model has ranked lengths.
    """

    pairs: int
    without: int
    mean_margin: float
    longer: float

    def __str__(self) -> str:
        """Return the counts as one sentence."""
        return (
            f"{counted(self.pairs, 'pair')}, {counted(self.without, 'prompt')} without one; mean "
            f"margin {self.mean_margin:.3g}; the longer reply is chosen in {self.longer:.0%}"
        )


def rank_sampled_replies(
    prompts: Sequence[Prompt],
    sample: Callable[[Prompt, int, int], Sequence[str]],
    reward: Callable[[Prompt, Sequence[str]], ArrayLike],
    path: str | os.PathLike[str],
    *,
    n: int = 5,
    least_margin: float = 0.0,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> RankingCounts:
    """Sample replies to each prompt, and write the best and the worst one as a pair.

    This is how preference data are usually made, and what the COALA paper compares Alternating
    Population with (appendix E.2). A call that was interrupted continues.

    Parameters
    ----------
    prompts : sequence of Prompt
        Prompts; one that occurs again is left out.
    sample : callable
        ``sample(prompt, n, seed)`` returns ``n`` replies, as `cvxnn.llm.generate_candidates` does.
    reward : callable
        ``reward(prompt, replies)`` returns a number for each reply, the larger the better.
    path : path-like
        File of JSON lines with ``prompt``, ``chosen``, ``rejected`` and ``rewards``, which
        `read_preferences` reads; a prompt without a pair has a line in ``PATH.none.jsonl``.
    n : int, default=5
        Number of replies to a prompt, at least 2.
    least_margin : float, default=0
        A pair needs a larger difference of rewards, at least 0.
    seed : int, default=0
        Seed of the samples; those of a prompt follow from it and the prompt alone.
    say : callable, optional
        Function that receives a line of text after each prompt.

    Returns
    -------
    RankingCounts
        What came of all prompts.

    Raises
    ------
    ValueError
        If a number is out of range, or there is not one reward for each reply.
    """
    if n < 2 or not least_margin >= 0:
        raise ValueError(
            f"n is {n} and least_margin {least_margin}; expected at least 2 replies and no "
            "negative margin"
        )
    file = Path(path)
    nothing = file.with_name(f"{file.name}.none.jsonl")
    settings = {"n": n, "least_margin": least_margin, "seed": seed}
    with locked(file):
        rows, without = (rows_so_far(each, "key", settings) for each in (file, nothing))
        for prompt in prompts:
            key = prompt_key(prompt)
            if key in rows or key in without:
                continue
            drawn = int(np.random.default_rng([seed, int(key, 16)]).integers(2**31))
            replies = list(dict.fromkeys(r for r in sample(prompt, n, drawn) if r.strip()))
            row: dict[str, Any] = {"key": key, **settings}
            if len(replies) > 1:
                rewards = np.asarray(reward(prompt, replies), float)
                if rewards.shape != (len(replies),):
                    raise ValueError(
                        f"the reward model gave an array of shape {rewards.shape} for "
                        f"{len(replies)} replies; expected one number for each"
                    )
                best, worst = int(np.argmax(rewards)), int(np.argmin(rewards))
                if rewards[best] - rewards[worst] > least_margin:
                    row |= {"prompt": prompt, "chosen": replies[best], "rejected": replies[worst]}
                    row["rewards"] = [float(rewards[best]), float(rewards[worst])]
            found = "chosen" in row
            (rows if found else without)[key] = row
            line = json.dumps(row, ensure_ascii=False) + "\n"
            append(file if found else nothing, line.encode())
            if say is not None:
                say(f"{counted(len(rows), 'pair')}, {counted(len(without), 'prompt')} without one")
    margins = [row["rewards"][0] - row["rewards"][1] for row in rows.values()]
    lengths = [np.sign(len(row["chosen"]) - len(row["rejected"])) for row in rows.values()]
    return RankingCounts(
        len(rows),
        len(without),
        float(np.mean(margins)) if margins else float("nan"),
        float(np.mean(lengths)) / 2 + 0.5 if lengths else float("nan"),
    )
