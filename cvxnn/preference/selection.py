"""Choice of the best of several replies to a prompt, by the rewards of one head or of several."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Verdict = Literal["chosen", "tied", "abstained", "only"]


@dataclass(frozen=True)
class BestReply:
    """The best of the replies to a prompt.

    Attributes
    ----------
    row : int
        Number of the reply: the best one, or the first of the prompt where there is no verdict for
        one.
    verdict : {"chosen", "tied", "abstained", "only"}
        ``"tied"`` if another text has the same value, ``"abstained"`` if the margin is too small,
        ``"only"`` if there is no other text.
    value : float
        Value of the reply in `row`.
    margin : float
        Value of the best text less that of the second best; infinite for a text alone.
    rows : tuple of int
        Numbers of all replies to the prompt.
    """

    row: int
    verdict: Verdict
    value: float
    margin: float
    rows: tuple[int, ...]


def best_replies(
    rewards: ArrayLike,
    prompts: Sequence[Hashable],
    responses: Sequence[str],
    *,
    least_margin: float = 0.0,
    deviations: ArrayLike | None = None,
    caution: float = 0.0,
) -> list[BestReply]:
    """Choose the best reply to each prompt.

    Parameters
    ----------
    rewards : array-like of shape (n_replies,) or (n_heads, n_replies)
        Rewards of the replies. With several heads the choice is pessimistic: the value of a reply
        is the lowest, over the heads, of its reward less the mean reward of the texts of its
        prompt. A reply that one head alone likes does not win.
    prompts : sequence of hashable, length n_replies
        Prompt of each reply, in any order; equal prompts belong together.
    responses : sequence of str, length n_replies
        Texts of the replies. Equal texts of a prompt count once.
    least_margin : float, default=0.0
        Margin below which there is no choice, at least 0, in units of the reward. The first reply
        of the prompt is kept then.
    deviations : array-like of shape (n_replies,), optional
        How little is known of each reply, at least 0, such as ``deviation_among`` of
        ``cvxnn.explanation.Curvature`` for the replies of each prompt.
    caution : float, default=0.0
        How many deviations every reward loses, at least 0: of replies with nearly the same reward,
        the one that is known better wins.

    Returns
    -------
    list of BestReply
        One for each prompt, in the order in which the prompts first occur.

    Raises
    ------
    ValueError
        If the lengths differ, a reward or deviation is not finite, a deviation, `least_margin` or
        `caution` is negative, or there is caution without deviations.

    Examples
    --------
    >>> from cvxnn.preference import best_replies
    >>> found = best_replies([0.1, 0.9, 0.4], ["q", "q", "other"], ["a", "b", "c"])
    >>> [(best.row, best.verdict) for best in found]
    [(1, 'chosen'), (2, 'only')]
    """
    table = np.atleast_2d(np.asarray(rewards, dtype=float))
    if table.ndim != 2 or not table.shape[1] == len(prompts) == len(responses):
        raise ValueError(
            f"rewards of shape {np.shape(rewards)}, {len(prompts)} prompts and {len(responses)} "
            "responses; expected one of each for each reply"
        )
    if not np.isfinite(table).all():
        raise ValueError("a reward is not finite; leave out its reply")
    if not least_margin >= 0:
        raise ValueError(f"least_margin is {least_margin!r}; expected at least 0")
    if not caution >= 0:
        raise ValueError(f"caution is {caution!r}; expected at least 0")
    if deviations is not None:
        spread = np.asarray(deviations, dtype=float)
        if spread.shape != table.shape[1:] or not np.all((spread >= 0) & np.isfinite(spread)):
            raise ValueError(
                f"deviations of shape {spread.shape} for {table.shape[1]} replies; expected a "
                "finite number that is not negative for each"
            )
        table = table - caution * spread
    elif caution > 0:
        raise ValueError("caution needs deviations; give those of the replies, or caution=0")
    texts: dict[Hashable, dict[str, list[int]]] = {}
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        texts.setdefault(prompt, {}).setdefault(response, []).append(i)
    return [_best(table, list(rows.values()), least_margin) for rows in texts.values()]


def _best(table: np.ndarray, texts: list[list[int]], least_margin: float) -> BestReply:
    first = [rows[0] for rows in texts]
    own = table[:, first]
    values = own[0] if len(own) == 1 else (own - own.mean(axis=1, keepdims=True)).min(axis=0)
    order = np.argsort(-values, kind="stable")
    best = int(order[0])
    margin = float(values[best] - values[order[1]]) if len(texts) > 1 else np.inf
    verdict: Verdict = "chosen"
    if len(texts) == 1:
        verdict = "only"
    elif margin == 0:
        verdict = "tied"
    elif margin < least_margin:
        verdict, best = "abstained", 0
    if verdict == "tied" and least_margin > 0:
        best = 0
    rows = tuple(sorted(i for same in texts for i in same))
    return BestReply(first[best], verdict, float(values[best]), margin, rows)
