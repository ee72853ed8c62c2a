"""Scores of a study: shares of the choices, their uncertainty, agreement of the participants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.evaluation.study_answers import Answers
from cvxnn.evaluation.study_key import StudyKey

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """Share of the choices that a system won.

    Attributes
    ----------
    rate : float
        The share, in [0, 1]; NaN without answers.
    interval : (float, float)
        Percentiles of a bootstrap over participants; (0, 1) for a single participant, from whom
        nothing follows about others.
    """

    rate: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class QuestionResult:
    """Shares of the choices in one question.

    Attributes
    ----------
    prompt : str
        First 80 characters of the prompt.
    data_set : str
        Data set of the question.
    n : int
        Number of answers.
    shares : dict of str to float
        Share of the choices by system, in [0, 1]; NaN without answers.
    """

    prompt: str
    data_set: str
    n: int
    shares: dict[str, float]


@dataclass(frozen=True)
class StudyResult:
    """Result of a study; ``print`` shows a Markdown table.

    Attributes
    ----------
    shares : dict of str to dict of str to Share
        Shares by data set, then by system: the transpose of Table 2 of COALA.
    kappa : dict of str to float
        Fleiss' kappa of the participants by data set: 1 is full agreement, 0 is agreement by
        chance. Questions on which systems gave equal replies are left out.
    letters : dict of str to float
        Share of the choices of each letter; the shares are about equal if position had no effect.
    questions : list of QuestionResult
        Results of the questions, in the order of the key.
    participants : tuple of str
        Names or codes of the participants.
    """

    shares: dict[str, dict[str, Share]]
    kappa: dict[str, float]
    letters: dict[str, float]
    questions: list[QuestionResult] = field(repr=False)
    participants: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        systems = list(next(iter(self.shares.values())))
        lines = [["", *systems, "kappa"], ["---"] * (len(systems) + 2)]
        for data_set, shares in self.shares.items():
            cells = [
                f"{share.rate:.1%} [{share.interval[0]:.1%}, {share.interval[1]:.1%}]"
                for share in shares.values()
            ]
            kappa = self.kappa[data_set]  # not defined for one participant
            lines.append([data_set, *cells, "–" if np.isnan(kappa) else f"{kappa:.2f}"])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def score_study(
    keys: StudyKey | Sequence[StudyKey],
    answers: Iterable[Answers],
    *,
    allow_incomplete: bool = False,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> StudyResult:
    """Score a study: compute the share of the choices that each system won.

    Parameters
    ----------
    keys : StudyKey or sequence of StudyKey
        Keys of all sheets of the study.
    answers : iterable of Answers
        Answers of each participant.
    allow_incomplete : bool, default=False
        True counts sheets with open questions too, in proportion to the questions that they answer.
    confidence : float, default=0.95
        Confidence level of the intervals, in (0, 1). The participants are taken as a sample, the
        questions as fixed. With fewer than about ten participants the intervals are too narrow.
    n_resamples : int, default=2000
        Number of bootstrap samples, at least 1.
    seed : int, default=0
        Seed of the bootstrap.

    Returns
    -------
    StudyResult
        Shares by data set and system, and the agreement of the participants.

    Raises
    ------
    ValueError
        If there are no answers, or if answers are incomplete, belong to another sheet, come twice
        from one person, or contain letters or questions that the sheet does not have; the message
        lists all such problems. Also if the keys belong to different studies.
    """
    if not 0.0 < confidence < 1.0 or n_resamples < 1:
        raise ValueError(
            f"confidence is {confidence!r} and n_resamples {n_resamples!r}; expected a number "
            "between 0 and 1, and at least 1"
        )
    by_sheet = _by_sheet([keys] if isinstance(keys, StudyKey) else list(keys))
    sheets = list(answers)
    _check_answers(sheets, by_sheet, allow_incomplete)
    first = next(iter(by_sheet.values()))
    systems, questions = first.systems, {row.question: row for row in first.questions}
    numbers = {name: i for i, name in enumerate(questions)}
    # votes[p, q, s] is the share of the vote of person p on question q that system s received.
    votes = np.zeros((len(sheets), len(questions), len(systems)))
    letters: Counter[str] = Counter()
    for person, sheet in enumerate(sheets):
        for row in by_sheet[sheet.sheet].questions:
            if row.id in sheet.choices:
                letter = sheet.choices[row.id]
                letters[letter] += 1
                winners = [systems.index(name) for name in row.options[letter]]
                votes[person, numbers[row.question], winners] = 1 / len(winners)
    rng = np.random.default_rng(seed)
    shares, kappa = {}, {}
    for data_set in dict.fromkeys(row.data_set for row in questions.values()):
        rows = [row for row in questions.values() if row.data_set == data_set]
        asked = [numbers[row.question] for row in rows]
        distinct = [numbers[r.question] for r in rows if len(r.options) == len(systems)]
        estimates = _bootstrap(votes[:, asked].sum(axis=1), confidence, n_resamples, rng)
        shares[data_set] = dict(zip(systems, estimates, strict=True))
        kappa[data_set] = fleiss_kappa(votes[:, distinct].sum(axis=0))
    results = []
    for row, count in zip(questions.values(), votes.sum(axis=0), strict=True):
        n = round(float(count.sum()))
        parts = (count / n if n else np.full(len(systems), math.nan)).tolist()
        by_system = dict(zip(systems, parts, strict=True))
        results.append(QuestionResult(row.prompt, row.data_set, n, by_system))
    return StudyResult(
        shares,
        kappa,
        {letter: letters[letter] / letters.total() for letter in sorted(letters)},
        results,
        tuple(sheet.participant for sheet in sheets),
    )


def fleiss_kappa(counts: ArrayLike) -> float:
    """Return the agreement of several raters beyond chance, for choices among categories.

    Parameters
    ----------
    counts : array-like, shape (n_items, n_categories)
        Number of raters that put an item into a category. The number of raters may differ between
        items; items with fewer than two raters are left out.

    Returns
    -------
    float
        1 if the raters always agree, 0 if they agree as often as by chance, below 0 if they agree
        less often. NaN if no item has two raters, or all choices are of one category.

    Raises
    ------
    ValueError
        If `counts` is not a matrix of finite numbers that are at least 0.

    Examples
    --------
    >>> fleiss_kappa([[3, 0], [0, 3]])
    1.0
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all() or (table < 0).any():
        raise ValueError(
            f"counts has shape {table.shape}; expected (n_items, n_categories), finite and not "
            "negative"
        )
    table = table[table.sum(axis=1) >= 2]
    if not table.size:
        return math.nan
    raters = table.sum(axis=1)
    agreement = float(np.mean((table * (table - 1)).sum(axis=1) / (raters * (raters - 1))))
    chance = float(np.sum((table.sum(axis=0) / table.sum()) ** 2))
    return (agreement - chance) / (1 - chance) if chance < 1 else math.nan


def _bootstrap(
    votes: Array, confidence: float, n_resamples: int, rng: np.random.Generator
) -> list[Share]:
    """Return shares from votes of shape (people, systems); people without votes do not count."""
    votes = votes[votes.sum(axis=1) > 0]
    n = len(votes)
    if n == 0:
        return [Share(math.nan, (0.0, 1.0))] * votes.shape[1]
    rates = votes.sum(axis=0) / votes.sum()
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) @ votes
    drawn /= drawn.sum(axis=1, keepdims=True)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return [
        Share(float(rate), (float(a), float(b)) if n > 1 else (0.0, 1.0))
        for rate, a, b in zip(rates, low, high, strict=True)
    ]


def _by_sheet(keys: list[StudyKey]) -> dict[str, StudyKey]:
    if not keys:
        raise ValueError("there are no keys; expected the key of each sheet")
    for key in keys:
        same = {row.question for row in key.questions} == {r.question for r in keys[0].questions}
        if not same or set(key.systems) != set(keys[0].systems):
            raise ValueError(
                f"the keys of the sheets {keys[0].sheet} and {key.sheet} belong to different "
                "studies; score each study separately"
            )
    return {key.sheet: key for key in keys}


def _check_answers(
    sheets: list[Answers], keys: dict[str, StudyKey], allow_incomplete: bool
) -> None:
    problems = []
    people: dict[str, str] = {}
    for sheet in sheets:
        name = sheet.source or sheet.participant
        person = " ".join(sheet.participant.split()).casefold()
        if person in people:
            problems.append(
                f"{name} is a second sheet of {sheet.participant!r} (the first: {people[person]})"
            )
        people.setdefault(person, name)
        if sheet.sheet not in keys:
            problems.append(
                f"{name} answers another sheet ({sheet.sheet}); expected {', '.join(keys)}"
            )
            continue
        options = {row.id: row.options for row in keys[sheet.sheet].questions}
        for question, letter in sheet.choices.items():
            if question not in options:
                problems.append(f"{name} answers {question!r}, which is not on its sheet")
            elif letter not in options[question]:
                problems.append(
                    f"{name} chose {letter!r} in {question}; expected one of "
                    f"{', '.join(options[question])}"
                )
        missing = [question for question in options if question not in sheet.choices]
        if missing and not allow_incomplete:
            problems.append(
                f"{name} has no answer to {', '.join(missing)} (pass allow_incomplete=True to "
                "count it)"
            )
    if not any(sheet.choices for sheet in sheets):
        problems.append("there are no answers; expected at least one")
    if problems:
        raise ValueError("cannot score the study:\n- " + "\n- ".join(problems))
