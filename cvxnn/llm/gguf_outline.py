"""Outline of a language model from the header of its GGUF file, without transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jinja2
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from cvxnn.llm.chat_template import DATE, on_date
from cvxnn.llm.gguf_header import read_header, value
from cvxnn.llm.model_shape import ModelOutline, ModelShape
from cvxnn.preference.triplets import Prompt, as_messages

if TYPE_CHECKING:
    import gguf

_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_LINEAR = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_TABLES = ("token_embd.weight", "output.weight")
_NO_WEIGHTS = ("rope_freqs.weight",)  # the model computes them
_CONTROL, _ADDED = 3, 4  # types of tokens: those of templates, and words that stay whole
_WORDS_OF_GPT2 = (None, "default", "gpt-2", "smollm")  # names of its rule that parts words


def outline_of_gguf(file: Path) -> ModelOutline | None:
    """Read the outline of a GGUF file.

    Parameters
    ----------
    file : pathlib.Path
        The file.

    Returns
    -------
    ModelOutline or None
        The outline; None if the blocks, the vocabulary or the chat template are of a kind that only
        transformers knows.

    Raises
    ------
    ImportError
        If the package gguf is missing; the message has the command that installs it.
    """
    header = read_header(file)
    shape = _shape(header)
    if shape is None or value(header, "tokenizer.ggml.model") != "gpt2":
        return None
    try:
        texts = _Texts.read(header)
    except jinja2.TemplateError:
        return None
    return ModelOutline(
        name=file.stem,
        shape=shape,
        context_length=value(header, f"{value(header, 'general.architecture')}.context_length"),
        count_prompts=texts.count_prompts,
        count_responses=texts.count_responses,
        exact=value(header, "tokenizer.ggml.pre") in _WORDS_OF_GPT2,
    )


@dataclass(frozen=True)
class _Texts:
    """Tokenizer and chat template of a file.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer; it may part words unlike the model's own.
    template : jinja2.Template or None
        The chat template.
    variables : dict
        What the template takes beside the messages.
    n_first : int
        Number of tokens before a prompt that goes through no template.
    """

    tokenizer: tokenizers.Tokenizer
    template: jinja2.Template | None
    variables: dict[str, Any]
    n_first: int

    @classmethod
    def read(cls, header: gguf.GGUFReader) -> Self:
        """Make both from the header; a TemplateError says that the template is of another kind."""
        tokens = value(header, "tokenizer.ggml.tokens")
        text, dated = on_date(value(header, "tokenizer.chat_template", ""), DATE)
        variables: dict[str, Any] = dict(dated)
        for name in ("bos", "eos"):
            number = value(header, f"tokenizer.ggml.{name}_token_id")
            variables[f"{name}_token"] = "" if number is None else tokens[number]
        return cls(
            _tokenizer(header, tokens),
            _environment().from_string(text) if text else None,
            variables,
            int(value(header, "tokenizer.ggml.add_bos_token", False)),
        )

    def count_prompts(self, prompts: Sequence[Prompt]) -> list[int]:
        """Return the numbers of tokens of prompts, up to where the reply begins."""
        n_first = 0 if self.template else self.n_first
        return [len(self.tokenizer.encode(self._text(prompt)).ids) + n_first for prompt in prompts]

    def count_responses(self, texts: Sequence[str]) -> list[int]:
        """Return the numbers of tokens of replies."""
        return [len(row.ids) for row in self.tokenizer.encode_batch(list(texts))]

    def _text(self, prompt: Prompt) -> str:
        if self.template is None:
            if isinstance(prompt, str):
                return f"{prompt}\n"
            return "".join(f"{message['role']}: {message['content']}\n" for message in prompt)
        messages = as_messages(prompt)
        try:
            return self.template.render(
                messages=messages, add_generation_prompt=True, **self.variables
            )
        except jinja2.TemplateError as error:
            roles = [message["role"] for message in messages]
            raise ValueError(
                f"the chat template of the model rejects a prompt: {error} (its roles are {roles})"
            ) from error


def _shape(header: gguf.GGUFReader) -> ModelShape | None:
    """Return the sizes, if the model has the blocks of LLaMA."""
    kind = value(header, "general.architecture")
    sizes = {t.name: tuple(int(n) for n in t.shape) for t in header.tensors}
    blocks = {name: size for name, size in sizes.items() if name.startswith("blk.")}
    linear = {name: size for name, size in blocks.items() if len(size) > 1}
    kinds = {name.split(".")[2] for name in linear}
    if kind not in _ARCHITECTURES or kinds != set(_LINEAR) or "token_embd.weight" not in sizes:
        return None
    width, vocabulary = sizes["token_embd.weight"]  # in a GGUF file, inputs come first
    weights = {name: math.prod(n) for name, n in sizes.items() if name not in _NO_WEIGHTS}
    total = sum(weights.values())
    return ModelShape(
        n_parameters=total,
        n_decoder_parameters=total - sum(weights.get(name, 0) for name in _TABLES),
        n_layers=int(value(header, f"{kind}.block_count")),
        width=width,
        hidden=linear["blk.0.ffn_up.weight"][1],
        vocabulary=vocabulary,
        heads=int(value(header, f"{kind}.attention.head_count")),
        queries=linear["blk.0.attn_q.weight"][1],
        keys=linear["blk.0.attn_k.weight"][1],
        gated=True,
        adapted=tuple((outputs, inputs) for inputs, outputs in linear.values()),
    )


def _tokenizer(header: gguf.GGUFReader, tokens: list[str]) -> tokenizers.Tokenizer:
    kinds = value(header, "tokenizer.ggml.token_type", [])
    merges = [tuple(merge.split(" ")) for merge in value(header, "tokenizer.ggml.merges", [])]
    tokenizer = tokenizers.Tokenizer(BPE({token: k for k, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    whole = [
        tokenizers.AddedToken(token, normalized=False, special=kind == _CONTROL)
        for token, kind in zip(tokens, kinds, strict=False)
        if kind in (_CONTROL, _ADDED)
    ]
    tokenizer.add_tokens(whole)
    return tokenizer


def _environment() -> jinja2.Environment:
    """Return the environment in which transformers renders chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    return environment


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
