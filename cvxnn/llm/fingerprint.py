"""Fingerprints of a language model: of its weights, its configuration and its vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
import transformers

from cvxnn._extras import require
from cvxnn.files.digests import digest

_SAMPLE = 256  # entries of each weight that count
# Entries of a configuration that say where a model came from, not what it computes.
_PROVENANCE = {
    "_name_or_path",
    "architectures",
    "dtype",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def fingerprints(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    dtypes: Sequence[torch.dtype | None] = (None,),
) -> list[str]:
    """Return digests of a model with its own weights, or with weights of other types.

    They depend on the configuration, on some evenly spaced entries of every weight, on the
    vocabulary and on the chat template, and take well below a second. Thus they change with
    training and do not depend on where the model was loaded from.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    dtypes : sequence of (torch.dtype or None), default=(None,)
        Types to which the weights are rounded first; None leaves them as they are.

    Returns
    -------
    list of str
        64 hexadecimal digits for each type.
    """
    config = {k: v for k, v in model.config.to_dict().items() if k not in _PROVENANCE}
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    # Entries that JSON cannot hold, such as types, count as texts.
    words = json.dumps([vocabulary, tokenizer.chat_template], default=str)
    about = json.dumps(config, sort_keys=True, default=str)
    samples: list[list[str | np.ndarray]] = [[] for _ in dtypes]
    with torch.inference_mode():
        for name, weight in model.named_parameters():
            entries = _entries(model, name, weight)
            for sample, dtype in zip(samples, dtypes, strict=True):
                rounded = entries if dtype is None else entries.to(dtype)
                sample += [f"{name}{tuple(weight.shape)}", rounded.float().numpy()]
    return [digest(about, *sample, words, digits=64) for sample in samples]


def _entries(model: transformers.PreTrainedModel, name: str, weight: torch.Tensor) -> torch.Tensor:
    """Return evenly spaced entries of a weight, also of one that accelerate keeps elsewhere."""
    step = max(1, weight.numel() // _SAMPLE)
    if not weight.is_meta:
        return weight.detach().reshape(-1)[::step].cpu()
    place, _, own = name.rpartition(".")
    module = model.get_submodule(place)
    with require("accelerate.utils", extra="llm").align_module_device(module):
        read: torch.Tensor = getattr(module, own)
        return read.detach().reshape(-1)[::step].cpu().clone()
