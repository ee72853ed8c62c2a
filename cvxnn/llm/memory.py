"""How much memory a run will take, known before it starts: from a configuration alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from cvxnn._extras import require

Method = Literal["embed", "guide", "fine_tune"]

GIB = 2**30
# What CUDA itself and the gaps between tensors take.
_RESERVE = 3 * GIB // 4
# Logits that `response_log_probabilities` and fine-tuning hold at a time, and what each takes:
# itself, in float32, and its share.
_LOGITS = 2**24
_BYTES_A_LOGIT = 12
# AdamW's slope and two moments of an adapter's weight, which are float32 as the weight is.
_OPTIMIZER_BYTES = 12
_ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ADAPTED_GPT2 = ("c_attn", "c_proj")


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder on which memory depends.

    Attributes
    ----------
    n_parameters : int
        Weights, a table that input and output share counted once.
    n_layers, width, hidden, vocabulary : int
        Blocks, hidden states, neurons of a block's perceptron, tokens.
    heads, queries, keys : int
        Heads of attention, and numbers of a token's queries and of its keys.
    gated : bool
        Whether the perceptron has a gate beside its neurons, as LLaMA's.
    adapted : tuple of (int, int)
        Inputs and outputs of each layer that LoRA adapts.
    """

    n_parameters: int
    n_layers: int
    width: int
    hidden: int
    vocabulary: int
    heads: int
    queries: int
    keys: int
    gated: bool
    adapted: tuple[tuple[int, int], ...] = field(repr=False)


@dataclass(frozen=True)
class Settings:
    """What a user may change, under the names of `memory_plan`."""

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
    weights, adapters, optimizer : int
        Of the model; of LoRA; its slopes and AdamW's moments.
    activations : int
        At the peak, with the mask of attention.
    kv_cache : int
        Keys and values of earlier tokens.
    logits : int
    disk : int
        Of embeddings that are kept.
    method : {"embed", "guide", "fine_tune"}
    model : ModelShape
    settings : Settings
    """

    weights: int
    adapters: int
    optimizer: int
    activations: int
    kv_cache: int
    logits: int
    disk: int
    method: Method
    model: ModelShape = field(repr=False)
    settings: Settings = field(repr=False)

    @property
    def total(self) -> int:
        """Everything but the disk."""
        parts = (self.weights, self.adapters, self.optimizer, self.activations)
        return sum(parts) + self.kv_cache + self.logits

    def fits(self, gib: float = 24) -> bool:
        """Whether a GPU of that size is enough; 0.75 GiB are left to CUDA."""
        return self.total + _RESERVE <= gib * GIB

    def advice(self, gib: float = 24) -> dict[str, Any]:
        """Settings to change until the run fits, the least painful first; empty if it fits.

        Raises
        ------
        MemoryError
            If no setting helps: the weights alone are too large.
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
                f"{plan.weights / GIB:.1f} GiB of weights in {plan.settings.dtype} leave too "
                f"little of {gib:g} GiB whatever the settings; take a smaller model or a larger GPU"
            )
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        parts = {name: getattr(self, name) for name in _PARTS}
        return {
            "method": self.method,
            **parts,
            "disk": self.disk,
            "total": self.total,
            "settings": dict(vars(self.settings)),
        }

    def report(self, gib: float = 24) -> str:
        """Table of the parts, and whether they fit in a GPU of that size."""
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
        """Report for a GPU of 24 GiB."""
        return self.report()


_PARTS = ("weights", "adapters", "optimizer", "activations", "kv_cache", "logits")


def memory_plan(
    lm_or_config: Any,
    *,
    method: Method = "embed",
    batch_tokens: int = 2048,
    max_length: int = 1024,
    dtype: Any = None,
    n_texts: int = 0,
    n_candidates: int = 5,
    lora_r: int = 16,
    lora_dropout: float = 0.05,
    target_modules: tuple[str, ...] | None = None,
    gradient_checkpointing: bool = False,
) -> MemoryPlan:
    """Memory that a run will take at its peak.

    Parameters
    ----------
    lm_or_config : LanguageModel or transformers configuration
        A configuration is enough; no weights are made.
    method : {"embed", "guide", "fine_tune"}, default="embed"
        Embedding replies, guided decoding, or fine-tuning by LoRA as `fine_tune` does it.
    batch_tokens : int, default=2048
        Tokens in one call of the model. Of fine-tuning: `micro_batch` times the tokens of a pair,
        its two replies counted apart.
    max_length : int, default=1024
        Tokens of prompt and reply.
    dtype : str or torch.dtype, optional
        Type of the weights: by default the model's own, and bfloat16 for a configuration.
    n_texts : int, default=0
        Embeddings to keep on disk.
    n_candidates : int, default=5
        Guided decoding: replies that grow side by side.
    lora_r, lora_dropout, target_modules, gradient_checkpointing
        Fine-tuning: see `FineTuningConfig`.

    Returns
    -------
    MemoryPlan

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    The peak of a block of LLaMA's kind is its perceptron: hidden states, their normalised copy,
    gates, neurons and products of all tokens at once. Attention is taken to have a fused kernel,
    so that no scores are kept; its mask has an entry for each two tokens of a call. Libraries
    (about 0.5 GB of resident memory on a CPU) are not in the plan.
    """
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}; expected one of {get_args(Method)}")
    low = {"batch_tokens": 1, "max_length": 1, "n_texts": 0, "n_candidates": 1, "lora_r": 1}
    given = (batch_tokens, max_length, n_texts, n_candidates, lora_r)
    for (name, least), value in zip(low.items(), given, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}")
    if dtype is None:
        dtype = getattr(lm_or_config, "dtype", None) if hasattr(lm_or_config, "model") else None
    settings = Settings(
        batch_tokens,
        max_length,
        str(dtype or "bfloat16").removeprefix("torch."),
        n_texts,
        n_candidates,
        lora_r,
        lora_dropout,
        gradient_checkpointing,
    )
    return _plan(_shape(lm_or_config, target_modules), method, settings)


def _shape(lm_or_config: Any, target_modules: tuple[str, ...] | None) -> ModelShape:
    if hasattr(lm_or_config, "model"):
        model = lm_or_config.model
    else:
        torch = require("torch", extra="llm")
        transformers = require("transformers", extra="llm")
        with torch.device("meta"):  # shapes without numbers
            model = transformers.AutoModelForCausalLM.from_config(lm_or_config)
    config = model.config.get_text_config()
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets = set(target_modules or _ADAPTED)
    if target_modules is None and not targets & names:
        targets = set(_ADAPTED_GPT2)
    # GPT-2's layers hold their weights the other way round, which is one for LoRA.
    adapted = [
        tuple(module.weight.shape)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in targets and hasattr(module, "weight")
    ]
    width, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or width // heads
    hidden = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return ModelShape(
        n_parameters=sum(weight.numel() for weight in model.parameters()),
        n_layers=config.num_hidden_layers,
        width=width,
        hidden=hidden or 4 * width,
        vocabulary=config.vocab_size,
        heads=heads,
        queries=heads * head,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * head,
        gated=bool(names & {"gate_proj", "gate_up_proj"}),
        adapted=tuple(adapted),
    )


def _plan(model: ModelShape, method: Method, settings: Settings) -> MemoryPlan:
    size, tokens = _bytes_of(settings.dtype), max(settings.batch_tokens, settings.max_length)
    d, m, q, k = model.width, model.hidden, model.queries, model.keys
    adapters = optimizer = kv_cache = logits = 0
    n_hidden = 3 if model.gated else 2
    # Hidden states and their normalised copy, then the larger of the two halves of a block;
    # normalising works in float32.
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


def _kept(model: ModelShape, settings: Settings) -> float:
    """Bytes that the way back through all blocks needs of a token."""
    size, d, m = _bytes_of(settings.dtype), model.width, model.hidden
    # Both normalisations, in float32; queries, keys, values and output of attention, keys and
    # values repeated for each head; gates, neurons and their products.
    norms, attention = 2 * 4 * d * (1 if size == 4 else 2), 4 * model.queries * size
    block = norms + attention + (3 if model.gated else 2) * m * size + 4 * model.heads
    # Each adapter keeps its input, in float32, what dropout left of it, and its inner values.
    adapters = sum(inputs * _kept_input(size, settings) for inputs, _ in model.adapted)
    adapters += 4 * settings.lora_r * len(model.adapted)
    return model.n_layers * block + adapters


def _kept_input(size: int, settings: Settings) -> float:
    if settings.lora_dropout:
        return 5.0  # the numbers that were left, and which
    # Layers that share an input share what is kept of it, unless each converts it.
    return 4.0 if size != 4 else 2.0


def _bytes_of(dtype: str) -> int:
    torch = require("torch", extra="llm")
    number = getattr(torch, dtype, None)
    if not isinstance(number, torch.dtype) or not number.is_floating_point:
        raise ValueError(f"dtype is {dtype!r}; expected 'float32', 'float16' or 'bfloat16'")
    size: int = number.itemsize
    return size


def _steps(plan: MemoryPlan) -> list[tuple[str, Any]]:
    """Changes in the order in which they are tried."""
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
