"""Sums over devices and operations of each device, counted in what XLA makes of an iteration.

``python asv_bench/processes/communication.py`` compiles an iteration with its certificate, 131,072
rows of 4,096 features with 64 patterns in float32, for 2, 4 and 8 devices of a CPU. It is given
shapes alone: nothing is computed. Names of classes (``RidgeOnDevices``) choose. It appends to
``communication.jsonl`` beside it.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asv_bench import raw_results
from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    GatedOperator,
    ProximalGradient,
    Ridge,
    SquaredL2,
    compiled_steps,
)
from cvxnn.convex.solvers.cronos import cronos
from cvxnn.convex.solvers.ridge.on_devices import RidgeOnDevices
from cvxnn.numerics.jax_import import precision

RESULTS = Path(__file__).with_suffix(".jsonl")
ROWS, FEATURES, PATTERNS = 131_072, 4096, 64
PLACES = ("certificate", "iteration", "conjugate gradient")


def compiled(solver: Any, formulation: str, n_devices: int, n_rows: int) -> Any:
    """Compile an iteration with its certificate, as ``solve`` calls it."""
    mesh = Mesh(np.array(jax.devices()[:n_devices]), ("rows",), axis_types=(AxisType.Auto,))

    def shape(sizes: tuple[int, ...], dtype: Any = np.float32) -> Any:
        spec = PartitionSpec("rows") if sizes and sizes[0] == n_rows else PartitionSpec()
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=NamedSharding(mesh, spec))

    program = ConvexProgram(
        GatedOperator(shape((n_rows, FEATURES)), shape((n_rows, PATTERNS), np.bool_)),
        shape((n_rows, 1)),
        shape(()),
        sample_weight=shape((n_rows,)),
        formulation=formulation,
        **({"penalty": SquaredL2()} if isinstance(solver, RidgeOnDevices) else {}),
    )

    def placed(state: Any) -> Any:
        return jax.tree.map(lambda leaf: shape(leaf.shape, leaf.dtype), state)

    state = placed(jax.eval_shape(compiled_steps.compiled_init, program, solver, None))
    if isinstance(solver, Cronos):
        factoring = program, solver, state.rows, state.rho
        state = state._replace(factors=placed(jax.eval_shape(cronos._factor, *factoring)))
    return compiled_steps.compiled_advance.lower(
        program, solver, state, shape((), np.int32)
    ).compile()


def sums(text: str) -> dict[str, dict[str, int]]:
    """Return how many sums of arrays of which shape there are, by the place that repeats them."""
    found: dict[str, Counter[str]] = {place: Counter() for place in PLACES}
    for line in text.splitlines():
        if re.search(r" all-reduce(-start)?\(", line) is None:
            continue
        result = line.split(" all-reduce")[0].split("=", 1)[1]
        name = re.search(r'op_name="([^"]*)"', line)
        depth = 0 if name is None else name[1].count("while/body")
        for shape in re.findall(r"f32\[([\d,]*)\]", result):
            if np.prod([int(size) for size in shape.split(",") if size], initial=1) >= FEATURES:
                found[PLACES[min(depth, 2)]][shape] += 1
    return {place: dict(shapes) for place, shapes in found.items()}


def main(only: list[str]) -> None:
    methods: list[tuple[Any, str]] = [
        (Cronos().across_devices(), "relu"),
        (ProximalGradient(), "gated"),
        (Ridge().across_devices(), "gated"),
    ]
    for solver, formulation in methods:
        if only and type(solver).__name__ not in only:
            continue
        for n_devices, n_rows in ((2, ROWS), (4, ROWS), (8, ROWS), (8, 4 * ROWS)):
            with precision(np.float32):
                program = compiled(solver, formulation, n_devices, n_rows)
            cost = program.cost_analysis()
            record = {
                "solver": "Ridge" if isinstance(solver, RidgeOnDevices) else type(solver).__name__,
                "shape": [n_rows, FEATURES, PATTERNS],
                "devices": n_devices,
                "gflop_per_device": round(float(cost["flops"]) / 1e9, 2),
                "sums": sums(program.as_text()),
                "megabytes_per_device": round(
                    program.memory_analysis().argument_size_in_bytes / 2**20, 1
                ),
            }
            print(record)
            raw_results.append(RESULTS, record)


if __name__ == "__main__":
    main(sys.argv[1:])
