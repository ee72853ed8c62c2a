"""Files of RewardBench: pairs, and the scores that a reward model gives them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.files.json_files import as_json
from cvxnn.files.writing import write_text
from cvxnn.preference.row_checks import (
    Row,
    check_distinct,
    check_integer,
    check_text,
    required_fields,
)
from cvxnn.preference.row_files import read_rows, write_rows


@dataclass(frozen=True)
class RewardBenchRow:
    """Pair of RewardBench.

    Parameters
    ----------
    prompt : str
        Text that both replies answer.
    chosen, rejected : str
        The preferred and the other reply.
    subset : str
        Name of the subset, such as ``"alpacaeval-easy"``; accuracies are reported by subset.
    id : int
        Number of the pair.
    chosen_model, rejected_model : str, default=""
        Names of the models that wrote the replies.
    """

    prompt: str
    chosen: str
    rejected: str
    subset: str
    id: int
    chosen_model: str = ""
    rejected_model: str = ""


def write_reward_bench(path: str | os.PathLike[str], rows: Iterable[RewardBenchRow]) -> None:
    """Write pairs as JSON lines or Parquet, with the columns of RewardBench.

    All pairs are checked before the file is written.

    Parameters
    ----------
    path : path-like
        File to create or to replace: Parquet if the name ends in ``.parquet`` (needs pyarrow, the
        extra "data"), otherwise JSON lines, compressed if the name ends in ``.gz``.
    rows : iterable of RewardBenchRow
        Pairs with different numbers, at least one.

    Raises
    ------
    ImportError
        If pyarrow is needed and missing; install the extra "data".
    ValueError
        If there are no pairs, a number is repeated, or a prompt or a reply is empty.
    """
    table = [vars(row).copy() for row in rows]
    for number, row in enumerate(table):
        _checked_row(row, f"row {number}")
    check_distinct([row["id"] for row in table], "id")
    write_rows(path, table)


def read_reward_bench(path: str | os.PathLike[str]) -> list[RewardBenchRow]:
    """Read pairs that `write_reward_bench` wrote, or a download of RewardBench's data.

    Parameters
    ----------
    path : path-like
        JSON lines, a JSON array or Parquet.

    Returns
    -------
    list of RewardBenchRow
        Pairs in the order of the file.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As for `read_preferences`.
    """
    return [_checked_row(row, where) for where, row in read_rows(path)]


def reward_bench_accuracies(
    rows: Sequence[RewardBenchRow], chosen: ArrayLike, rejected: ArrayLike
) -> dict[str, float]:
    """Return the accuracy of a reward model on each subset.

    As in RewardBench, a tie is an error: the chosen reply must have the larger score.

    Parameters
    ----------
    rows : sequence of RewardBenchRow, length n
        The pairs, at least one.
    chosen, rejected : array-like, shape (n,)
        Scores of the chosen and of the rejected replies.

    Returns
    -------
    dict of str to float
        Accuracy, in [0, 1], by subset; sorted by name.

    Raises
    ------
    ValueError
        If there are no pairs, or the scores are not one finite number for each pair.
    """
    won, lost = (_checked_scores(values, rows) for values in (chosen, rejected))
    subsets: dict[str, list[bool]] = {}
    for row, right in zip(rows, won > lost, strict=True):
        subsets.setdefault(row.subset, []).append(bool(right))
    return {name: float(np.mean(subsets[name])) for name in sorted(subsets)}


def write_reward_bench_scores(
    path: str | os.PathLike[str],
    rows: Sequence[RewardBenchRow],
    chosen: ArrayLike,
    rejected: ArrayLike,
    *,
    model: str,
    model_type: str = "Custom",
    chat_template: str = "none",
) -> None:
    """Write the scores and the result of each pair as RewardBench does: a JSON object of columns.

    Parameters
    ----------
    path : path-like
        JSON file to create or to replace; it appears under its name only when it is complete.
    rows : sequence of RewardBenchRow, length n
        The pairs, at least one.
    chosen, rejected : array-like, shape (n,)
        Scores of the chosen and of the rejected replies.
    model : str
        Name of the evaluated model.
    model_type : str, default="Custom"
        Kind of the model, such as ``"Seq. Classifier"``.
    chat_template : str, default="none"
        Name of the template with which the input of the model was formatted.

    Raises
    ------
    ValueError
        If there are no pairs, or the scores are not one finite number for each pair.
    """
    won, lost = (_checked_scores(values, rows) for values in (chosen, rejected))
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
    write_text(path, as_json(columns, indent=1) + "\n")


def _checked_row(row: Row, where: str) -> RewardBenchRow:
    fields = ("prompt", "chosen", "rejected", "subset", "id")
    prompt, chosen, rejected, subset, number = required_fields(row, fields, where)
    for field in fields[:-1]:
        check_text(row[field], where, field)
    winner, loser = (row.get(field) or "" for field in ("chosen_model", "rejected_model"))
    check_text(winner, where, "chosen_model", blank=True)
    check_text(loser, where, "rejected_model", blank=True)
    number = check_integer(number, where, "id")
    return RewardBenchRow(prompt, chosen, rejected, subset, number, winner, loser)


def _checked_scores(values: ArrayLike, rows: Sequence[RewardBenchRow]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not rows or array.shape != (len(rows),) or not np.isfinite(array).all():
        raise ValueError(
            f"the scores have shape {array.shape} for {len(rows)} rows; expected one finite number "
            "for each row, and at least one row"
        )
    return array
