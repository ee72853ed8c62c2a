"""What a plan needs to know of a language model: sizes and numbers of tokens, and no weights.

Transformers takes about four seconds until it has read the header of a GGUF file. Files of the
usual architectures are therefore read without it, by ``gguf_outline.py``. Sizes of named models are
known, so that a plan for one fetches nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

from cvxnn.features.named_models import NamedModel, named_model
from cvxnn.llm.gguf_outline import outline_of_gguf
from cvxnn.llm.model_files import ModelFiles
from cvxnn.llm.model_shape import ModelOutline, shape_of
from cvxnn.preference.triplets import Prompt, as_messages

_BYTES = 4  # of English text, about as many as a token has


def model_outline(name_or_path: str | os.PathLike[str] | None = None) -> ModelOutline:
    """Read the outline of a language model.

    Parameters
    ----------
    name_or_path : str, path-like or None, default=None
        The model, as in `load_model`; its configuration and its tokenizer are read. Those of a
        named model are not fetched: where they are not on this machine, its sizes are known, and
        its tokens are estimated.

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
    source, gguf = ModelFiles.find(name_or_path)
    if gguf is not None:
        outline = outline_of_gguf(gguf)
        if outline is not None:
            return outline
    from cvxnn.llm.loading import load_outline  # imports transformers

    known = None if os.path.isdir(source) else named_model(source)
    try:
        lm = load_outline(name_or_path, local=known is not None)
    except OSError:
        if known is None:
            raise
        return _of_named(known)
    return ModelOutline(
        name=lm.name,
        shape=shape_of(lm, None),
        context_length=lm.context_length,
        count_prompts=lambda prompts: [len(row) for row in lm.encode_prompts(prompts)],
        count_responses=lambda texts: [len(row) for row in lm.encode_responses(texts)],
    )


def _of_named(model: NamedModel) -> ModelOutline:
    """Return the outline of a named model whose files are not on this machine."""
    import transformers

    config = transformers.AutoConfig.for_model(**model.config)
    return ModelOutline(
        name=model.hub,
        shape=shape_of(config, None),
        context_length=config.max_position_embeddings,
        count_prompts=_about_prompts,
        count_responses=_about,
        exact=False,
        note=f"{model.hub} is not on this machine: its sizes are known, and a token is taken for "
        f"{_BYTES} bytes of text",
    )


def _about(texts: Sequence[str]) -> list[int]:
    return [max(1, round(len(text.encode()) / _BYTES)) for text in texts]


def _about_prompts(prompts: Sequence[Prompt]) -> list[int]:
    messages = [as_messages(prompt) for prompt in prompts]
    return _about(["\n".join(m["content"] for m in conversation) for conversation in messages])
