"""Pairs of prompt and reply as tokens, cut to a length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cvxnn._messages import counted, warn
from cvxnn.files.digests import digest
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item
from cvxnn.preference.triplets import Prompt

_BLOCK = 256  # replies that are tokens at a time


class Cut(NamedTuple):
    """Numbers of pairs, of pairs whose prompt was cut, and of those whose response was."""

    n_pairs: int = 0
    n_prompts: int = 0
    n_responses: int = 0


def check_pairs(prompts: Sequence[Prompt], responses: Sequence[str]) -> None:
    """Refuse prompts and responses that are not lists of one length, at least 1.

    Parameters
    ----------
    prompts, responses : sequence
        Prompt ``k`` and response ``k`` belong together.

    Raises
    ------
    ValueError
        If one of them is a string, their numbers differ, or there are none.
    """
    if isinstance(prompts, str) or isinstance(responses, str):
        raise ValueError("prompts and responses are lists with one entry a pair, not strings")
    if len(prompts) != len(responses):
        raise ValueError(
            f"{counted(len(prompts), 'prompt')} but {counted(len(responses), 'response')}; "
            "expected as many of each"
        )
    if not len(prompts):
        raise ValueError("there is no reply: expected at least one prompt and response")


def cut_pairs(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    limit: int,
    reserved: Sequence[int] | None = None,
) -> tuple[list[Item], Cut]:
    """Return the tokens of pairs, at most ``limit`` of each, and what was cut.

    A prompt loses its beginning, as much as its reply needs, or as ``reserved`` says.
    """
    encoded = lm.encode_prompts(prompts), lm.encode_responses(responses)
    if reserved is None:
        reserved = [len(reply) for reply in encoded[1]]
    rows, n_prompts, n_responses = [], 0, 0
    for prompt, reply, needed in zip(*encoded, reserved, strict=True):
        room = max(limit - needed, 0)
        n_prompts += len(prompt) > room
        n_responses += len(reply) > limit
        kept = prompt[len(prompt) - room :] if len(prompt) > room else prompt
        rows.append(Item(np.array(kept + reply[:limit], dtype=np.int64), len(kept)))
    return rows, Cut(len(rows), n_prompts, n_responses)


def longest_replies(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    rows: range | None = None,
) -> list[int]:
    """Return, for each pair in ``rows``, the number of tokens of the longest reply to its prompt.

    By default, ``rows`` are all pairs. The replies of the others count as well.
    """
    n = min(len(prompts), len(responses))
    keys = [digest(repr(prompt)) for prompt in prompts[:n]]
    asked = keys if rows is None else keys[rows.start : rows.stop]
    wanted = set(asked)
    places = [i for i, key in enumerate(keys) if key in wanted]
    longest: dict[str, int] = {}
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        try:
            replies = lm.encode_responses([responses[i] for i in block])
        except ValueError as error:
            raise ValueError(f"{error} (counted from pair {block[0]})") from error
        for i, reply in zip(block, replies, strict=True):
            longest[keys[i]] = max(longest.get(keys[i], 0), len(reply))
    return [longest[key] for key in asked]


def warn_of_cuts(cut: Cut, limit: int, max_length: int) -> None:
    """Warn the caller of the caller if pairs were cut."""
    if not cut.n_prompts and not cut.n_responses:
        return
    ends = (
        f"; {cut.n_responses} of them lost the end of the response too" if cut.n_responses else ""
    )
    warn(
        f"{cut.n_prompts} of {cut.n_pairs} replies have more than {limit} tokens with their "
        f"prompts, and lost the beginning of the prompt{ends}. "
        f"Increase max_length (now {max_length}) if the model and the memory allow it",
    )
