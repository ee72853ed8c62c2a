"""RewardBench: pairs, and the scores that a reward model gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._files import write_json
from cvxnn.evaluation.leaderboards._checks import PathLike, distinct, whole
from cvxnn.preference.rows import Row, check_text, read_rows, required, write_rows


@dataclass(frozen=True)
class RewardBenchRow:
    """A pair of RewardBench.

    Parameters
    ----------
    prompt, chosen, rejected : str
    subset : str
        Such as ``"alpacaeval-easy"``; accuracies are reported by subset.
    id : int
    chosen_model, rejected_model : str, default=""
        Who wrote the replies.
    """

    prompt: str
    chosen: str
    rejected: str
    subset: str
    id: int
    chosen_model: str = ""
    rejected_model: str = ""


def write_reward_bench(path: PathLike, rows: Iterable[RewardBenchRow]) -> None:
    """Write pairs as JSON lines (or Parquet, by the name) with RewardBench's columns.

    Raises
    ------
    ValueError
        If there are none, an id comes twice, or a prompt or a reply is empty.
    """
    table = [vars(row).copy() for row in rows]
    for number, row in enumerate(table):
        _reward_bench(row, f"row {number}")
    distinct([row["id"] for row in table], "id")
    write_rows(path, table)


def read_reward_bench(path: PathLike) -> list[RewardBenchRow]:
    """Read pairs that `write_reward_bench` wrote, or a download of RewardBench's data."""
    return [_reward_bench(row, where) for where, row in read_rows(path)]


def reward_bench_accuracies(
    rows: Sequence[RewardBenchRow], chosen: ArrayLike, rejected: ArrayLike
) -> dict[str, float]:
    """Accuracy of a reward model by subset, sorted by name.

    As in RewardBench, a tie is an error: the chosen reply must have the larger score.

    Parameters
    ----------
    rows : sequence of RewardBenchRow, length n
    chosen, rejected : array-like, shape (n,)
        Scores.
    """
    won, lost = (_scores(values, rows) for values in (chosen, rejected))
    subsets: dict[str, list[bool]] = {}
    for row, right in zip(rows, won > lost, strict=True):
        subsets.setdefault(row.subset, []).append(bool(right))
    return {name: float(np.mean(subsets[name])) for name in sorted(subsets)}


def write_reward_bench_scores(
    path: PathLike,
    rows: Sequence[RewardBenchRow],
    chosen: ArrayLike,
    rejected: ArrayLike,
    *,
    model: str,
    model_type: str = "Custom",
    chat_template: str = "none",
) -> None:
    """Write scores and results of each row: a JSON object of columns, as RewardBench keeps them.

    Parameters
    ----------
    path : path-like
        A JSON file.
    rows : sequence of RewardBenchRow, length n
    chosen, rejected : array-like, shape (n,)
        Scores.
    model, model_type, chat_template : str
        What was evaluated, and how its input was formatted.
    """
    won, lost = (_scores(values, rows) for values in (chosen, rejected))
    columns: Mapping[str, Any] = {
        "text_chosen": [f"{row.prompt}\n\n{row.chosen}" for row in rows],
        "text_rejected": [f"{row.prompt}\n\n{row.rejected}" for row in rows],
        "results": (won > lost).astype(int),
        "subset": [row.subset for row in rows],
        "id": [row.id for row in rows],
        "scores_chosen": won,
        "scores_rejected": lost,
        "model": model,
        "model_type": model_type,
        "chat_template": chat_template,
    }
    write_json(path, columns)


def _reward_bench(row: Row, where: str) -> RewardBenchRow:
    fields = ("prompt", "chosen", "rejected", "subset", "id")
    prompt, chosen, rejected, subset, number = required(row, fields, where)
    for field in fields[:-1]:
        check_text(row[field], where, field)
    winner, loser = (row.get(field) or "" for field in ("chosen_model", "rejected_model"))
    check_text(winner, where, "chosen_model", blank=True)
    check_text(loser, where, "rejected_model", blank=True)
    number = whole(number, where, "id")
    return RewardBenchRow(prompt, chosen, rejected, subset, number, winner, loser)


def _scores(values: ArrayLike, rows: Sequence[RewardBenchRow]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not rows or array.shape != (len(rows),) or not np.isfinite(array).all():
        raise ValueError(
            f"the scores have shape {array.shape} for {len(rows)} rows; expected one finite number "
            "for each row, and at least one row"
        )
    return array
