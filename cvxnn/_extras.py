"""Optional dependencies: checked at the door of the package that needs them, or when first used."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType


def check_packages(*packages: str, extra: str) -> None:
    """Refuse to continue without the packages of an extra.

    A package of cvxnn whose modules import optional packages at their top calls this first, in its
    ``__init__.py``. The packages are looked for, not imported, which takes well below 1 ms each.

    Parameters
    ----------
    *packages : str
        Names of the packages, e.g. ``"torch"``.
    extra : str
        The extra of ``cvxnn`` that installs them, e.g. ``"llm"``.

    Raises
    ------
    ImportError
        If a package is missing; install it with ``pip install "cvxnn[<extra>]"``.
    """
    for package in packages:
        try:
            if importlib.util.find_spec(package) is not None:
                continue
            reason: Exception = ModuleNotFoundError(f"No module named {package!r}", name=package)
        except (ImportError, ValueError) as error:  # ValueError: imported in an unusual way
            reason = error
        raise _missing(package, extra, reason) from reason


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency where it is used.

    This is for dependencies of single functions; a package of cvxnn that needs an extra as a whole
    calls `check_packages` at its door.

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
        raise _missing(module.partition(".")[0], extra, error) from error


def _missing(package: str, extra: str, reason: Exception) -> ImportError:
    return ImportError(
        f"this feature needs the package {package!r}, which could not be imported ({reason}); "
        f'install it with: pip install "cvxnn[{extra}]"'
    )
