"""Files of Arena-Hard: its questions, and the verdicts of its judge."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cvxnn.preference.row_checks import check_text, required_fields
from cvxnn.preference.row_files import read_rows

VERDICTS = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0}
"""Preference for the first answer, by verdict. How clear a win is does not count."""


@dataclass(frozen=True)
class ArenaHardQuestion:
    """Question of Arena-Hard.

    Parameters
    ----------
    question_id : str
        Name of the question.
    prompt : str
        What the user asks.
    cluster : str, default=""
        Subject.
    """

    question_id: str
    prompt: str
    cluster: str = ""


@dataclass(frozen=True)
class ArenaHardVerdict:
    """Verdicts on one answer of a model against the baseline, in both orders.

    Parameters
    ----------
    question_id : str
        Name of the question.
    model : str
        Name of the model.
    games : tuple of float
        Preference for the model in each game, in [0, 1]; games without a verdict are left out.
    """

    question_id: str
    model: str
    games: tuple[float, ...]

    @property
    def preference(self) -> float:
        """Mean preference for the model, as `win_rate` takes it."""
        return sum(self.games) / len(self.games)

    @property
    def consistent(self) -> bool | None:
        """Whether both orders have the same winner; None if one of them has no verdict."""
        return self.games[0] == self.games[1] if len(self.games) == 2 else None


def read_arena_hard_questions(path: str | os.PathLike[str]) -> list[ArenaHardQuestion]:
    """Read ``question.jsonl`` of Arena-Hard, of version 0.1 (turns) or 2.0 (prompt).

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    list of ArenaHardQuestion
        Questions in the order of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `read_preferences`.
    """
    questions = []
    for where, row in read_rows(path):
        name, prompt = _name(row, where), row.get("prompt")
        if prompt is None:
            (turns,) = required_fields(row, ("turns",), where)
            if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], dict):
                raise ValueError(f"{where}: 'turns' is {turns!r:.40}; expected one message")
            prompt = turns[0].get("content")
        check_text(prompt, where, "prompt")
        assert isinstance(prompt, str)
        cluster = str(row.get("cluster") or row.get("subcategory") or row.get("category") or "")
        questions.append(ArenaHardQuestion(name, prompt, cluster))
    return questions


def read_arena_hard_judgements(path: str | os.PathLike[str]) -> list[ArenaHardVerdict]:
    """Read ``model_judgment/<judge>/<model>.jsonl`` of Arena-Hard.

    Parameters
    ----------
    path : path-like
        The file. In the first game the baseline is assistant A, in the second one the model is.

    Returns
    -------
    list of ArenaHardVerdict
        Verdicts in the order of the file; rows without any are left out.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If a row is malformed or has an unknown verdict; the message names the file and the line.
    """
    found = []
    for where, row in read_rows(path):
        model, games = required_fields(row, ("model", "games"), where)
        check_text(model, where, "model")
        if not isinstance(games, list) or not 1 <= len(games) <= 2:
            raise ValueError(f"{where}: 'games' is {games!r:.40}; expected one or two games")
        preferences = []
        for number, game in enumerate(games):
            score = game.get("score") if isinstance(game, dict) else None
            if score is None:
                continue
            if score not in VERDICTS:
                raise ValueError(
                    f"{where}: the score of a game is {score!r}; expected one of {list(VERDICTS)}"
                )
            preferences.append(VERDICTS[score] if number else 1 - VERDICTS[score])
        if preferences:
            found.append(ArenaHardVerdict(_name(row, where), model, tuple(preferences)))
    return found


def _name(row: dict[str, object], where: str) -> str:
    name = row.get("question_id", row.get("uid"))
    if not isinstance(name, str | int) or name == "":
        raise ValueError(f"{where}: expected 'question_id' or 'uid', the name of the question")
    return str(name)
