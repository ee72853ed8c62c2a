"""Blocks of rows: what a writer of features computes at a time, and what it is known by.

A block depends on its texts alone: any process computes the same numbers, whatever else
it computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cvxnn._progress import Progress
from cvxnn.features.writer import FeatureWriter
from cvxnn.files.digests import digest
from cvxnn.preference.triplets import Prompt, as_messages

BLOCK = 256
"""Number of rows of a block; the last one of a file may have fewer."""


class TextBlock(NamedTuple):
    """Texts of a block that is to be computed.

    Attributes
    ----------
    prompts : list of (str or list of Message)
        What is replied to.
    responses : list of str
        The replies, one for each prompt.
    reserved : list of int or None
        Tokens to leave to each reply, where those of other blocks count.
    identity : str
        What `FeatureWriter.append` is to know the block by.
    """

    prompts: list[Prompt]
    responses: list[str]
    reserved: list[int] | None
    identity: str


def digest_of_texts(prompts: Sequence[Prompt], responses: Sequence[str]) -> str:
    """Return the digest of the texts of a block, with which its identity begins.

    Parameters
    ----------
    prompts : sequence of (str or list of Message)
        What is replied to; a text counts as one message of the user.
    responses : sequence of str
        The replies.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    texts = [[as_messages(prompt), text] for prompt, text in zip(prompts, responses, strict=True)]
    return digest(texts, digits=32)


def missing_blocks(
    file: FeatureWriter,
    prompts: Iterable[Prompt],
    responses: Iterable[str],
    bar: Progress,
    reserved: Sequence[int] | None = None,
) -> Iterator[TextBlock]:
    """Yield, in order, the blocks that no earlier writer finished; append each before the next.

    Parameters
    ----------
    file : FeatureWriter
        The file that is to have a row for each text.
    prompts : iterable of (str or list of Message)
        What is replied to.
    responses : iterable of str
        The replies, as many as there are prompts.
    bar : Progress
        Counts the rows that were finished before.
    reserved : sequence of int, optional
        Tokens to leave to each reply.

    Yields
    ------
    TextBlock
        The texts of a block.

    Raises
    ------
    ValueError
        If there are no texts, or prompts and responses differ in number; pass one response for
        each prompt.
    """
    missing = object()
    texts = itertools.zip_longest(prompts, responses, fillvalue=missing)
    while block := list(itertools.islice(texts, BLOCK)):
        if any(part is missing for part in block[-1]):
            raise ValueError("prompts and responses differ in number")
        start = file.n_rows
        room = None if reserved is None else list(reserved[start : start + len(block)])
        ours, replies = map(list, zip(*block, strict=True))
        identity = digest_of_texts(ours, replies) + digest(room, digits=32)
        earlier = [digest(block, digits=64), digest(block, room, digits=64)]
        if file.passes(identity, earlier):
            bar.update(len(block), skipped=True)
        else:
            yield TextBlock(ours, replies, room, identity)
    if file.n_rows == 0:
        raise ValueError("nothing to embed: expected at least one prompt and response")
