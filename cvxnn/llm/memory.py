"""Memory that a run will take, computed from a configuration before the run starts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from cvxnn.llm.model_shape import ModelShape, shape_of

if TYPE_CHECKING:
    import transformers

    from cvxnn.llm.models import LanguageModel

ModelUse = Literal["embed", "guide", "fine_tune"]

GIB = 2**30
# Memory for CUDA itself and for gaps between tensors.
_RESERVE = 3 * GIB // 4
# Number of logits that `response_log_probabilities` and fine-tuning hold at a time, and bytes of
# each: the logit, its copy in float32, and its probability.
_LOGITS = 2**24
_BYTES_A_LOGIT = 12
# Gradient and two moments of AdamW for each weight of an adapter; all are float32.
_OPTIMIZER_BYTES = 12


@dataclass(frozen=True)
class MemorySettings:
    """Settings on which memory depends, under the names of `memory_plan`.

    Attributes
    ----------
    batch_tokens : int
        Number of tokens in one call of the model.
    max_length : int
        Number of tokens of prompt and reply.
    dtype : str
        Type of the weights, such as ``"bfloat16"``.
    n_texts : int
        Number of embeddings to keep on disk.
    n_candidates : int
        Number of replies that grow side by side.
    lora_r : int
        Rank of the adapters.
    lora_dropout : float
        Dropout of the adapters.
    gradient_checkpointing : bool
        Whether activations are computed twice instead of being kept.
    """

    batch_tokens: int
    max_length: int
    dtype: str
    n_texts: int
    n_candidates: int
    lora_r: int
    lora_dropout: float
    gradient_checkpointing: bool


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a run, in bytes.

    Attributes
    ----------
    weights : int
        Weights of the model.
    adapters : int
        Weights of the adapters of LoRA.
    optimizer : int
        Gradients of the adapters, and moments of AdamW.
    activations : int
        Activations at the peak, with the mask of attention.
    kv_cache : int
        Keys and values of earlier tokens.
    logits : int
        Logits that are held at a time.
    disk : int
        Embeddings that are kept on disk.
    method : {"embed", "guide", "fine_tune"}
        Use of the model.
    model : ModelShape
        Sizes of the model.
    settings : MemorySettings
        Settings of the run.
    """

    weights: int
    adapters: int
    optimizer: int
    activations: int
    kv_cache: int
    logits: int
    disk: int
    method: ModelUse
    model: ModelShape = field(repr=False)
    settings: MemorySettings = field(repr=False)

    @property
    def total(self) -> int:
        """Sum of everything but the disk, in bytes."""
        parts = (self.weights, self.adapters, self.optimizer, self.activations)
        return sum(parts) + self.kv_cache + self.logits

    def fits(self, gib: float = 24) -> bool:
        """Return True if a GPU is large enough.

        Parameters
        ----------
        gib : float, default=24
            Memory of the GPU in GiB, of which 0.75 GiB are left to CUDA.

        Returns
        -------
        bool
            True if the run fits.
        """
        return self.total + _RESERVE <= gib * GIB

    def advice(self, gib: float = 24) -> dict[str, Any]:
        """Return settings with which the run fits, those that cost least first.

        Parameters
        ----------
        gib : float, default=24
            Memory of the GPU in GiB.

        Returns
        -------
        dict of str to object
            Settings to change and their values; empty if the run fits as it is.

        Raises
        ------
        MemoryError
            If no setting helps, as the weights alone are too large; take a smaller model or a
            larger GPU.
        """
        plan, changed = self, {}
        for name, value in _steps(self):
            if plan.fits(gib):
                break
            smaller = _plan(plan.model, self.method, replace(plan.settings, **{name: value}))
            if smaller.total < plan.total:
                plan, changed[name] = smaller, value
        if not plan.fits(gib):
            raise MemoryError(
                f"{plan.weights / GIB:.3g} GiB of weights in {plan.settings.dtype} leave too "
                f"little of {gib:g} GiB whatever the settings; take a smaller model or a larger GPU"
            )
        return changed

    def to_dict(self) -> dict[str, object]:
        """Return the plan as plain data, for JSON.

        Returns
        -------
        dict
            The parts in bytes, ``disk``, ``total``, the method and the settings.
        """
        parts = {name: getattr(self, name) for name in _PARTS}
        return {
            "method": self.method,
            **parts,
            "disk": self.disk,
            "total": self.total,
            "settings": dict(vars(self.settings)),
        }

    def report(self, gib: float = 24) -> str:
        """Return a table of the parts, with a line that says whether they fit.

        Parameters
        ----------
        gib : float, default=24
            Memory of the GPU in GiB.

        Returns
        -------
        str
            Several lines; the last one has the advice if the run does not fit.
        """
        lines = [f"{name:<12} {getattr(self, name) / GIB:8.2f} GiB" for name in _PARTS]
        lines = [line for line, name in zip(lines, _PARTS, strict=True) if getattr(self, name)]
        lines.append(f"{'total':<12} {self.total / GIB:8.2f} GiB")
        if self.disk:
            lines.append(f"{'on disk':<12} {self.disk / GIB:8.2f} GiB")
        try:
            changed = ", ".join(f"{name}={value!r}" for name, value in self.advice(gib).items())
            verdict = f"does not fit in {gib:g} GiB: set {changed}" if changed else ""
        except MemoryError as error:
            verdict = f"does not fit in {gib:g} GiB: {error}"
        return "\n".join([*lines, verdict or f"fits in {gib:g} GiB"])

    def __str__(self) -> str:
        """Return the report for a GPU of 24 GiB."""
        return self.report()


_PARTS = ("weights", "adapters", "optimizer", "activations", "kv_cache", "logits")


def memory_plan(
    lm_or_config: LanguageModel | transformers.PretrainedConfig | ModelShape,
    *,
    method: ModelUse = "embed",
    batch_tokens: int = 2048,
    max_length: int = 1024,
    dtype: str | torch.dtype | None = None,
    n_texts: int = 0,
    n_candidates: int = 5,
    lora_r: int = 16,
    lora_dropout: float = 0.05,
    target_modules: tuple[str, ...] | None = None,
    gradient_checkpointing: bool = False,
) -> MemoryPlan:
    """Compute the memory that a run will take at its peak.

    Parameters
    ----------
    lm_or_config : LanguageModel, transformers configuration or ModelShape
        The model. Its configuration is enough (see `load_configuration`); no weights are made.
    method : {"embed", "guide", "fine_tune"}, default="embed"
        Use of the model: embedding replies, guided decoding, or fine-tuning by LoRA as `fine_tune`
        does it.
    batch_tokens : int, default=2048
        Number of tokens in one call of the model. For fine-tuning, it is `micro_batch` times the
        tokens of a pair, its two replies counted separately.
    max_length : int, default=1024
        Number of tokens of prompt and reply.
    dtype : str or torch.dtype, optional
        Type of the weights: by default that of the model, and bfloat16 for a configuration.
    n_texts : int, default=0
        Number of embeddings to keep on disk.
    n_candidates : int, default=5
        Number of replies that grow side by side in guided decoding.
    lora_r : int, default=16
        Rank of the adapters in fine-tuning; see `FineTuningConfig`.
    lora_dropout : float, default=0.05
        Dropout of the adapters in fine-tuning.
    target_modules : tuple of str, optional
        Names of the layers that get adapters in fine-tuning; by default those of
        `FineTuningConfig`.
    gradient_checkpointing : bool, default=False
        Whether fine-tuning computes activations twice instead of keeping them.

    Returns
    -------
    MemoryPlan
        The parts of the memory, and advice if they do not fit.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    The peak of a block as in LLaMA is its perceptron: hidden states, their normalised copy, gates,
    neurons and products of all tokens at once. Attention is assumed to have a fused kernel, so that
    no scores are kept; its mask has an entry for each two tokens of a call. Libraries (about 0.5 GB
    of resident memory on a CPU) are not in the plan.
    """
    if method not in get_args(ModelUse):
        raise ValueError(f"method is {method!r}; expected one of {get_args(ModelUse)}")
    low = {"batch_tokens": 1, "max_length": 1, "n_texts": 0, "n_candidates": 1, "lora_r": 1}
    given = (batch_tokens, max_length, n_texts, n_candidates, lora_r)
    for (name, least), value in zip(low.items(), given, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}")
    if dtype is None and not isinstance(lm_or_config, ModelShape):
        from cvxnn.llm.models import LanguageModel  # imports transformers, which takes seconds

        dtype = lm_or_config.dtype if isinstance(lm_or_config, LanguageModel) else None
    settings = MemorySettings(
        batch_tokens,
        max_length,
        str(dtype or "bfloat16").removeprefix("torch."),
        n_texts,
        n_candidates,
        lora_r,
        lora_dropout,
        gradient_checkpointing,
    )
    if not isinstance(lm_or_config, ModelShape):
        lm_or_config = shape_of(lm_or_config, target_modules)
    return _plan(lm_or_config, method, settings)


def _plan(model: ModelShape, method: ModelUse, settings: MemorySettings) -> MemoryPlan:
    size, tokens = _bytes_of(settings.dtype), max(settings.batch_tokens, settings.max_length)
    d, m, q, k = model.width, model.hidden, model.queries, model.keys
    adapters = optimizer = kv_cache = logits = 0
    n_hidden = 3 if model.gated else 2
    # Hidden states and their normalised copy, then the larger half of a block; normalisation
    # works in float32.
    perceptron, attention = n_hidden * m, 4 * q + 2 * k
    block = max((2 * d + max(perceptron, attention)) * size, 2 * d * size + 8 * d)
    if method == "guide":
        tokens = settings.max_length
        kv_cache = 2 * model.n_layers * k * size * settings.max_length * settings.n_candidates
        logits = 2 * 4 * model.vocabulary * settings.n_candidates
        # A step appends to the keys and values of a block by copying them.
        block_copy = 2 * kv_cache // model.n_layers
        activations = max(tokens * block, block_copy)
    elif method == "fine_tune":
        n_adapted = sum(inputs + outputs for inputs, outputs in model.adapted) * settings.lora_r
        adapters, optimizer = 4 * n_adapted, _OPTIMIZER_BYTES * n_adapted
        logits = _BYTES_A_LOGIT * min(tokens * model.vocabulary, _LOGITS)
        kept = _kept(model, settings)
        if settings.gradient_checkpointing:
            kept_blocks = model.n_layers * d * size + kept / model.n_layers
        else:
            kept_blocks = kept
        activations = round(tokens * (kept_blocks + block))
    else:
        activations = tokens * block
    activations += tokens**2 * (1 + size)  # the mask, and its copy that is added to the scores
    return MemoryPlan(
        weights=model.n_parameters * size,
        adapters=adapters,
        optimizer=optimizer,
        activations=activations,
        kv_cache=kv_cache,
        logits=logits,
        disk=4 * d * settings.n_texts,
        method=method,
        model=model,
        settings=settings,
    )


def _kept(model: ModelShape, settings: MemorySettings) -> float:
    """Return the bytes of a token that the backward pass through all blocks needs."""
    size, d, m = _bytes_of(settings.dtype), model.width, model.hidden
    # Both normalisations, in float32; queries, keys, values and output of attention, keys and
    # values repeated for each head; gates, neurons and their products.
    norms, attention = 2 * 4 * d * (1 if size == 4 else 2), 4 * model.queries * size
    block = norms + attention + (3 if model.gated else 2) * m * size + 4 * model.heads
    # Each adapter keeps its input in float32, the part that dropout left, and its inner values.
    adapters = sum(inputs * _kept_input(size, settings) for inputs, _ in model.adapted)
    adapters += 4 * settings.lora_r * len(model.adapted)
    return model.n_layers * block + adapters


def _kept_input(size: int, settings: MemorySettings) -> float:
    if settings.lora_dropout:
        return 5.0  # the numbers that dropout left, and a mask of them
    # Layers with a common input keep it once, unless each of them converts it.
    return 4.0 if size != 4 else 2.0


def _bytes_of(dtype: str) -> int:
    number = getattr(torch, dtype, None)
    if not isinstance(number, torch.dtype) or not number.is_floating_point:
        raise ValueError(f"dtype is {dtype!r}; expected 'float32', 'float16' or 'bfloat16'")
    size: int = number.itemsize
    return size


def _steps(plan: MemoryPlan) -> list[tuple[str, Any]]:
    """Return changes of settings in the order in which they are tried."""
    now = plan.settings
    steps: list[tuple[str, Any]] = []
    if _bytes_of(now.dtype) > 2:
        steps.append(("dtype", "bfloat16"))
    if plan.method == "fine_tune" and not now.gradient_checkpointing:
        steps.append(("gradient_checkpointing", True))
    steps += _halvings("batch_tokens", now.batch_tokens, now.max_length)
    if plan.method == "guide":
        steps += _halvings("n_candidates", now.n_candidates, 2)
    for length in (value for _, value in _halvings("", now.max_length, 128)):
        steps += [("max_length", length), ("batch_tokens", min(now.batch_tokens, length))]
    return steps


def _halvings(name: str, value: int, least: int) -> list[tuple[str, int]]:
    found = []
    while value > least:
        value = max(value // 2, least)
        found.append((name, value))
    return found
