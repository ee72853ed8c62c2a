"""Rows that stay on the disk, as one matrix in code that is compiled for the devices of a mesh.

1. Each device has a run of the rows, and computes its part of a product block by block. Sums over
   all rows are then added over the devices, once a product.
2. Compiled code asks this process for each block; a thread reads the next one meanwhile. After the
   last block comes the first, for the next product.
3. Nothing of the rows is kept: of each device there are at most two blocks that were read, and two
   on their way.
"""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Self
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from cvxnn.numerics.arrays import register_pytree
from cvxnn.numerics.stored_rows import StoredRows, read_ahead

Floats = NDArray[np.floating]

# Part of a device's memory that rows may take which are sent there once; others are streamed.
_RESIDENT = 0.5

_next_number = itertools.count()
_readers: WeakValueDictionary[int, RowReader] = WeakValueDictionary()


class RowReader:
    """Reads the rows of one device, a block ahead of what is asked for.

    Parameters
    ----------
    rows : StoredRows
        The rows of the device.

    Attributes
    ----------
    number : int
        What compiled code knows it by, as long as it is referred to.
    """

    def __init__(self, rows: StoredRows) -> None:
        self.rows = rows
        self.number = next(_next_number)
        _readers[self.number] = self
        self._reading = ThreadPoolExecutor(1)
        self._lock = threading.Lock()
        self._coming: tuple[int, Future[Floats]] | None = None

    def block(self, first: int, n_rows: int) -> Floats:
        """Return a block, and begin to read the one after it."""
        with self._lock:
            known, self._coming = self._coming, None
        if known is not None and known[0] == first:
            found = known[1].result()
        else:
            found = self.rows[first : first + n_rows]
        last = len(self.rows) - n_rows
        following = 0 if first == last else min(first + n_rows, last)
        coming = self._reading.submit(self.rows.__getitem__, slice(following, following + n_rows))
        with self._lock:
            self._coming = following, coming
        return found


@register_pytree
@dataclass(frozen=True)
class StreamedRows:
    """A matrix of rows on the disk, for the products of compiled solvers.

    Attributes
    ----------
    numbers : Array of int, shape (n_devices,)
        Number of each device's reader, in its process.
    shape : tuple of int
        Rows on all devices, and columns.
    dtype : numpy.dtype
        Precision of what is read.
    n_block : int
        Rows of a block.
    mesh : jax.sharding.Mesh
        The devices.
    absolute : bool, default=False
        Whether to take the absolute values of all entries.
    """

    numbers: Any
    shape: tuple[int, int] = field(metadata={"static": True})
    dtype: np.dtype[Any] = field(metadata={"static": True})
    n_block: int = field(metadata={"static": True})
    mesh: Mesh = field(metadata={"static": True})
    absolute: bool = field(default=False, metadata={"static": True})

    ndim = 2

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __abs__(self) -> Self:
        """Return the absolute values of all entries."""
        return replace(self, absolute=True)

    def __matmul__(self, right: Array) -> Array:
        """Return the product with a matrix, whose rows are divided like those of this one."""

        def local(number: Array, right: Array) -> Array:
            def fill(k: Array, out: Array) -> Array:
                first, X = self._block(number, k)
                return jax.lax.dynamic_update_slice_in_dim(out, X @ right, first, axis=0)

            out = jnp.zeros((self._n_local, right.shape[1]), right.dtype)
            return jax.lax.fori_loop(0, self._n_blocks, fill, out)

        return self._on_each(local, (PartitionSpec(),), self._rows)(self.numbers, right)

    def __rmatmul__(self, left: Array) -> Array:
        """Return the product of a matrix with this one, which is the same on all devices."""

        def local(number: Array, left: Array) -> Array:
            def add(k: Array, total: Array) -> Array:
                first, X = self._block(number, k)
                part = jax.lax.dynamic_slice_in_dim(left, first, self.n_block, axis=1)
                # The last block begins within the one before it.
                new = first + jnp.arange(self.n_block) >= k * self.n_block
                return total + jnp.where(new, part, 0) @ X

            total = jnp.zeros((len(left), self.shape[1]), left.dtype)
            total = jax.lax.fori_loop(0, self._n_blocks, add, total)
            return jax.lax.psum(total, self.mesh.axis_names)

        columns = PartitionSpec(None, self.mesh.axis_names)
        return self._on_each(local, (columns,), PartitionSpec())(self.numbers, left)

    def __getitem__(self, rows: Array) -> Array:
        """Return some of the rows, on all devices."""

        def local(number: Array, rows: Array) -> Array:
            own = rows - jax.lax.axis_index(self.mesh.axis_names) * self._n_local
            found = self._asked(_read_some, rows.shape, number[0], own)
            return jax.lax.psum(found, self.mesh.axis_names)

        found = self._on_each(local, (PartitionSpec(),), PartitionSpec())(self.numbers, rows)
        return jnp.abs(found) if self.absolute else found

    @property
    def _rows(self) -> PartitionSpec:
        return PartitionSpec(self.mesh.axis_names)

    @property
    def _n_local(self) -> int:
        return self.shape[0] // self.mesh.devices.size

    @property
    def _n_blocks(self) -> int:
        return -(-self._n_local // self.n_block)

    def _block(self, number: Array, k: Array) -> tuple[Array, Array]:
        """Return the first row of a device's k-th block, and the block."""
        first = jnp.minimum(k * self.n_block, self._n_local - self.n_block).astype(jnp.int32)
        X = self._asked(partial(_read_block, self.n_block), (self.n_block,), number[0], first)
        return first, jnp.abs(X) if self.absolute else X

    def _asked(self, read: Any, shape: tuple[int, ...], *arguments: Array) -> Array:
        """Return what a function of this process reads."""
        # The thread that JAX calls it in would round float64 to float32: it gets the bits.
        words = self.dtype.itemsize // 4
        form = jax.ShapeDtypeStruct(
            (*shape, self.shape[1], words)[: None if words > 1 else -1], np.uint32
        )
        found = jax.pure_callback(
            lambda *a: read(*a).view(np.uint32).reshape(form.shape), form, *arguments
        )
        return jax.lax.bitcast_convert_type(found, self.dtype)

    def _on_each(self, local: Any, others: tuple[PartitionSpec, ...], out: PartitionSpec) -> Any:
        specs = (self._rows, *others)
        return jax.shard_map(local, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)


class RowsOnDevices(NamedTuple):
    """Stored rows as compiled code sees them.

    Attributes
    ----------
    X : StreamedRows or Array
        The matrix; an array where accelerators have room for it.
    readers : list of RowReader
        What reads for the devices of this process; they have to be kept as long as the matrix.
    bytes_sent : int
        What was put on the devices by now.
    """

    X: Any
    readers: list[RowReader]
    bytes_sent: int


def put_stored(rows: StoredRows, where: NamedSharding, mesh: Mesh) -> RowsOnDevices:
    """Divide the stored rows of this process among its devices.

    Parameters
    ----------
    rows : StoredRows
        Equally many for each device.
    where : jax.sharding.NamedSharding
        How the first axis is divided among the devices of the mesh, in equal parts.
    mesh : jax.sharding.Mesh
        The devices.
    """
    devices = [device for device in mesh.devices.flat if device in set(mesh.local_devices)]
    n_local = len(rows) // len(devices)
    shape = n_local * mesh.devices.size, rows.shape[1]
    order: Any = where.addressable_devices_indices_map(shape)
    devices.sort(key=lambda device: order[device][0].start or 0)
    parts = [rows.take(np.arange(n_local) + k * n_local) for k in range(len(devices))]
    n_bytes = n_local * rows.shape[1] * rows.dtype.itemsize
    if all(n_bytes <= _RESIDENT * _memory(device) for device in devices):
        arrays = [_sent(part, device) for part, device in zip(parts, devices, strict=True)]
        whole = jax.make_array_from_single_device_arrays(shape, where, arrays)
        return RowsOnDevices(whole, [], n_bytes * len(devices))
    readers = [RowReader(part) for part in parts]
    numbers = np.array([reader.number for reader in readers], np.int32)
    first = next(parts[0].blocks())
    X = StreamedRows(
        jax.make_array_from_process_local_data(where, numbers),
        shape,
        rows.dtype,
        first.stop,
        mesh,
    )
    return RowsOnDevices(X, readers, 0)


def _memory(device: jax.Device) -> float:
    """Return the bytes that a device has to itself: 0 of a processor, which shares the host's."""
    return float((device.memory_stats() or {}).get("bytes_limit", 0))


def _sent(rows: StoredRows, device: jax.Device) -> Array:
    """Put rows on a device block by block, the next of which is read meanwhile."""
    with jax.default_device(device):
        out = jnp.zeros(rows.shape, rows.dtype)
    for part, block in read_ahead(rows, rows.blocks()):
        out = jax.block_until_ready(
            _filled(out, jax.device_put(block, device), np.int32(part.start))
        )
    return out


@partial(jax.jit, donate_argnums=(0,))
def _filled(out: Array, block: Array, first: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(out, block, first, axis=0)


def _read_block(n_rows: int, number: Any, first: Any) -> Floats:
    return _readers[int(number)].block(int(first), n_rows)


def _read_some(number: Any, own: Any) -> Floats:
    """Return some rows of a device, and zeros for those of other devices."""
    rows, own = _readers[int(number)].rows, np.asarray(own)
    here = (own >= 0) & (own < len(rows))
    out = np.zeros((*own.shape, rows.shape[1]), rows.dtype)
    if here.any():
        out[here] = rows[own[here]]
    return out
