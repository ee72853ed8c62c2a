"""Helpers for formulas that serve two array libraries: NumPy, and JAX in compiled solvers.

JAX is imported where it is used, since predictions need NumPy only.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeAlias, TypeVar

import numpy as np
from scipy.sparse import issparse

from cvxnn.numerics.jax_import import import_jax

Array: TypeAlias = Any
"""An array of either library."""

_T = TypeVar("_T")


def namespace(array: Array) -> Any:
    """Return NumPy for arrays of NumPy and SciPy, ``jax.numpy`` for all else, tracers included."""
    if isinstance(array, np.ndarray | np.generic) or issparse(array):
        return np
    import_jax()
    import jax.numpy as jnp

    return jnp


def register_pytree(cls: type[_T]) -> type[_T]:
    """Register a dataclass whose fields are all leaves as a pytree that knows its class.

    Use it as a decorator above ``@dataclass(frozen=True)``, for losses and penalties of your own.

    To JAX (0.10) the structures of two classes given to ``register_dataclass`` are equal where
    their fields are: occasionally, one loss then runs with code that was compiled for another.
    """
    import_jax()
    import jax

    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]

    def flatten(tree: _T) -> tuple[list[Any], None]:
        return [getattr(tree, name) for name in names], None

    jax.tree_util.register_pytree_node(cls, flatten, lambda _, leaves: cls(*leaves))
    return cls


def is_sparse(array: Any) -> bool:
    """Return True for an array that is one of SciPy's sparse ones."""
    return bool(issparse(array))


def refuse_sparse(array: Any, what: str, instead: str = "") -> None:
    """Raise if an array is sparse.

    Parameters
    ----------
    array : object
        Data.
    what : str
        What needs them dense, for the message.
    instead : str, default=""
        What would take them as they are: "Ridge, which ...".

    Raises
    ------
    TypeError
        The message names the remedies.
    """
    if issparse(array):
        others = f", or use {instead}" if instead else ""
        raise TypeError(
            f"X is sparse ({type(array).__name__}), and {what} needs a dense array; pass "
            f"X.toarray(){others}."
        )
