"""Progress of loading: the libraries show bars of their own for parts of it, or nothing."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import transformers

from cvxnn._progress import Progress

_LABEL = "model"
_MILLION = 10**6
_PAUSE = 0.5  # seconds between two looks at what is fetched


@contextlib.contextmanager
def fetching_shown(name: str, new: Callable[..., Progress]) -> Iterator[None]:
    """Show how much of a model is fetched from the Hub, within this block.

    The files that the Hub's cache gets are watched, as they grow in whichever way they are fetched.

    Parameters
    ----------
    name : str
        Name of the model on the Hub.
    new : callable
        Makes a `Progress` from a label, a total and a unit.
    """
    from huggingface_hub import constants

    files = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    over, before = threading.Event(), _bytes_in(files)

    def watch() -> None:
        done = 0
        with new(_LABEL, None, "MB fetched") as line:
            while not over.wait(_PAUSE):
                fetched = (_bytes_in(files) - before) // _MILLION
                if fetched > done:  # nothing is shown of a model that is there
                    line.update(fetched - done)
                    done = fetched

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):  # files that are renamed, or a folder that is not there
        for file in folder.iterdir():
            total += file.stat().st_size
    return total


@contextlib.contextmanager
def tensors_shown(new: Callable[..., Progress]) -> Iterator[None]:
    """Show how many tensors transformers has read, within this block.

    Parameters
    ----------
    new : callable
        Makes a `Progress` from a label, a total and a unit.
    """
    set_hook = getattr(transformers.utils.logging, "set_tqdm_hook", None)
    if set_hook is None:  # in earlier versions the bar cannot be had
        yield
        return

    def counted(items: Iterable[Any]) -> Iterator[Any]:
        with new(_LABEL, len(items), "tensors read") as progress:  # type: ignore[arg-type]
            for item in items:
                yield item
                progress.update()

    def bar(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        own = str(options.get("desc")).startswith("Loading") and hasattr(args[0], "__len__")
        return counted(args[0]) if own else factory(*args, **options)

    before = set_hook(bar)
    try:
        yield
    finally:
        set_hook(before)


@contextlib.contextmanager
def conversion_shown(file: str | os.PathLike[str], new: Callable[..., Progress]) -> Iterator[None]:
    """Show how many weights of a GGUF file are converted, within this block.

    Parameters
    ----------
    file : path-like
        The file.
    new : callable
        Makes a `Progress` from a label, a total and a unit.
    """
    import gguf

    convert, done = gguf.dequantize, 0
    line: Progress | None = None
    with contextlib.ExitStack() as stack:

        def counted(*arguments: Any) -> Any:
            nonlocal done, line
            if line is None:
                tensors = gguf.GGUFReader(os.fspath(file)).tensors
                total = sum(int(tensor.n_elements) for tensor in tensors)
                line = new(_LABEL, total // _MILLION, "million weights converted")
                stack.enter_context(line)
            weights = convert(*arguments)
            before, done = done // _MILLION, done + weights.size
            line.update(done // _MILLION - before)
            return weights

        gguf.dequantize = counted
        try:
            yield
        finally:
            gguf.dequantize = convert
