"""Layers of a language model that LoRA adapts."""

from __future__ import annotations

import torch
import transformers

from cvxnn._messages import warn

# Table 10 of the COALA paper has other layers for GPT-2; for LLaMA, it has all linear ones.
_GPT2 = ("c_attn", "c_proj")
_ROUTERS = {"gate", "router", "shared_expert_gate"}  # they choose among experts
_OTHER_TARGETS = (torch.nn.Embedding, torch.nn.Conv1d)  # which adapters fit if they are named


def adapted_layers(
    model: transformers.PreTrainedModel, target_modules: tuple[str, ...] | None
) -> dict[str, torch.nn.Module]:
    """Return the layers that get adapters.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A model without adapters.
    target_modules : tuple of str or None
        Last parts of the names of the layers. None chooses the linear layers of all blocks, without
        those that route tokens to experts; in GPT-2 ``c_attn`` and ``c_proj``.

    Returns
    -------
    dict of str to torch.nn.Module
        The layers by their full names.

    Raises
    ------
    ValueError
        If the model lacks a target, it is no layer of weights, or its weights are read without
        calling it; choose another.

    Warns
    -----
    UserWarning
        If matrices of blocks are left out by default because they are not linear layers, such as
        experts that are one tensor, or because a kernel reads them; the message names them.
    """
    modules = dict(model.named_modules())
    linear = {name: module for name, module in modules.items() if _is_linear(module)}
    unusable = {name for name in linear if _is_read_by_kernel(modules, name)}
    if target_modules is not None:
        found = {name: m for name, m in modules.items() if _last(name) in target_modules}
        missing = sorted(set(target_modules) - set(map(_last, found)))
        if missing or not target_modules:
            raise ValueError(
                f"target_modules is {target_modules}, of which the model lacks {missing}; choose "
                f"among {sorted(set(map(_last, linear)))}"
            )
        layers = (torch.nn.Linear, transformers.pytorch_utils.Conv1D, *_OTHER_TARGETS)
        if refused := sorted({_last(n) for n, m in found.items() if not isinstance(m, layers)}):
            raise ValueError(
                f"target_modules has {refused}, which are no layers of weights; choose among "
                f"{sorted(set(map(_last, linear)))}"
            )
        if refused := sorted({_last(name) for name in unusable & found.keys()}):
            raise ValueError(
                f"target_modules has {refused}, whose weights the model reads without calling the "
                "layers, so that adapters would do nothing; leave them out"
            )
        return found
    head = model.get_output_embeddings()
    names = [
        name
        for name in linear
        if linear[name] is not head and _last(name) != "lm_head" and not _routes(name)
    ]
    if model.config.model_type == "gpt2":
        names = [name for name in names if _last(name) in _GPT2]
    left_out = {_last(name) for name in unusable}
    left_out |= {
        f"{_last(name)}.{weight}"
        for name, module in modules.items()
        if name not in linear and not isinstance(module, _OTHER_TARGETS) and not _routes(name)
        for weight, value in module.named_parameters(recurse=False)
        if value.ndim > 1 and "bias" not in weight and weight != "A_log"
    }
    if left_out:
        warn(
            f"LoRA adapts the linear layers of {model.config.model_type}; {sorted(left_out)} are "
            "left out",
        )
    return {name: linear[name] for name in names if name not in unusable}


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D)


def _routes(name: str) -> bool:
    """Return whether a module is a router, or a part of one."""
    return not _ROUTERS.isdisjoint(name.split("."))


def _is_read_by_kernel(modules: dict[str, torch.nn.Module], name: str) -> bool:
    """Return True for layers of Mamba, but the first, whose kernels take the weights alone."""
    mixer = modules[name.rpartition(".")[0]]
    return hasattr(mixer, "A_log") and hasattr(mixer, "D") and _last(name) != "in_proj"


def _last(name: str) -> str:
    return name.rpartition(".")[2]
