"""Sizes of a language model, and numbers of tokens, which need no weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cvxnn.preference.triplets import Prompt

if TYPE_CHECKING:
    import transformers

    from cvxnn.llm.models import LanguageModel


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder on which memory depends.

    Attributes
    ----------
    n_parameters : int
        Number of weights; a table that input and output share counts once.
    n_decoder_parameters : int
        Number of weights outside the embedding table and the output layer: twice as many operations
        does each token take.
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
    n_decoder_parameters: int
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
class ModelOutline:
    """Sizes of a language model, and how many tokens texts have for it.

    Attributes
    ----------
    name : str
        Name of the model in messages.
    shape : ModelShape
        Sizes of the model.
    context_length : int or None
        Largest number of tokens that the model was built for, if it is known.
    count_prompts : callable
        Function from prompts to their numbers of tokens, chat template included.
    count_responses : callable
        Function from the texts of replies to their numbers of tokens.
    exact : bool
        Whether these are the tokens that the model will get. Otherwise words are parted by the rule
        of GPT-2 instead of the model's own, which makes a difference of a few per cent, or tokens
        are taken for four bytes each.
    note : str
        What a reader of a plan has to know; may be empty.
    """

    name: str
    shape: ModelShape
    context_length: int | None
    count_prompts: Callable[[Sequence[Prompt]], list[int]] = field(repr=False)
    count_responses: Callable[[Sequence[str]], list[int]] = field(repr=False)
    exact: bool = True
    note: str = ""


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
    # Imported here: transformers takes seconds, and the outline of a GGUF file needs none of it.
    import torch
    import transformers

    from cvxnn.llm.adapted_layers import adapted_layers
    from cvxnn.llm.models import LanguageModel

    if isinstance(lm_or_config, LanguageModel):
        lm = lm_or_config
    else:
        with torch.device("meta"):  # shapes without numbers
            model = transformers.AutoModelForCausalLM.from_config(lm_or_config)
        lm = LanguageModel(model, None)
    model = lm.model
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
        n_decoder_parameters=lm.n_parameters,
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
