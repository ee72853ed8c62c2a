"""Optional dependencies, imported when first needed."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency or say which extra brings it.

    Parameters
    ----------
    module : str
        Dotted name of the module, e.g. ``"matplotlib.pyplot"``.
    extra : str
        The extra of ``cvxnn`` that installs it, e.g. ``"plot"``.

    Returns
    -------
    types.ModuleType
        The imported module.

    Raises
    ------
    ImportError
        If the module is missing; install it with ``pip install "cvxnn[<extra>]"``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"this feature needs the package {package!r}, which could not be imported ({error}); "
            f'install it with: pip install "cvxnn[{extra}]"'
        ) from error
