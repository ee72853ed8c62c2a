"""Rows of a program on the devices of a mesh, which may belong to several processes.

Data, masks, targets and what a solver keeps for each row are divided among the devices; weights are
on all of them. XLA adds one sum over the devices to each product that runs over the rows, and to
each number that is a sum over them. Each process gives the rows that it has read, and gets the dual
point of these rows back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cvxnn.convex._padding import bucket
from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.operators import PairedOperator
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Start
from cvxnn.convex.streamed_rows import RowReader, put_stored
from cvxnn.numerics.stored_rows import is_stored

# Names in the messages of sums that a process did not join.
_TRANSPORTS = ("Gloo", "NCCL", "MPI", "coordination")


@contextmanager
def ends_noticed() -> Iterator[None]:
    """Say in plain words, within a scope, that another process has ended."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or not any(name in str(error) for name in _TRANSPORTS):
            raise
        raise ConnectionError(
            "another process of the mesh has ended, or its machine cannot be reached; start all "
            "processes again. With checkpoint=, they go on where they wrote last."
        ) from error


class RowShards:
    """The rows of one problem, divided among the devices of a mesh.

    Parameters
    ----------
    mesh : jax.sharding.Mesh
        The devices; all its axes divide the rows.

    Attributes
    ----------
    bytes_sent : int
        What was put on the devices of this process so far.
    """

    def __init__(self, mesh: Mesh) -> None:
        # XLA decides where each intermediate array lies.
        mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)
        self._mesh = mesh
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._by_rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._n_devices, self._n_here = mesh.devices.size, len(mesh.local_devices)
        self.bytes_sent = 0
        self._readers: list[RowReader] = []

    def padded(self, n_rows: int) -> int:
        """Return how many rows a process has on its devices.

        Each device of the mesh has as many as one of the process with most rows needs.
        """
        return self._n_here * self._on_each(-(-n_rows // self._n_here))

    def _on_each(self, n_rows: int) -> int:
        return bucket(int(self._of_processes(n_rows).max()))

    # Arrays -------------------------------------------------------------------------------

    def program(self, program: ConvexProgram) -> ConvexProgram:
        """Put a program, :meth:`padded` already, on the devices."""
        op = program.operator
        if isinstance(op, PairedOperator):  # no pair needs rows of another device
            op = op.grouped(self._n_here, self._on_each)
            op = replace(op, pairs=self._divide(op.pairs), n_groups=self._n_devices)
        rows = self._divide((op.mask, program.y, program.sample_weight))
        rest = {name: getattr(program, name) for name in ("alpha", "loss", "penalty", "skip")}
        X, (mask, y, sample_weight) = self._matrix(op.X), rows
        op = replace(op, X=X, mask=mask)
        return replace(program, operator=op, y=y, sample_weight=sample_weight, **self._repeat(rest))

    def objective(self, objective: Any) -> Any:
        """Put an objective ``WithRows`` on the devices, with rows of zeros where they are few."""

        def divide(array: Any) -> Any:
            array = np.asarray(array)
            more = self.padded(len(array)) - len(array)
            return self._divide(np.pad(array, [(0, more), *[(0, 0)] * (array.ndim - 1)]))

        rows = {name: jax.tree.map(divide, part) for name, part in objective.by_rows().items()}
        rest = {f.name: getattr(objective, f.name) for f in fields(objective) if f.name not in rows}
        return replace(objective, **rows, **self._repeat(rest))

    def start(self, start: Start | None) -> Start | None:
        """Put a start, padded already, on the devices."""
        if start is None:
            return None
        weights, rho = start.weights, start.rho
        if jax.process_count() > 1:  # a checkpoint may be newer in one process than in another
            weights, rho = multihost_utils.broadcast_one_to_all((weights, rho))
        weights, rho = self._repeat((weights, rho))
        return Start(weights, self._divide(start.dual), rho)

    def weights(self, weights: Any) -> Any:
        """Return weights, which are the same in all processes, on the host."""
        return np.asarray(jax.device_put(weights, self._whole))

    def dual(self, dual: DualPoint | None) -> DualPoint | None:
        """Return the rows of a dual point that belong to this process, on the host."""

        def local(array: Any) -> Any:
            array = jax.device_put(array, self._by_rows)
            shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
            return np.concatenate([np.asarray(shard.data) for shard in shards])

        return jax.tree.map(local, dual)

    def _matrix(self, X: Any) -> Any:
        if not is_stored(X):
            return self._divide(X)
        found = put_stored(X, self._by_rows, self._mesh)
        self._readers += found.readers
        self.bytes_sent += found.bytes_sent
        return found.X

    def _divide(self, arrays: Any) -> Any:
        return self._put(arrays, self._by_rows)

    def _repeat(self, arrays: Any) -> Any:
        return self._put(arrays, self._whole)

    def _put(self, arrays: Any, where: NamedSharding) -> Any:
        copies = self._n_here if where.is_fully_replicated else 1

        def put(array: Any) -> Any:
            array = np.asarray(array)
            self.bytes_sent += copies * array.nbytes
            return jax.make_array_from_process_local_data(where, array)

        return jax.tree.map(put, arrays)

    # What all processes have to agree on --------------------------------------------------

    def mean(self, value: float, weight: float) -> float:
        """Return the weighted mean of the processes' values."""
        values, weights = self._of_processes(value), self._of_processes(weight)
        return float(values @ weights / weights.sum())

    def any(self, condition: bool) -> bool:
        """Return whether the condition holds in a process."""
        return bool(self._of_processes(condition).any())

    def _of_processes(self, value: float) -> Any:
        if jax.process_count() == 1:
            return np.array([value])
        return np.asarray(multihost_utils.process_allgather(np.asarray(value)))
