"""One formula for both array libraries: NumPy on the host, JAX inside compiled solvers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import issparse

Array: TypeAlias = Any
"""An array of either library."""

_T = TypeVar("_T")


def namespace(array: Array) -> Any:
    """NumPy for NumPy arrays, ``jax.numpy`` for everything else, tracers included."""
    return np if isinstance(array, np.ndarray | np.generic) else jnp


def register_pytree(cls: type[_T]) -> type[_T]:
    """Register a dataclass of leaves only as a pytree whose structure knows its class.

    To JAX (0.10) the structures of two classes given to ``register_dataclass`` are equal where
    their fields are: now and then one loss then runs with what was compiled for another.
    """
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]

    def flatten(tree: _T) -> tuple[list[Any], None]:
        return [getattr(tree, name) for name in names], None

    jax.tree_util.register_pytree_node(cls, flatten, lambda _, leaves: cls(*leaves))
    return cls


def is_sparse(array: Any) -> bool:
    """Whether an array is one of SciPy's sparse ones."""
    return bool(issparse(array))
