"""Helpers for formulas that serve two array libraries: NumPy, and JAX in compiled solvers.

JAX is imported where it is used, since predictions and most fits need NumPy only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
from scipy.sparse import issparse

from cvxnn.numerics.jax_import import prepare_for_jax, when_jax_is_there
from cvxnn.numerics.stored_rows import StoredRows

Array: TypeAlias = Any
"""An array of either library."""

_T = TypeVar("_T")

# Columns of wide rows that are changed at a time.
_COLUMNS = 128

# Fields of registered classes that are leaves, or hold some.
_leaf_fields: dict[type, list[str]] = {}

prepare_for_jax()


def namespace(array: Array) -> Any:
    """Return NumPy for arrays of the host, ``jax.numpy`` for all else, tracers included."""
    if _is_of_host(array):
        return np
    import jax.numpy as jnp

    return jnp


def _is_of_host(array: Any) -> bool:
    return isinstance(array, np.ndarray | np.generic | StoredRows) or bool(issparse(array))


def by_columns(product: Callable[[Array], Array], X: Array) -> Array:
    """Return a product that has a column for each of ``X``, of wide rows some columns at a time.

    No changed copy of all rows is then held. Rows may be divided among devices; those that are not
    an array of either library, sparse or read from a disk, are taken whole.
    """
    jax: Any = sys.modules.get("jax")
    compiled = jax is not None and isinstance(X, jax.Array)
    if not (compiled or isinstance(X, np.ndarray)) or X.shape[1] <= 2 * _COLUMNS:
        return product(X)
    n_whole, rest = divmod(X.shape[1], _COLUMNS)
    last = [product(X[:, -rest:])] if rest else []
    starts = _COLUMNS * np.arange(n_whole)
    if not compiled:
        return np.concatenate([product(X[:, a : a + _COLUMNS]) for a in starts] + last, axis=1)
    import jax.numpy as jnp

    whole = jax.lax.map(
        lambda first: product(jax.lax.dynamic_slice_in_dim(X, first, _COLUMNS, axis=1)), starts
    )
    return jnp.concatenate([jnp.moveaxis(whole, 0, 1).reshape(whole.shape[1], -1), *last], axis=1)


def register_pytree(cls: type[_T]) -> type[_T]:
    """Register a dataclass as a pytree that knows its class.

    Use it as a decorator above ``@dataclass(frozen=True)``, for losses, penalties, objectives and
    solvers of your own. Fields are leaves, except those with ``field(metadata={"static": True})``.

    To JAX (0.10) the structures of two classes given to ``register_dataclass`` are equal where
    their fields are: about one time in a hundred, one class then runs with code that was compiled
    for the other.
    """
    static: list[str] = []
    names: list[str] = []
    for each in fields(cls):  # type: ignore[arg-type]
        (static if each.metadata.get("static", False) else names).append(each.name)
    _leaf_fields[cls] = names
    when_jax_is_there(partial(_register, cls, names, static))
    return cls


def _register(cls: type[_T], names: list[str], static: list[str]) -> None:
    """Tell JAX which fields of a class are leaves and which are static."""
    import jax

    keys = [jax.tree_util.GetAttrKey(name) for name in names]

    def flatten(tree: _T) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(tree, name) for name in names], tuple(getattr(tree, s) for s in static)

    def flatten_with_keys(tree: _T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        leaves, fixed = flatten(tree)
        return list(zip(keys, leaves, strict=True)), fixed

    def unflatten(fixed: tuple[Any, ...], leaves: Iterable[Any]) -> _T:
        return cls(**dict(zip((*names, *static), (*leaves, *fixed), strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return a program, or a part of one, with a function of each leaf in its place.

    It is ``jax.tree.map``, which is asked for what is neither an array of the host, nor a number,
    nor one of the nodes of a program on the host.

    Parameters
    ----------
    function : callable
        Function of a leaf.
    tree : pytree
        Program, loss, weights, dual point.
    """
    if tree is None:
        return None
    if _is_of_host(tree) or isinstance(tree, int | float):
        return function(tree)
    if type(tree) in _leaf_fields:
        names = _leaf_fields[type(tree)]
        return replace(tree, **{name: map_leaves(function, getattr(tree, name)) for name in names})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_leaves(function, part) for part in tree))
    import jax

    return jax.tree.map(function, tree)


def leaves_of(tree: Any) -> list[Any]:
    """Return the leaves of a tree as a list.

    Parameters
    ----------
    tree : pytree
        As for :func:`map_leaves`.
    """
    found: list[Any] = []

    def note(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    map_leaves(note, tree)
    return found


def node_classes(tree: Any) -> tuple[type, ...]:
    """Return the class of each node of a pytree, for code compiled for no others.

    As a static argument of ``jax.jit`` it tells classes apart that ``register_dataclass`` made
    equal to JAX; see :func:`register_pytree`.
    """
    import jax

    found: list[type] = []

    def note(node: Any) -> bool:
        if not jax.tree_util.all_leaves([node]):
            found.append(type(node))
        return False

    jax.tree.leaves(tree, is_leaf=note)
    return tuple(found)


def is_sparse(array: Any) -> bool:
    """Return True for an array that is one of SciPy's sparse ones."""
    return bool(issparse(array))


def dense(array: Any) -> Any:
    """Return a sparse array as a dense one, and others as they are.

    Parameters
    ----------
    array : ndarray or sparse array
        Rows.
    """
    return array.toarray() if is_sparse(array) else array


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
