"""What a plan needs to know of a language model: sizes and numbers of tokens, and no weights.

Transformers takes about four seconds until it has read the header of a GGUF file. Files of the
usual architectures are therefore read without it, by ``gguf_outline.py``.
"""

from __future__ import annotations

import functools
import os

from cvxnn.llm.gguf_outline import outline_of_gguf
from cvxnn.llm.model_files import ModelFiles
from cvxnn.llm.model_shape import ModelOutline, shape_of


def model_outline(name_or_path: str | os.PathLike[str] | None = None) -> ModelOutline:
    """Read the outline of a language model.

    Parameters
    ----------
    name_or_path : str, path-like or None, default=None
        The model, as in `load_model`; its configuration and its tokenizer are read.

    Returns
    -------
    ModelOutline
        Sizes and counters of tokens.

    Raises
    ------
    ImportError
        If the package with the default model is missing, or the one that reads GGUF files.
    FileNotFoundError
        If a path does not exist, or a folder holds no model.
    OSError
        If the configuration cannot be fetched from the Hub.
    """
    return _outline(None if name_or_path is None else os.fspath(name_or_path))


@functools.lru_cache(maxsize=1)  # a plan asks for it several times
def _outline(name_or_path: str | None) -> ModelOutline:
    gguf = ModelFiles.find(name_or_path).gguf
    if gguf is not None:
        outline = outline_of_gguf(gguf)
        if outline is not None:
            return outline
    from cvxnn.llm.loading import load_outline  # imports transformers

    lm = load_outline(name_or_path)
    return ModelOutline(
        name=lm.name,
        shape=shape_of(lm, None),
        context_length=lm.context_length,
        count_prompts=lambda prompts: [len(row) for row in lm.encode_prompts(prompts)],
        count_responses=lambda texts: [len(row) for row in lm.encode_responses(texts)],
    )
