"""Verdicts of MT-Bench on pairs of models, as FastChat's judge writes them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cvxnn.preference.row_checks import check_integer, check_text, required_fields
from cvxnn.preference.row_files import read_rows

_FOR_FIRST = {"model_1": 1.0, "tie": 0.5, "model_2": 0.0}


@dataclass(frozen=True)
class MTBenchVerdict:
    """Verdict on the answers of two models to one turn, with either shown first once.

    Parameters
    ----------
    question_id : int
        Number of the question.
    model_1, model_2 : str
        Names of the models.
    turn : int
        1 for the first message of the user, 2 for the second.
    games : tuple of float
        Preference for `model_1` where it is shown first, and where it is shown second: 1, 0, or 0.5
        for a tie.
    """

    question_id: int
    model_1: str
    model_2: str
    turn: int
    games: tuple[float, float]

    @property
    def consistent(self) -> bool:
        """Whether both orders have the same winner."""
        return self.games[0] == self.games[1]

    def preference(self, model: str) -> float:
        """Return the preference for a model by FastChat's rule, as `win_rate` takes it.

        Parameters
        ----------
        model : str
            One of the two.

        Returns
        -------
        float
            1 if the model wins in both orders, 0 if the other one does, and 0.5 otherwise.

        Raises
        ------
        ValueError
            If the model is neither of the two.
        """
        if model not in (self.model_1, self.model_2):
            raise ValueError(f"model is {model!r}; expected {self.model_1!r} or {self.model_2!r}")
        first = self.games[0] if self.consistent else 0.5
        return first if model == self.model_1 else 1.0 - first


def read_mt_bench_verdicts(path: str | os.PathLike[str]) -> list[MTBenchVerdict]:
    """Read verdicts of FastChat's judge on pairs, ``model_judgment/<judge>_pair.jsonl``.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    list of MTBenchVerdict
        Verdicts in the order of the file; rows in which the judge gave none (``"error"``) in one of
        the orders are left out, as FastChat does.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If a row is malformed; the message names the file, the line and the field.

    Examples
    --------
    >>> from cvxnn.evaluation import read_mt_bench_verdicts, win_rate
    >>> verdicts = read_mt_bench_verdicts("gpt-4_pair.jsonl")  # doctest: +SKIP
    >>> ours = [v for v in verdicts if "ours" in (v.model_1, v.model_2)]  # doctest: +SKIP
    >>> print(win_rate([v.preference("ours") for v in ours]))  # doctest: +SKIP
    """
    names = ("question_id", "model_1", "model_2", "g1_winner", "g2_winner", "turn")
    found = []
    for where, row in read_rows(path):
        number, first, second, *winners, turn = required_fields(row, names, where)
        check_text(first, where, "model_1")
        check_text(second, where, "model_2")
        for name, winner in zip(names[3:5], winners, strict=True):
            if winner not in (*_FOR_FIRST, "error"):
                raise ValueError(
                    f"{where}: {name!r} is {winner!r:.40}; expected one of {list(_FOR_FIRST)}, or "
                    "'error'"
                )
        if "error" in winners:
            continue
        found.append(
            MTBenchVerdict(
                check_integer(number, where, "question_id"),
                first,
                second,
                check_integer(turn, where, "turn"),
                (_FOR_FIRST[winners[0]], _FOR_FIRST[winners[1]]),
            )
        )
    return found
