"""Sizes of a language model, read from its configuration alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
import transformers

from cvxnn.llm.adapted_layers import adapted_layers
from cvxnn.llm.models import LanguageModel


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder on which memory depends.

    Attributes
    ----------
    n_parameters : int
        Number of weights; a table that input and output share counts once.
    n_layers : int
        Number of blocks.
    width : int
        Length of a hidden state.
    hidden : int
        Number of neurons in the perceptron of a block.
    vocabulary : int
        Number of tokens in the vocabulary.
    heads : int
        Number of heads of attention.
    queries : int
        Length of the queries of a token, all heads together.
    keys : int
        Length of the keys of a token, all heads together.
    gated : bool
        Whether the perceptron has a gate beside its neurons, as in LLaMA.
    adapted : tuple of (int, int)
        Numbers of inputs and outputs of each layer that LoRA adapts.
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


def shape_of(
    lm_or_config: LanguageModel | transformers.PretrainedConfig,
    target_modules: tuple[str, ...] | None,
) -> ModelShape:
    """Return the sizes of a model.

    Parameters
    ----------
    lm_or_config : LanguageModel or transformers configuration
        The model, or its configuration, of which no weights are made.
    target_modules : tuple of str or None
        Names of the layers that LoRA adapts; by default those of `FineTuningConfig`.

    Returns
    -------
    ModelShape
        The sizes.
    """
    if isinstance(lm_or_config, LanguageModel):
        model = lm_or_config.model
    else:
        with torch.device("meta"):  # shapes without numbers
            model = transformers.AutoModelForCausalLM.from_config(lm_or_config)
    config = model.config.get_text_config()
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fine-tuning says what it leaves out
        layers = adapted_layers(model, target_modules)
    # The layers of GPT-2 hold their weights transposed, which makes no difference to LoRA.
    adapted = [(layer.weight.shape[0], layer.weight.shape[1]) for layer in layers.values()]
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
