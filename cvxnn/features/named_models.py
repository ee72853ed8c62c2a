"""Short names of the language models of both papers, with their names on the Hub and licences.

No PyTorch is needed to read them, so that the help of commands can show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class NamedModel(NamedTuple):
    """A model of the Hugging Face Hub.

    Attributes
    ----------
    hub : str
        Its name there.
    licence : str
        Name of the licence of its weights, as its page stated it when this was written.
    note : str
        What one has to do or to know before using it; may be empty.
    """

    hub: str
    licence: str
    note: str = ""


_GATED = "accept the licence on its page, and log in with a token, before it can be fetched"

NAMED_MODELS: Mapping[str, NamedModel] = MappingProxyType(
    {
        "smollm2-135m": NamedModel("HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0"),
        "distilgpt2": NamedModel("distilbert/distilgpt2", "Apache-2.0"),
        "gpt2-774m": NamedModel("openai-community/gpt2-large", "MIT"),
        "mistral-7b": NamedModel("mistralai/Mistral-7B-v0.1", "Apache-2.0"),
        "dolphin-7b": NamedModel(
            "cognitivecomputations/dolphin-2.6-mistral-7b",
            "Apache-2.0",
            "it is trained to refuse nothing",
        ),
        "llama-3.1-8b": NamedModel(
            "meta-llama/Llama-3.1-8B", "Llama 3.1 Community License", _GATED
        ),
        "llama-3-8b": NamedModel(
            "meta-llama/Meta-Llama-3-8B", "Meta Llama 3 Community License", _GATED
        ),
        "pythia-1b": NamedModel("EleutherAI/pythia-1b", "Apache-2.0"),
        "opt-1.3b": NamedModel(
            "facebook/opt-1.3b", "OPT-175B License", "for research that is not commercial"
        ),
    }
)
"""The models by short name."""


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
    known = NAMED_MODELS.get(name.lower())
    return name if known is None else known.hub
