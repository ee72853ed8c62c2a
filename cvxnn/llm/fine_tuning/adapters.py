"""LoRA adapters beside a language model that stays as it is; how they are saved and loaded."""

from __future__ import annotations

import copy
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._extras import require
from cvxnn._files import read_json, write_json
from cvxnn.llm.fine_tuning.config import FineTuningConfig
from cvxnn.llm.fingerprint import fingerprints
from cvxnn.llm.models import LanguageModel, quiet

if TYPE_CHECKING:
    import torch

_RECORD = "fine_tuning.json"
_GPT2 = ("c_attn", "c_proj")
_OTHERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add_adapter(lm: LanguageModel, config: FineTuningConfig) -> LanguageModel:
    """A second model on the same weights, with fresh adapters.

    Its modules are copies, its weights are the given ones, not copied: memory grows by the
    adapters, and the given model computes what it did before.
    """
    torch, peft = require("torch", extra="llm"), require("peft", extra="llm")
    if isinstance(lm.model, peft.PeftModel):
        raise ValueError(
            f"{lm.name} has adapters already; merge them first, FineTuned.merge() or "
            "LanguageModel(lm.model.merge_and_unload(), lm.tokenizer)"
        )
    model = _twin(lm.model)
    modules = dict(model.named_modules())
    targets = _targets(modules, config)
    lora = peft.LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=targets,
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in modules.values()),
    )
    devices = [lm.device] if lm.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), quiet():
        torch.manual_seed(config.seed)
        adapted = peft.get_peft_model(model, lora)
    if config.gradient_checkpointing:
        # Older versions of transformers have the second name.
        names = "activation_checkpointing_enable", "gradient_checkpointing_enable"
        enable = next(getattr(model, name) for name in names if hasattr(model, name))
        enable({"use_reentrant": False})
    lora.base_model_name_or_path = lm.name  # where peft puts a path of this machine
    return LanguageModel(adapted.eval(), lm.tokenizer, lm.name)


def trained_weights(lm: LanguageModel) -> dict[str, torch.nn.Parameter]:
    """The adapters' weights by name."""
    return {name: w for name, w in lm.model.named_parameters() if ".lora_" in name}


def set_dropout(lm: LanguageModel, on: bool) -> None:
    """Switch the adapters' dropout; the model's own stays off."""
    for name, module in lm.model.named_modules():
        if ".lora_dropout" in name:
            module.train(on)
        elif hasattr(module, "gradient_checkpointing"):
            module.training = on  # blocks recompute only then; their children are not told


def save_adapter(
    lm: LanguageModel, folder: str | os.PathLike[str], record: Mapping[str, Any]
) -> None:
    """Write the adapters and a record into a folder, all or nothing.

    Raises
    ------
    FileExistsError
        If the folder holds something else.
    """
    target = Path(folder)
    if target.exists() and not (target / _RECORD).is_file():
        raise FileExistsError(
            f"{target} is there and holds no adapter of cvxnn; name another folder"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with quiet():
            lm.model.save_pretrained(temporary, save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)  # a form to fill in, with local paths
        write_json(temporary / _RECORD, record)
        if target.exists():
            old = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
            os.replace(target, old)
            os.replace(temporary, target)
            shutil.rmtree(old)
        else:
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_adapter(lm: LanguageModel, folder: str | os.PathLike[str]) -> LanguageModel:
    """Put saved adapters on the model that they were trained on.

    Parameters
    ----------
    lm : LanguageModel
        It is left as it is; the result shares its weights.
    folder : path-like
        Written by ``FineTuned.save``.

    Returns
    -------
    LanguageModel

    Raises
    ------
    FileNotFoundError
        If the folder holds no adapter.
    ValueError
        If the adapter belongs to another model, or is damaged.
    """
    torch, peft = require("torch", extra="llm"), require("peft", extra="llm")
    folder = Path(folder)
    for name in (_RECORD, "adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no adapter of cvxnn: it has no {name}; FineTuned.save writes it"
            )
    record = read_json(folder / _RECORD)
    known = record.get("fingerprints", {})
    there = getattr(torch, str(record.get("dtype")), None)
    here = fingerprints(lm.model, lm.tokenizer, [None, there])
    # A copy in another type is the same model where rounding one gives the other.
    if known.get("exact") not in here and known.get(_name(lm.dtype)) != here[0]:
        raise ValueError(
            f"the adapter in {folder} was trained on {record.get('model')} in "
            f"{record.get('dtype')}, and {lm.name} in {_name(lm.dtype)} is another model; load "
            "the one it was trained on"
        )
    safetensors = require("safetensors", extra="llm")
    try:
        with quiet():
            model = peft.PeftModel.from_pretrained(_twin(lm.model), str(folder))
    except (safetensors.SafetensorError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"the adapter in {folder} is damaged ({error}); save it anew") from error
    return LanguageModel(model.eval().requires_grad_(False), lm.tokenizer, lm.name)


def describe_base(lm: LanguageModel) -> dict[str, Any]:
    """What `load_adapter` knows a model by."""
    torch = require("torch", extra="llm")
    types = [None, torch.float16, torch.bfloat16]
    digests = fingerprints(lm.model, lm.tokenizer, types)
    names = ("exact", "float16", "bfloat16")
    return {
        "model": lm.name,
        "dtype": _name(lm.dtype),
        "fingerprints": dict(zip(names, digests, strict=True)),
    }


def arithmetic(lm: LanguageModel, config: FineTuningConfig) -> torch.dtype | None:
    """The type that the model's arithmetic is cast to, if it is another than the weights'."""
    torch = require("torch", extra="llm")
    if lm.dtype == torch.float16 or (config.dtype == "float32" and lm.dtype == torch.bfloat16):
        raise ValueError(
            f"the model's weights are {lm.dtype}, too coarse to train in {config.dtype!r}; load "
            "them with dtype='float32', or with dtype='bfloat16' and train with dtype='auto'"
        )
    half = config.dtype == "bfloat16" or lm.dtype == torch.bfloat16
    if half or (config.dtype == "auto" and lm.device.type == "cuda"):
        return torch.bfloat16
    return None


def merged(lm: LanguageModel) -> LanguageModel:
    """A model of its own whose weights contain the adapters; the given one stays as it is."""
    model = copy.deepcopy(lm.model).merge_and_unload().eval().requires_grad_(False)
    return LanguageModel(model, lm.tokenizer, lm.name)


def _twin(model: Any) -> Any:
    """A copy of the modules around the same numbers, frozen."""
    torch = require("torch", extra="llm")
    memo: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for weight in model.parameters():
        plain = type(weight) is torch.nn.Parameter
        memo[id(weight)] = torch.nn.Parameter(weight.data, requires_grad=False) if plain else weight
    return copy.deepcopy(model, memo)


def _targets(modules: dict[str, Any], config: FineTuningConfig) -> list[str] | str:
    last = {name.rpartition(".")[2] for name in modules}
    if config.target_modules is not None:
        missing = [name for name in config.target_modules if name not in last]
        if missing or not config.target_modules:
            kinds = {"Linear", "Conv1D"}
            linear = {n.rpartition(".")[2] for n, m in modules.items() if type(m).__name__ in kinds}
            raise ValueError(
                f"target_modules is {config.target_modules}, of which the model has no {missing}; "
                f"choose among {sorted(linear)}"
            )
        return list(config.target_modules)
    for names in (_GPT2, _OTHERS):
        if found := [name for name in names if name in last]:
            return found
    return "all-linear"


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
