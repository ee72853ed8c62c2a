"""Demonstrations: prompts with the reply to give, and sets of candidates that are made of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.preference.row_checks import Row, check_text, parse_messages, required_fields
from cvxnn.preference.row_files import read_rows
from cvxnn.preference.triplets import Prompt, prompt_key
from cvxnn.preference.unused_rows import UnusedRows

_REPLIES = ("response", "completion")


class Demonstration(NamedTuple):
    """Prompt and the reply to give.

    Parameters
    ----------
    prompt : str or list of Message
        What is asked.
    response : str
        The reply.
    """

    prompt: Prompt
    response: str


class CandidateReplies(NamedTuple):
    """Candidate replies to prompts, one of them wanted for each prompt.

    Parameters
    ----------
    prompts : list of (str or list of Message)
        Prompt of each candidate.
    responses : list of str
        The candidates.
    wanted : ndarray of bool, shape (n_candidates,)
        True for the reply of the demonstration.
    groups : ndarray of int, shape (n_candidates,)
        Number of the demonstration that a candidate belongs to.
    """

    prompts: list[Prompt]
    responses: list[str]
    wanted: NDArray[np.bool_]
    groups: NDArray[np.intp]


def read_demonstrations(
    path: str | os.PathLike[str], limit: int | None = None
) -> list[Demonstration]:
    """Read demonstrations for supervised fine-tuning.

    Parameters
    ----------
    path : path-like
        Rows with ``prompt`` and ``response`` (or ``completion``), or with ``messages`` whose last
        turn is the assistant's; in a file as for `read_preferences`.
    limit : int, optional
        Number of rows to read, at least 1; by default all.

    Returns
    -------
    list of Demonstration
        In the order of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `read_preferences`.

    Warns
    -----
    UserWarning
        If rows have an empty text, or messages that do not end in a reply of the assistant. Such
        rows are common in real data sets; they are left out and counted.
    """
    found: list[Demonstration] = []
    unused = UnusedRows(os.fspath(path), "holds a demonstration", "hold no demonstration")
    for where, row in read_rows(path, limit):
        with unused.empty_texts(where):
            each = _demonstration(row, where)
            if each.response:
                found.append(each)
            else:
                unused.add("messages that do not end in a reply of the assistant", where)
    unused.report(len(found))
    return found


def _demonstration(row: Row, where: str) -> Demonstration:
    """Return the demonstration of a row; without a reply if its messages do not end in one."""
    if "messages" in row:
        turns = parse_messages(row["messages"], where, "messages")
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            return Demonstration(turns, "")
        return Demonstration(turns[:-1], turns[-1]["content"])
    name = next((name for name in _REPLIES if name in row), _REPLIES[0])
    asked, response = required_fields(row, ["prompt", name], where)
    check_text(response, where, name)
    if isinstance(asked, list):
        return Demonstration(parse_messages(asked, where, "prompt"), response)
    check_text(asked, where, "prompt")
    return Demonstration(asked, response)


def candidate_replies(
    demonstrations: Sequence[Demonstration], n_candidates: int = 4, seed: int = 0
) -> CandidateReplies:
    """Put the reply of each demonstration among replies to other prompts.

    A softmax policy chooses among candidates; a demonstration alone leaves it no choice.

    Parameters
    ----------
    demonstrations : sequence of Demonstration
        At least two, with different replies.
    n_candidates : int, default=4
        Largest number of candidates of a prompt, at least 2, the wanted one included. The others
        are drawn among different replies to other prompts, as far as there are so many.
    seed : int, default=0
        Seed of the draw.

    Returns
    -------
    CandidateReplies
        The candidates of one prompt after the other, the wanted one first.

    Raises
    ------
    ValueError
        If `n_candidates` is below 2, or a prompt has no other reply to be compared with.
    """
    if n_candidates < 2:
        raise ValueError(f"n_candidates={n_candidates!r}; expected an integer of at least 2")
    rng = np.random.default_rng(seed)
    keys = [prompt_key(each.prompt) for each in demonstrations]
    own: dict[str, set[str]] = {}
    for key, each in zip(keys, demonstrations, strict=True):
        own.setdefault(key, set()).add(each.response)
    pool = np.array(list(dict.fromkeys(each.response for each in demonstrations)), object)
    prompts: list[Prompt] = []
    responses: list[str] = []
    wanted: list[bool] = []
    groups: list[int] = []
    for k, (key, each) in enumerate(zip(keys, demonstrations, strict=True)):
        drawn = rng.permutation(len(pool))[: n_candidates - 1 + len(own[key])]
        others = [text for text in pool[drawn] if text not in own[key]][: n_candidates - 1]
        if not others:
            raise ValueError(
                f"demonstration {k} has no reply to be compared with; expected other prompts with "
                "other replies"
            )
        prompts += [each.prompt] * (1 + len(others))
        responses += [each.response, *others]
        wanted += [True] + [False] * len(others)
        groups += [k] * (1 + len(others))
    return CandidateReplies(prompts, responses, np.array(wanted), np.array(groups))
