"""The accelerator of JAX, if there is one, and when it pays to use it.

Compiled solvers run on JAX's default device anyhow. For those that work on the host a cost model
decides: data have to travel, and code has to be compiled.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cvxnn.numerics.threads import blas_threads

if TYPE_CHECKING:
    import jax
    from jax.sharding import Mesh

# Assumptions of the model. One core of a server did 1.7e10 flops a second in products of float32,
# asv_bench/device/h200.jsonl; that of float64 is half. An accelerator does far more in float32, but
# the cheap ones have little float64. To start JAX there and to compile takes four seconds.
_CORE = {4: 1.7e10, 8: 0.8e10}
_ACCELERATOR = {4: 1e13, 8: 2e11}
_BUS = 4e9  # bytes a second, from pageable memory
_START = 4.0
# Part of the accelerator's memory that one problem may take.
_MEMORY = 0.8


class Work(NamedTuple):
    """What a solve takes.

    Attributes
    ----------
    host_flops, flops : float
        Operations as the host does it, and as an accelerator does.
    host_dtype, dtype : numpy.dtype
        Precision of either: float32 or float64.
    sent : float
        Bytes that have to travel to the accelerator.
    memory : float
        Bytes that are needed there.
    """

    host_flops: float
    host_dtype: np.dtype[Any]
    flops: float
    dtype: np.dtype[Any]
    sent: float
    memory: float

    @property
    def seconds_on_host(self) -> float:
        """Estimated seconds on all cores of the host."""
        return self.host_flops / (_CORE[self.host_dtype.itemsize] * blas_threads())

    @property
    def seconds_on_accelerator(self) -> float:
        """Estimated seconds on an accelerator, with start, compilation and transfer."""
        return _START + self.sent / _BUS + self.flops / _ACCELERATOR[self.dtype.itemsize]

    def accelerator(self) -> Mesh | None:
        """Return JAX's default device as a mesh, if it is an accelerator and pays."""
        if self.seconds_on_accelerator >= self.seconds_on_host:
            return None
        device = _device()
        if device is None:
            return None
        from jax.sharding import Mesh

        limit = (device.memory_stats() or {}).get("bytes_limit", np.inf)
        return Mesh(np.array([device]), ("rows",)) if self.memory < _MEMORY * limit else None


def _device() -> jax.Device | None:
    """Return JAX's default device if it is no processor; to ask JAX starts it."""
    if not _is_installed():
        return None
    import jax.numpy as jnp

    device: jax.Device = next(iter(jnp.zeros(()).devices()))
    return None if device.platform == "cpu" else device


def _is_installed() -> bool:
    """Return whether a plugin of JAX for another device than a processor is there."""
    modules = ("jax_plugins", "libtpu")
    if not (any(map(find_spec, modules)) or entry_points(group="jax_plugins")):
        return False
    import jax

    return getattr(jax.config, "jax_platforms", None) != "cpu"
