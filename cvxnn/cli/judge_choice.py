"""The judge that ``cvxnn evaluate`` is given: a server, a head, words, or numbers of the file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from cvxnn._messages import counted
from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, reward_head
from cvxnn.cli.option_building import UsageError
from cvxnn.cli.option_types import nearest
from cvxnn.files.digests import digest, digest_of_file
from cvxnn.files.json_files import as_json
from cvxnn.files.writing import read_text

FIELD = "field:"
_WORDS = "words:"


class ChosenJudge(NamedTuple):
    """Judge, its name in results, and what its answers depend on.

    Parameters
    ----------
    asks : callable
        ``asks(options, console)`` loads the judge.
    name : str
        What it is called in results.
    identity : str
        Everything that its answers depend on.
    warning : str, default=""
        Why its answers say little; empty if they may be trusted.
    """

    asks: Any
    name: str
    identity: str
    warning: str = ""


def is_server(judge: str) -> bool:
    """Return whether a judge is the address of a server.

    Parameters
    ----------
    judge : str
        What was given.

    Returns
    -------
    bool
        Whether it begins as an address does.
    """
    return judge.startswith(("http://", "https://"))


def check_judge(judge: str) -> None:
    """Refuse a judge that is none of the kinds that there are, before any work.

    Parameters
    ----------
    judge : str
        What was given.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    source = judge.removeprefix(_WORDS)
    if is_server(judge) or judge.startswith(FIELD) or (source != judge):
        return
    if not Path(judge).is_file():
        raise FileNotFoundError(
            f"no such judge: {judge}; expected the file of a head, field:NAME, words:PAIRS, or an "
            "address that begins with http://"
        )


def choose_judge(
    options: argparse.Namespace, rows: list[dict[str, Any]], protocol: str | None
) -> ChosenJudge:
    """Return the judge that the options name.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments of ``cvxnn evaluate``.
    rows : list of dict
        Prompts with ``replies``.
    protocol : str or None
        Benchmark whose question a server is asked.

    Returns
    -------
    ChosenJudge
        The judge.

    Raises
    ------
    UsageError
        If options are for another kind of judge.
    FileNotFoundError
        If there is no such judge.
    ValueError
        If the replies lack a number.
    """
    from cvxnn.evaluation.endpoint_judge import TEMPLATE, EndpointJudge
    from cvxnn.evaluation.protocols import PAIR_TEMPLATES
    from cvxnn.evaluation.reward_model_judge import RewardModelJudge

    judge = options.judge
    if is_server(judge):
        template = PAIR_TEMPLATES.get(protocol or "", TEMPLATE)
        if options.template is not None:
            template = read_text(options.template)
        asks = EndpointJudge(
            judge,
            options.judge_model,
            template=template,
            token_budget=options.token_budget,
            n_requests=options.n_requests,
        )
        name = f"{options.judge_model} at {judge}"
        asked = f"{protocol or 'template'} {digest(template)}"
        return ChosenJudge(lambda *_: asks, name, f"{name}, {asked}")
    for name in ("judge_model", "template", "token_budget"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for a server as the judge")
    if judge.startswith(FIELD):
        known = _field(rows, judge.removeprefix(FIELD), options.replies)
        return ChosenJudge(lambda *_: RewardModelJudge(known), judge, judge)
    if judge.startswith(_WORDS):
        return _of_words(judge.removeprefix(_WORDS))
    check_judge(judge)

    def of_head(options: argparse.Namespace, console: Console) -> RewardModelJudge:
        head = reward_head(judge)
        return RewardModelJudge(head, features=embedder_of(options, console, head).embed)

    return ChosenJudge(of_head, f"head {Path(judge).name}", digest_of_file(judge))


def _of_words(source: str) -> ChosenJudge:
    """Return the model of words that is fitted to some pairs, with its share of right answers."""
    from cvxnn.datasets.sources import read_pairs
    from cvxnn.evaluation.reward_model_judge import text_judge, text_judge_accuracy
    from cvxnn.evaluation.win_rates import wilson_interval
    from cvxnn.features.pair_digests import digest_of_pairs

    pairs = read_pairs(source)
    right = text_judge_accuracy(pairs)
    low, high = wilson_interval(right, len(pairs))
    name = (
        f"words of {counted(len(pairs), 'pair')} of {Path(source).name}, {right:.1%} right on "
        "those of them that it has not seen"
    )
    warning = ""
    if low <= 0.5:
        warning = (
            f"the judge of words is right about {right:.1%} [{low:.1%}, {high:.1%}] of the pairs "
            "that it has not seen, which guessing explains, so its win rates say little; fit it to "
            "more pairs, or take a head that had no part in the replies, or a server"
        )
    identity = f"words {digest_of_pairs(pairs)}"
    return ChosenJudge(lambda *_: text_judge(pairs), name, identity, warning)


def _field(rows: list[dict[str, Any]], name: str, path: str) -> Any:
    """Return the scores that a field of the replies has, as a function of prompts and texts."""
    scores: dict[tuple[str, str], float] = {}
    for k, row in enumerate(rows):
        for way, reply in row["replies"].items():
            value = reply.get(name) if isinstance(reply, dict) else None
            if not _is_number(value):
                fields = reply if isinstance(reply, dict) else {}
                numbers = sorted(field for field in fields if _is_number(fields[field]))
                known = f"it has {', '.join(numbers)}" if numbers else "it has no number"
                raise ValueError(
                    f"{path}: prompt {k + 1}, reply {way!r} has no number {name!r}; {known}"
                    f"{nearest(name, numbers)}"
                )
            scores[as_json(row["prompt"]), reply["text"]] = float(value)

    def known_scores(prompts: list[Any], texts: list[str]) -> list[float]:
        return [scores[as_json(p), text] for p, text in zip(prompts, texts, strict=True)]

    return known_scores


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
