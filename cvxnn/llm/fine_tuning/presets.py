"""Settings of the papers' experiments, by the model that they are for.

``"coala"``: Tables 10 and 11 of the COALA paper, which are the defaults of `FineTuningConfig`. The
others: Appendices B.2 to B.4 of "Understanding Forgetting in LLM Supervised Fine-Tuning and
Preference Learning", with the batch sizes of its joint runs. What the paper leaves open has the
default here, apart from dropout, which is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "coala": {},
        "pythia-1b": {
            "lora_r": 32,
            "lora_alpha": 32,
            "lora_dropout": 0.0,
            "target_modules": ("query_key_value",),
            "learning_rate": 5e-5,
            "micro_batch": 2,
            "accumulation": 4,
            "supervised_batch": 24,
            "epochs": 6,
            "max_evaluation_steps": 10,
        },
        "llama3-8b": {
            "lora_r": 16,
            "lora_alpha": 16,
            "lora_dropout": 0.0,
            "target_modules": ("q_proj", "v_proj"),
            "learning_rate": 5e-5,
            "micro_batch": 2,
            "accumulation": 2,
            "supervised_batch": 16,
            "epochs": 4,
            "max_evaluation_steps": 10,
            "gradient_checkpointing": True,
        },
        "opt-1.3b": {
            "trained": "all",
            "learning_rate": 2e-5,
            "micro_batch": 2,
            "accumulation": 4,
            "epochs": 1,
            "max_evaluation_steps": 10,
            "gradient_checkpointing": True,
        },
    }
)
"""Fields of `FineTuningConfig` by the name of the experiment."""


def preset(
    name: Literal["coala", "pythia-1b", "llama3-8b", "opt-1.3b"] = "coala",
) -> dict[str, Any]:
    """Return the settings of an experiment of the papers.

    Parameters
    ----------
    name : {"coala", "pythia-1b", "llama3-8b", "opt-1.3b"}, default="coala"
        Name of the experiment.

    Returns
    -------
    dict
        Fields of `FineTuningConfig`.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> from cvxnn.llm.fine_tuning.presets import preset
    >>> preset("llama3-8b")["supervised_batch"]
    16
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}; expected one of {list(PRESETS)}")
    return dict(PRESETS[name])
