"""Tokens, seconds and bytes that embedding will take, before any weights are loaded."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cvxnn.features.description import Layers
from cvxnn.llm.devices import dtype_name
from cvxnn.llm.layer_numbers import layer_numbers
from cvxnn.llm.model_files import ModelFiles, copy_of_gguf
from cvxnn.llm.model_outline import model_outline
from cvxnn.preference.triplets import PreferenceTriplet, Prompt

if TYPE_CHECKING:
    from cvxnn.llm.fine_tuning.config import FineTuningConfig

_SAMPLE = 500  # pairs whose tokens are counted; those of more are extrapolated
_SECONDS = 0.3  # of products that measure the speed
_MANY, _WEIGHTS = 64, 2**24  # rows that are many; weights that are read for few of them
_EFFICIENCY = 0.6  # of these products that a whole model reaches
_STARTING = 2.0  # processor seconds of a core of 2020 until the code of a model is imported
_CONVERSION = 2e-8  # such seconds for each weight of a GGUF file
_READING = 1e9  # bytes of weights that a disk gives in a second


@dataclass(frozen=True)
class EmbeddingWorkload:
    """What the embedding of preference pairs takes.

    Attributes
    ----------
    tokens : int
        Number of tokens of prompts and replies, where the prompt of a pair counts once.
    tokens_apart : int
        Number of tokens if the model cannot share the prompt of a pair.
    cut : int
        Number of pairs of which a reply with its prompt is longer than `max_length`.
    width : int
        Length of a hidden state.
    flops : float
        Floating-point operations for `tokens`.
    disk : int
        Bytes of the embeddings on disk.
    exact : bool
        Whether all tokens were counted as the model counts them; otherwise the numbers are
        extrapolated from 500 pairs, or the outline of the model is not exact.
    """

    tokens: int
    tokens_apart: int
    cut: int
    width: int
    flops: float
    disk: int
    exact: bool


def embedding_workload(
    name_or_path: str | os.PathLike[str] | None,
    pairs: Sequence[PreferenceTriplet],
    *,
    layer: Layers = -1,
    max_length: int = 1024,
    context: bool = False,
) -> EmbeddingWorkload:
    """Count what the embedding of preference pairs takes, without weights.

    Parameters
    ----------
    name_or_path : str, path-like or None
        The model, as in `load_model`; its configuration and its tokenizer are read.
    pairs : sequence of PreferenceTriplet
        The pairs, at least one.
    layer : int, sequence of int or "all", default=-1
        Layers of the hidden states, as in `Embedder`.
    max_length : int, default=1024
        Largest number of tokens of prompt and reply together.
    context : bool, default=False
        Whether an embedding has that of the prompt behind that of the reply.

    Returns
    -------
    EmbeddingWorkload
        Tokens, operations and bytes.
    """
    outline = model_outline(name_or_path)
    shape = outline.shape
    limit = min(max_length, outline.context_length or max_length)
    step = max(len(pairs) / _SAMPLE, 1.0)
    sample = [pairs[int(k * step)] for k in range(min(len(pairs), _SAMPLE))]
    prompts = outline.count_prompts([pair.prompt for pair in sample])
    chosen = outline.count_responses([pair.chosen for pair in sample])
    rejected = outline.count_responses([pair.rejected for pair in sample])
    together = apart = cut = 0
    for prompt, one, other in zip(prompts, chosen, rejected, strict=True):
        kept = min(prompt, max(limit - max(one, other), 0))  # both replies follow the same tokens
        both = min(one, limit) + min(other, limit)
        cut += prompt + max(one, other) > limit
        apart += both + 2 * kept
        together += both + kept
    scale = len(pairs) / len(sample)
    indices = layer_numbers(layer, shape.n_layers, outline.name)
    return EmbeddingWorkload(
        tokens=round(scale * together),
        tokens_apart=round(scale * apart),
        cut=round(scale * cut),
        width=shape.width,
        flops=2.0 * shape.n_decoder_parameters * max(indices) / shape.n_layers * scale * together,
        disk=2 * len(pairs) * len(indices) * shape.width * (1 + context) * 4,
        exact=outline.exact and len(sample) == len(pairs),
    )


def fine_tuning_flops(
    name_or_path: str | os.PathLike[str] | None,
    train: Sequence[PreferenceTriplet],
    test: Sequence[PreferenceTriplet],
    config: FineTuningConfig,
) -> float:
    """Count the operations of fine-tuning on pairs and of its evaluations, without weights.

    Parameters
    ----------
    name_or_path : str, path-like or None
        The model, as in `load_model`; its configuration and its tokenizer are read.
    train : sequence of PreferenceTriplet
        Training pairs, at least one.
    test : sequence of PreferenceTriplet
        Held-out pairs, evaluated before, during and after the training.
    config : FineTuningConfig
        Objective and settings.

    Returns
    -------
    float
        Floating-point operations: 2 for each weight and token that is read, 4 where a gradient is
        computed (weights are frozen but for those of the adapters), 6 with gradient checkpointing.
    """
    shape = model_outline(name_or_path).shape
    learnt, seen = (
        embedding_workload(name_or_path, part, max_length=config.max_length)
        for part in (train, test)
    )
    # The output layer runs too.
    weights = shape.n_decoder_parameters + shape.vocabulary * shape.width
    steps = config.n_steps(len(train), 0)
    share = 0.5 if config.objective == "sft" else 1.0  # the preferred reply alone
    trained = steps * config.batch_size / len(train) * learnt.tokens_apart * share
    passes = 2 + -(-steps // config.evaluate_every)  # evaluations, and the rewards at the end
    read = passes * seen.tokens_apart
    if config.method.needs_reference:
        read += learnt.tokens_apart + 2 * seen.tokens_apart
    return 2.0 * weights * ((3 if config.gradient_checkpointing else 2) * trained + read)


def writing_seconds(
    name_or_path: str | os.PathLike[str] | None,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    ways: Sequence[int],
    *,
    dtype: torch.dtype,
    device: str,
) -> float:
    """Estimate how long replies to prompts take on this machine, now, without weights.

    Parameters
    ----------
    name_or_path : str, path-like or None
        The model, as in `load_model`; its configuration and its tokenizer are read.
    prompts : sequence of (str or list of Message)
        What is replied to.
    max_new_tokens : int
        Number of tokens of each reply.
    ways : sequence of int
        For each way of writing, how many replies to a prompt grow side by side.
    dtype : torch.dtype
        Type of the weights.
    device : str
        ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    float
        Seconds, if all replies are as long as they may be.
    """
    outline = model_outline(name_or_path)
    weights, width = outline.shape.n_decoder_parameters, outline.shape.width
    n_read = sum(outline.count_prompts(prompts)) * len(ways)
    seconds = 2.0 * weights * n_read / measured_speed(dtype, device, width)
    each = 2.0 * (weights + outline.shape.vocabulary * width)
    for rows in ways:
        n_steps = len(prompts) * max_new_tokens
        seconds += each * rows * n_steps / measured_speed(dtype, device, width, rows)
    return seconds


def loading_seconds(
    name_or_path: str | os.PathLike[str] | None,
    dtype: torch.dtype,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[float | None, bool]:
    """Estimate how long `load_model` will take.

    Parameters
    ----------
    name_or_path : str, path-like or None
        The model, as in `load_model`.
    dtype : torch.dtype
        Type of the weights.
    cache_dir : path-like, optional
        Folder for converted copies of GGUF files.

    Returns
    -------
    seconds : float or None
        The estimate for a core that does nothing else; None for a model of the Hub, which may have
        to be fetched.
    converts : bool
        Whether a GGUF file has to be converted.
    """
    source, gguf = ModelFiles.find(name_or_path)
    if gguf is not None:
        copy = None if cache_dir is None else copy_of_gguf(gguf, dtype_name(dtype), cache_dir)
        if copy is None or not copy.is_dir():
            return _STARTING + _CONVERSION * model_outline(name_or_path).shape.n_parameters, True
        source = str(copy)
    if not os.path.isdir(source):
        return None, False
    size = sum(file.stat().st_size for file in Path(source).iterdir() if file.is_file())
    return _STARTING + size / _READING, False


def measured_speed(dtype: torch.dtype, device: str, width: int, rows: int = 1024) -> float:
    """Measure how many operations a second a model of some width will reach on this machine, now.

    Parameters
    ----------
    dtype : torch.dtype
        Type of the weights.
    device : str
        ``"cpu"`` or ``"cuda"``.
    width : int
        Length of a hidden state.
    rows : int, default=1024
        Number of tokens of a product.

    Returns
    -------
    float
        Floating-point operations a second: 0.6 times those of products of matrices, timed for about
        a third of a second; on a CPU, of its time, and times the share of it that is free.
    """
    left = torch.ones(rows, width, dtype=dtype, device=device)
    # Few rows take as long as it takes to read the weights, which no processor's cache holds.
    columns = width if rows >= _MANY else max(_WEIGHTS // width, width)
    right = torch.ones(width, columns, dtype=dtype, device=device)
    left @ right  # the first product sets threads and kernels up
    # A third of a second of a busy machine may be any; processor time and the load vary less.
    clock = time.process_time if device == "cpu" else time.perf_counter
    began, n = clock(), 0
    while clock() - began < _SECONDS:
        left @ right
        if device != "cpu":
            torch.cuda.synchronize()
        n += 1
    speed = _EFFICIENCY * n * 2.0 * rows * width * columns / (clock() - began)
    return speed * torch.get_num_threads() * _share_of_core() if device == "cpu" else speed


def _share_of_core() -> float:
    """Return the share of a core that a thread gets beside the other programs of this machine."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    cores = os.cpu_count() or 1
    return min(1.0, cores / (os.getloadavg()[0] + torch.get_num_threads()))
