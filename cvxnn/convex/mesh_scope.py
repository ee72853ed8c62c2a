"""The devices that share the rows of every program within a scope."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax.sharding import Mesh

_mesh: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextmanager
def on_mesh(mesh: Mesh) -> Iterator[None]:
    """Let the devices of a mesh share the rows of every program within a scope.

    It is ``mesh=`` of ``solve`` for all that calls it, estimators above all. Solvers that would not
    gain by it (``InteriorPoint``, and ``Ridge`` where it factors a matrix or X is sparse), and
    objectives without rows, stay as they are.

    Parameters
    ----------
    mesh : jax.sharding.Mesh
        Devices of this process, such as ``jax.make_mesh((4,), ("rows",))``.

    Raises
    ------
    TypeError
        If ``mesh`` is no mesh.
    ValueError
        If the devices belong to several processes: an estimator has to see all rows. Call ``solve``
        with ``mesh=`` in each of them.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from cvxnn import ConvexReLURegressor
    >>> from cvxnn.convex import Cronos, on_mesh
    >>> X = np.random.RandomState(0).randn(40, 2)
    >>> model = ConvexReLURegressor(formulation="relu", solver=Cronos(), n_patterns=4)
    >>> with on_mesh(jax.make_mesh((1,), ("rows",))):
    ...     model = model.fit(X, np.abs(X[:, 0]))
    """
    from jax.sharding import Mesh

    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh is a {type(mesh).__name__}; expected a jax.sharding.Mesh, such as "
            'jax.make_mesh((4,), ("rows",)).'
        )
    if len(mesh.local_devices) < mesh.devices.size:
        raise ValueError(
            "the devices of the mesh belong to several processes, of which an estimator would see "
            "the own rows alone; call solve(..., mesh=mesh) in each process instead."
        )
    token = _mesh.set(mesh)
    try:
        yield
    finally:
        _mesh.reset(token)


def mesh_of_scope() -> Mesh | None:
    """Return the mesh of :func:`on_mesh`; None outside its scope."""
    return _mesh.get()
