"""What identifies preference pairs, and the embeddings that were made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cvxnn.features import blocks
from cvxnn.features.blocks import digest_of_texts
from cvxnn.features.description import Description
from cvxnn.files.digests import digest
from cvxnn.preference.triplets import PreferenceTriplet, Prompt, as_messages


def digest_of_pairs(pairs: Sequence[PreferenceTriplet]) -> str:
    """Return the digest of all texts and groups, in order.

    Parameters
    ----------
    pairs : sequence of PreferenceTriplet
        The pairs. A prompt that is a string counts as one message of the user.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    return digest(
        *([as_messages(pair.prompt), pair.chosen, pair.rejected, pair.group] for pair in pairs)
    )


def extraction_settings(
    embedding: Description, pairs: Sequence[PreferenceTriplet]
) -> dict[str, Any]:
    """Return everything that a folder of features depends on.

    Parameters
    ----------
    embedding : Description
        Description of the embeddings: ``Embedder.description``.
    pairs : sequence of PreferenceTriplet
        The pairs.

    Returns
    -------
    dict
        The digest of the pairs, and the description.
    """
    return {"pairs": digest_of_pairs(pairs), "embedding": dict(embedding)}


def texts_of_rows(pairs: Sequence[PreferenceTriplet]) -> tuple[list[Prompt], list[str]]:
    """Return the prompt and the reply of each row of a folder of features.

    Parameters
    ----------
    pairs : sequence of PreferenceTriplet
        The pairs, which have two rows each, the chosen reply first.

    Returns
    -------
    prompts : list of (str or list of Message)
        What is replied to.
    responses : list of str
        The replies.
    """
    return (
        [pair.prompt for pair in pairs for _ in range(2)],
        [reply for pair in pairs for reply in (pair.chosen, pair.rejected)],
    )


def digests_of_blocks(pairs: Sequence[PreferenceTriplet]) -> list[str]:
    """Return the digest of the texts of each block of rows.

    Parameters
    ----------
    pairs : sequence of PreferenceTriplet
        The pairs of a folder of features.

    Returns
    -------
    list of str
        What the identities of the blocks begin with.
    """
    prompts, replies = texts_of_rows(pairs)
    starts = range(0, len(prompts), blocks.BLOCK)
    parts = [slice(start, start + blocks.BLOCK) for start in starts]
    return [digest_of_texts(prompts[part], replies[part]) for part in parts]
