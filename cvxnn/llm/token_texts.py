"""Texts of tokens, in which no character is lost that is there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import transformers


def byte_tokens(tokenizer: transformers.PreTrainedTokenizerBase) -> dict[int, int]:
    """Return the tokens that stand for single bytes, as the tokenizers of Llama 2 and Gemma have.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer.

    Returns
    -------
    dict of int to int
        The byte of each such token, from 0 to 255; empty if the tokenizer has none.
    """
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = tokenizer.convert_tokens_to_ids(names)
    if None in tokens or tokenizer.convert_ids_to_tokens(tokens) != names:
        return {}
    if tokenizer.decode(tokens[65:66]) != "A":  # they are words with these names
        return {}
    return {token: byte for byte, token in enumerate(tokens)}


def text_of_tokens(
    tokenizer: transformers.PreTrainedTokenizerBase,
    tokens: Sequence[int],
    bytes_of: Mapping[int, int],
) -> str:
    r"""Return the text of tokens, without special tokens.

    Tokenizers decode a run of tokens that stand for bytes as a whole: one byte that is missing at
    its end turns every character of the run into U+FFFD. Here only the bytes that belong to no
    character become U+FFFD, so that the text of the first tokens begins the text of all, but for
    U+FFFD at its end.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer.
    tokens : sequence of int
        The tokens.
    bytes_of : mapping of int to int
        Tokens that stand for bytes, as `byte_tokens` gives them.

    Returns
    -------
    str
        The text.
    """
    if bytes_of:
        token_of = {byte: token for token, byte in bytes_of.items()}
        repaired: list[int] = []
        for is_run, run in itertools.groupby(tokens, key=bytes_of.__contains__):
            if is_run:
                text = bytes(map(bytes_of.__getitem__, run)).decode(errors="replace")
                repaired += map(token_of.__getitem__, text.encode())
            else:
                repaired += run
        tokens = repaired
    text = tokenizer.decode(
        list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return str(text)
