"""Progress of loading: transformers counts tensors in bars of its own, and gguf says nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import transformers

from cvxnn._progress import Progress

_LABEL = "model"
_MILLION = 10**6


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
