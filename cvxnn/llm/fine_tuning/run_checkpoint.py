"""Checkpoints of a training run, each in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from cvxnn.files.digests import digest
from cvxnn.files.json_files import check_settings
from cvxnn.files.writing import MALFORMED, replacing

_FORMAT = "cvxnn-fine-tuning-1"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class RunState:
    """Progress of a run; with weights and moments, everything that its future depends on."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    gaps: dict[str, float] = field(default_factory=dict)
    tokens_trained: int = 0
    tokens_evaluated: int = 0
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    stopped: bool = False


def write_checkpoint(
    path: Path,
    weights: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, object],
    state: Mapping[str, object],
) -> None:
    """Write a checkpoint, completely or not at all.

    Parameters
    ----------
    path : pathlib.Path
        File to write; an existing one is replaced.
    weights : mapping of str to torch.nn.Parameter
        The weights that are trained.
    optimizer : torch.optim.Optimizer
        Its moments are kept.
    settings : mapping
        Everything that the run depends on, as JSON holds it.
    state : mapping
        Progress of the run, as JSON holds it.
    """
    tensors = {}
    for name, weight in weights.items():
        tensors[f"weight/{name}"] = weight.detach()
        for moment, value in optimizer.state.get(weight, {}).items():
            tensors[f"{moment}/{name}"] = value.detach()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "format": _FORMAT,
        "digest": _digest(tensors, settings, state),
        "settings": json.dumps(settings),
        "state": json.dumps(state),
    }
    with replacing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata)


def read_state(path: Path, settings: Mapping[str, object]) -> dict[str, Any]:
    """Read the progress of a run.

    Parameters
    ----------
    path : pathlib.Path
        The checkpoint.
    settings : mapping
        Settings of the run that is to continue.

    Returns
    -------
    dict
        The state that `write_checkpoint` got.

    Raises
    ------
    ValueError
        If the file is damaged, is not a checkpoint, or belongs to a run with other settings,
        another model or other data; the message names the difference.
    """
    remedy = "delete it to start from the beginning, or choose another folder"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        known = metadata.get("format") == _FORMAT
        found = dict(json.loads(metadata["settings"])) if known else {}
        state = dict(json.loads(metadata["state"])) if known else {}
        expected = _digest(safetensors.torch.load_file(path), found, state) if known else None
    except (safetensors.SafetensorError, OSError, *MALFORMED) as error:
        raise ValueError(f"the checkpoint {path} is damaged ({error}); {remedy}") from error
    if not known:
        raise ValueError(f"{path} is not a checkpoint of this version of cvxnn; {remedy}")
    if metadata.get("digest") != expected:
        raise ValueError(f"the checkpoint {path} is damaged (its contents changed); {remedy}")
    check_settings(path, found, settings)
    return state


def restore(
    path: Path,
    weights: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer | None,
) -> None:
    """Restore weights, and the moments of an optimiser, from a checkpoint.

    Parameters
    ----------
    path : pathlib.Path
        The checkpoint.
    weights : mapping of str to torch.nn.Parameter
        The weights to set.
    optimizer : torch.optim.Optimizer or None
        Gets the moments; None leaves them out.

    Raises
    ------
    ValueError
        If the file lacks these weights; delete it, or choose another folder.
    """
    tensors = safetensors.torch.load_file(path)
    shapes = {name: tensors[name].shape for name in tensors}
    for name, weight in weights.items():
        kinds = [
            "weight",
            *([] if optimizer is None or f"step/{name}" not in tensors else _MOMENTS),
        ]
        if any(shapes.get(f"{kind}/{name}") != weight.shape for kind in kinds):
            raise ValueError(
                f"the checkpoint {path} does not have the weights of {name}; delete it to start "
                "from the beginning, or choose another folder"
            )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[f"weight/{name}"])
            if optimizer is not None and f"step/{name}" in tensors:
                optimizer.state[weight] = {
                    "step": tensors[f"step/{name}"],
                    **{m: tensors[f"{m}/{name}"].to(weight.device) for m in _MOMENTS},
                }


def _digest(
    tensors: Mapping[str, torch.Tensor], settings: Mapping[str, object], state: Mapping[str, object]
) -> str:
    parts = (part for name in sorted(tensors) for part in (name, tensors[name].numpy()))
    return digest(dict(settings), dict(state), *parts, digits=64)
