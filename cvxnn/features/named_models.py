"""Short names of the language models of both papers, with names on the Hub, licences and sizes.

No PyTorch is needed to read them, so that the help of commands can show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class NamedModel(NamedTuple):
    """A model of the Hugging Face Hub.

    Attributes
    ----------
    hub : str
        Its name there.
    licence : str
        Name of the licence of its weights, as its page stated it when this was written.
    config : mapping of str to object
        What its configuration there says of its sizes, for plans without a network.
    note : str
        What one has to do or to know before using it; may be empty.
    """

    hub: str
    licence: str
    config: Mapping[str, Any]
    note: str = ""


def _decoder(
    kind: str,
    width: int,
    hidden: int,
    blocks: int,
    heads: int,
    words: int,
    length: int,
    **more: Any,
) -> dict[str, Any]:
    """Return the sizes of a decoder by the names that most configurations have."""
    return {
        "model_type": kind,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "vocab_size": words,
        "max_position_embeddings": length,
        **more,
    }


_GATED = "accept the licence on its page, and log in with a token, before it can be fetched"

_LLAMA = {"num_key_value_heads": 8, "tie_word_embeddings": False}
_GPT2 = {"model_type": "gpt2", "n_positions": 1024, "vocab_size": 50257}

NAMED_MODELS: Mapping[str, NamedModel] = MappingProxyType(
    {
        "smollm2-135m": NamedModel(
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "Apache-2.0",
            _decoder("llama", 576, 1536, 30, 9, 49152, 8192, num_key_value_heads=3)
            | {"tie_word_embeddings": True},
        ),
        "distilgpt2": NamedModel(
            "distilbert/distilgpt2",
            "Apache-2.0",
            _GPT2 | {"n_embd": 768, "n_layer": 6, "n_head": 12},
        ),
        "gpt2-774m": NamedModel(
            "openai-community/gpt2-large",
            "MIT",
            _GPT2 | {"n_embd": 1280, "n_layer": 36, "n_head": 20},
        ),
        "mistral-7b": NamedModel(
            "mistralai/Mistral-7B-v0.1",
            "Apache-2.0",
            _decoder("mistral", 4096, 14336, 32, 32, 32000, 32768, **_LLAMA),
        ),
        "dolphin-7b": NamedModel(
            "cognitivecomputations/dolphin-2.6-mistral-7b",
            "Apache-2.0",
            _decoder("mistral", 4096, 14336, 32, 32, 32002, 32768, **_LLAMA),
            "it is trained to refuse nothing",
        ),
        "llama-3.1-8b": NamedModel(
            "meta-llama/Llama-3.1-8B",
            "Llama 3.1 Community License",
            _decoder("llama", 4096, 14336, 32, 32, 128256, 131072, **_LLAMA),
            _GATED,
        ),
        "llama-3-8b": NamedModel(
            "meta-llama/Meta-Llama-3-8B",
            "Meta Llama 3 Community License",
            _decoder("llama", 4096, 14336, 32, 32, 128256, 8192, **_LLAMA),
            _GATED,
        ),
        "pythia-1b": NamedModel(
            "EleutherAI/pythia-1b",
            "Apache-2.0",
            _decoder("gpt_neox", 2048, 8192, 16, 8, 50304, 2048, tie_word_embeddings=False),
        ),
        "opt-1.3b": NamedModel(
            "facebook/opt-1.3b",
            "OPT-175B License",
            _decoder(
                "opt", 2048, 8192, 24, 32, 50272, 2048, ffn_dim=8192, word_embed_proj_dim=2048
            ),
            "for research that is not commercial",
        ),
    }
)
"""The models by short name."""


def named_model(name: str) -> NamedModel | None:
    """Return a model of the papers.

    Parameters
    ----------
    name : str
        A short name, in any case, or the name on the Hub.

    Returns
    -------
    NamedModel or None
        The model; None for another name.

    Examples
    --------
    >>> from cvxnn.features import named_model
    >>> named_model("llama-3.1-8b") == named_model("meta-llama/Llama-3.1-8B")
    True
    """
    by_hub = {model.hub: model for model in NAMED_MODELS.values()}
    return NAMED_MODELS.get(name.lower(), by_hub.get(name))


def hub_name(name: str) -> str:
    """Return the name of a model on the Hub.

    Parameters
    ----------
    name : str
        A short name, in any case, or another name.

    Returns
    -------
    str
        Name on the Hub of a short name; any other name as it is.

    Examples
    --------
    >>> from cvxnn.features import hub_name
    >>> hub_name("llama-3.1-8b")
    'meta-llama/Llama-3.1-8B'
    """
    known = named_model(name)
    return name if known is None else known.hub
