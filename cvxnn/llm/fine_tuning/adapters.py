"""LoRA adapters of a language model: how they are added, saved and loaded.

In their place all weights of a copy can be trained, which is saved as a model of its own.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import peft
import safetensors
import torch
import transformers
from peft.tuners.lora import LoraLayer

from cvxnn.files.digests import digest_of_file
from cvxnn.files.json_files import read_json, write_json
from cvxnn.files.writing import replacing_folder
from cvxnn.llm.adapted_layers import adapted_layers
from cvxnn.llm.devices import dtype_name
from cvxnn.llm.fine_tuning.config import FineTuningConfig
from cvxnn.llm.identity import is_same_model
from cvxnn.llm.models import LanguageModel, quiet

_RECORD = "fine_tuning.json"
_FILES = ("adapter_config.json", "adapter_model.safetensors")  # of peft


def trainable_model(lm: LanguageModel, config: FineTuningConfig) -> LanguageModel:
    """Return the model that is trained: a second one, so that the given one does not change.

    Parameters
    ----------
    lm : LanguageModel
        A model without adapters.
    config : FineTuningConfig
        Says whether adapters are trained or all weights.

    Returns
    -------
    LanguageModel
        In evaluation mode. With adapters it shares its frozen weights with the given model; without
        it has weights of its own, all of them trainable.

    Raises
    ------
    ValueError
        If the model has adapters already (merge them first), or lacks the target modules.
    """
    if config.trained == "adapters":
        return add_adapter(lm, config)
    _check_plain(lm)
    model = copy.deepcopy(lm.model).requires_grad_(True)
    if config.gradient_checkpointing:
        _checkpoint_activations(model)
    return dataclasses.replace(lm, model=model.eval())


def add_adapter(lm: LanguageModel, config: FineTuningConfig) -> LanguageModel:
    """Make a second model on the same weights, with new adapters.

    Its modules are copies, but its weights are those of the given model: memory grows by the
    adapters only, and the given model is not changed.

    Parameters
    ----------
    lm : LanguageModel
        A model without adapters.
    config : FineTuningConfig
        Settings of the adapters.

    Returns
    -------
    LanguageModel
        The model with adapters, in evaluation mode; only the adapters are trainable.

    Raises
    ------
    ValueError
        If the model has adapters already (merge them first), or lacks the target modules.
    """
    _check_plain(lm)
    model = _twin(lm.model)
    layers = adapted_layers(model, config.target_modules)
    lora = peft.LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=list(layers),
        fan_in_fan_out=any(type(layer).__name__ == "Conv1D" for layer in layers.values()),
    )
    devices = [lm.device] if lm.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), quiet(), _without_type(model):
        torch.manual_seed(config.seed)
        adapted = peft.get_peft_model(model, lora)
    if config.gradient_checkpointing:
        _checkpoint_activations(model)
    lora.base_model_name_or_path = lm.name  # peft would write a path of this machine
    return dataclasses.replace(lm, model=adapted.eval())


def trained_weights(lm: LanguageModel) -> dict[str, torch.nn.Parameter]:
    """Return the weights that are trained.

    Parameters
    ----------
    lm : LanguageModel
        A model with adapters, of which these are trained; one without is trained whole.

    Returns
    -------
    dict of str to torch.nn.Parameter
        The weights by name.
    """
    adapted = isinstance(lm.model, peft.PeftModel)
    return {name: w for name, w in lm.model.named_parameters() if ".lora_" in name or not adapted}


def set_dropout(lm: LanguageModel, on: bool) -> None:
    """Switch the dropout of the adapters; that of the model itself stays off.

    Parameters
    ----------
    lm : LanguageModel
        A model with adapters.
    on : bool
        Whether dropout is on.
    """
    for name, module in lm.model.named_modules():
        if ".lora_dropout" in name:
            module.train(on)
        elif hasattr(module, "gradient_checkpointing"):
            module.training = on  # blocks recompute only then; their children are not switched


def save_adapter(
    lm: LanguageModel, folder: str | os.PathLike[str], record: Mapping[str, object]
) -> None:
    """Write adapters, or a whole model, and a record into a folder, completely or not at all.

    Parameters
    ----------
    lm : LanguageModel
        A model with adapters, of which these are written; one without is written whole.
    folder : path-like
        Folder to write; adapters that were saved there before are replaced.
    record : mapping
        What `load_adapter` needs to recognise the model, and anything else; as JSON holds it.

    Raises
    ------
    FileExistsError
        If the folder holds something else; choose another folder.
    """
    target = Path(folder)
    if target.exists() and not (target / _RECORD).is_file():
        raise FileExistsError(
            f"{target} exists and does not hold an adapter of cvxnn; choose another folder"
        )
    adapted = isinstance(lm.model, peft.PeftModel)
    with replacing_folder(target) as temporary:
        with quiet():
            if adapted:
                lm.model.save_pretrained(temporary, save_embedding_layers=False)
            else:
                lm.model.save_pretrained(temporary)
                lm.tokenizer.save_pretrained(temporary)
        (temporary / "README.md").unlink(missing_ok=True)  # a template with paths of this machine
        files = _digests(temporary) if adapted else {}
        write_json(temporary / _RECORD, {**record, "files": files})


def load_adapter(lm: LanguageModel, folder: str | os.PathLike[str]) -> LanguageModel:
    """Put saved adapters on the model that they were trained on.

    Parameters
    ----------
    lm : LanguageModel
        The model without adapters. It is not changed; the result shares its weights.
    folder : path-like
        Folder that ``FineTuned.save`` wrote.

    Returns
    -------
    LanguageModel
        The model with adapters, frozen, in evaluation mode, with the date that it was trained with.

    Raises
    ------
    FileNotFoundError
        If the folder holds no adapter.
    ValueError
        If the adapter belongs to another model (load that one), or is damaged (save it again), or
        the folder holds a whole model (`load_model` reads it).
    """
    folder = Path(folder)
    if (folder / _RECORD).is_file() and (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds a whole model; load it with load_model({str(folder)!r})")
    for name in (_RECORD, *_FILES):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} does not hold an adapter of cvxnn: it has no {name}; FineTuned.save "
                "writes one"
            )
    record = read_json(folder / _RECORD)
    if record.get("files") != _digests(folder):
        raise ValueError(
            f"the adapter in {folder} is damaged, or was changed: the digests of {_FILES} are not "
            f"those in {_RECORD}; save it again"
        )
    if not is_same_model(lm, str(record.get("dtype")), record.get("fingerprints", {})):
        raise ValueError(
            f"the adapter in {folder} was trained on {record.get('model')} in "
            f"{record.get('dtype')}, and {lm.name} in {dtype_name(lm.dtype)} is another model; "
            "load the one it was trained on"
        )
    try:
        date = datetime.date.fromisoformat(record["date"])
        twin = _twin(lm.model)
        with quiet(), _without_type(twin):
            model = peft.PeftModel.from_pretrained(twin, str(folder))
    except (safetensors.SafetensorError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"the adapter in {folder} is damaged ({error}); save it again") from error
    return dataclasses.replace(lm, model=model.eval().requires_grad_(False), date=date)


def arithmetic(lm: LanguageModel, config: FineTuningConfig) -> torch.dtype | None:
    """Return the type to which the arithmetic of training is cast.

    Parameters
    ----------
    lm : LanguageModel
        The model without adapters.
    config : FineTuningConfig
        Has the requested type.

    Returns
    -------
    torch.dtype or None
        None if the arithmetic has the type of the weights.

    Raises
    ------
    ValueError
        If the weights are too coarse for the requested type; load them in another one.
    """
    if config.trained == "all" and lm.dtype != torch.float32:
        raise ValueError(
            f"the model's weights are {lm.dtype}, in which small steps of all weights are lost; "
            "load them with dtype='float32' (on a GPU the arithmetic is bfloat16 all the same), or "
            "train adapters"
        )
    if lm.dtype == torch.float16 or (config.dtype == "float32" and lm.dtype == torch.bfloat16):
        raise ValueError(
            f"the model's weights are {lm.dtype}, too coarse to train in {config.dtype!r}; load "
            "them with dtype='float32', or with dtype='bfloat16' and train with dtype='auto'"
        )
    half = config.dtype == "bfloat16" or lm.dtype == torch.bfloat16
    if half or (config.dtype == "auto" and lm.device.type == "cuda"):
        return torch.bfloat16
    return None


def merge_adapter(lm: LanguageModel) -> LanguageModel:
    """Return a copy of a model in which the adapters are added to the weights.

    Parameters
    ----------
    lm : LanguageModel
        A model with adapters; it is not changed.

    Returns
    -------
    LanguageModel
        A model without adapters that gives the same, frozen, in evaluation mode; of a model
        without adapters, a copy. If an adapted
        layer shared its weight with another one, as an output layer does with the table of tokens,
        the two are apart from then on.
    """
    model = copy.deepcopy(lm.model)
    if isinstance(model, peft.PeftModel):
        _untie(model)
        model = model.merge_and_unload()
    return dataclasses.replace(lm, model=model.eval().requires_grad_(False))


def _check_plain(lm: LanguageModel) -> None:
    if isinstance(lm.model, peft.PeftModel):
        raise ValueError(
            f"{lm.name} has adapters already; merge them first, FineTuned.merge() or "
            "LanguageModel(lm.model.merge_and_unload(), lm.tokenizer)"
        )


def _checkpoint_activations(model: transformers.PreTrainedModel) -> None:
    """Let a model compute activations twice instead of keeping them."""
    # Older versions of transformers have the second name.
    names = "activation_checkpointing_enable", "gradient_checkpointing_enable"
    enable = next(getattr(model, name) for name in names if hasattr(model, name))
    enable({"use_reentrant": False})


@contextlib.contextmanager
def _without_type(model: transformers.PreTrainedModel) -> Iterator[None]:
    """Hide the type of a model from peft, which takes layers of some types for their experts."""
    config = model.config
    config.model_type = ""  # hides the attribute of the class
    try:
        yield
    finally:
        del config.model_type


def _untie(model: peft.PeftModel) -> None:
    """Give adapted layers that share their weight with other layers a weight of their own."""
    owners = Counter(
        id(weight) for module in model.modules() for weight in module.parameters(recurse=False)
    )
    for module in model.modules():
        layer = module.get_base_layer() if isinstance(module, LoraLayer) else None
        if layer is not None and owners[id(layer.weight)] > 1:
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
            base = model.get_base_model()
            for config in (base.config, base.config.get_text_config()):
                config.tie_word_embeddings = False


def _digests(folder: Path) -> dict[str, str]:
    return {name: digest_of_file(folder / name) for name in _FILES}


def _twin(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Copy the modules of a model around the same numbers, which are frozen."""
    memo: dict[int, torch.Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    for weight in model.parameters():
        plain = type(weight) is torch.nn.Parameter
        memo[id(weight)] = torch.nn.Parameter(weight.data, requires_grad=False) if plain else weight
    return copy.deepcopy(model, memo)
