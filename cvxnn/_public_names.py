"""Public names of packages: they load when first used, and a wrong one gives a hint."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lazy_loader

_PUBLIC = re.compile(r'^    "(\w+)",$', re.MULTILINE)


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], Any]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package, from the stub beside it.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    file : str
        Its ``__file__``.

    Returns
    -------
    tuple of (callable, callable, list of str)
        What ``lazy_loader.attach_stub`` gives. An unknown name that is public in another package of
        cvxnn, or that resembles one of this package, is an error that says so.
    """
    load, names, public = lazy_loader.attach_stub(package, file)

    def load_or_hint(name: str) -> Any:
        if name in names() or name.startswith("_"):
            return load(name)
        raise AttributeError(f"{package} has no {name!r}{_hint(package, name, public)}")

    return load_or_hint, names, public


def _hint(package: str, name: str, public: list[str]) -> str:
    """Return where a name is public, or which name it resembles; empty if nothing is found."""
    root = Path(__file__).parent
    homes = []
    for stub in sorted(root.rglob("__init__.pyi")):
        if name in _PUBLIC.findall(stub.read_text(encoding="utf-8")):
            homes.append(".".join(["cvxnn", *stub.parent.relative_to(root).parts]))
    if homes:
        return f"; it is in {' and '.join(homes)}"
    match = difflib.get_close_matches(name, public, n=1)
    return f"; did you mean {package}.{match[0]}?" if match else ""
