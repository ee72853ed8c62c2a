"""What compiles slowly: each function of a solver alone, lowered and compiled from shapes only.

Nothing is computed and no data is made. The first function is compiled twice, which shows what only
the first compilation of a process takes, and options of XLA are tried one at a time, which shows
what takes the rest.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import planted
import record
from jax import ShapeDtypeStruct as Shape

from cvxnn.convex import ConvexProgram, Cronos, GatedOperator, ProximalGradient, compiled_steps
from cvxnn.convex.solvers.cronos import cronos
from cvxnn.numerics.jax_import import precision

Function = Literal["init", "factor", "advance"]
FUNCTIONS: tuple[Function, ...] = "init", "factor", "advance"
Options = dict[str, bool | int | str]

ROWS, FEATURES = 131_072, 4096


class Call(NamedTuple):
    """A function of JAX and the shapes of its arguments."""

    function: Any
    arguments: tuple[Any, ...]


def call(solver: Any, formulation: planted.Formulation, function: Function, small: bool) -> Call:
    """The call that ``solve`` makes without a start."""
    n, d = (400, 16) if small else (ROWS, FEATURES)
    P, real = planted.N_PATTERNS, np.float32
    program = ConvexProgram(
        GatedOperator(Shape((n, d), real), Shape((n, P), np.bool_)),
        Shape((n, 1), real),
        Shape((), real),
        sample_weight=Shape((n,), real),
        formulation=formulation,
    )
    if function == "init":
        return Call(compiled_steps.compiled_init, (program, solver, None))
    state = jax.eval_shape(compiled_steps.compiled_init, program, solver, None)
    if isinstance(solver, Cronos):
        factoring = program, solver, state.rows, state.rho
        if function == "factor":
            return Call(cronos._factor, factoring)
        state = state._replace(factors=jax.eval_shape(cronos._factor, *factoring))
    return Call(compiled_steps.compiled_advance, (program, solver, state, Shape((), np.int32)))


def compiled(
    solver: Any,
    formulation: planted.Formulation,
    function: Function,
    options: Options,
    small: bool,
) -> dict[str, Any]:
    """Seconds and sizes; ``kernels`` counts what the device runs by its kind."""
    jax.clear_caches()
    clock = [(time.perf_counter(), time.process_time())]
    with precision(np.float32):
        called = call(solver, formulation, function, small)
        lowered = called.function.lower(*called.arguments)
        clock.append((time.perf_counter(), time.process_time()))
        executable = lowered.compile(compiler_options=options or None)
        clock.append((time.perf_counter(), time.process_time()))
    given, made = lowered.as_text(), executable.as_text() or ""
    kinds = re.findall(r" (fusion|dot|custom-call|while|reduce|sort|copy|transpose)\(", made)
    targets = re.findall(r'custom_call_target="([^"]+)"', made)
    (w0, c0), (w1, c1), (w2, c2) = clock
    return {
        "options": options,
        "lower": {"seconds": w1 - w0, "cpu_seconds": c1 - c0},
        "compile": {"seconds": w2 - w1, "cpu_seconds": c2 - c1},
        "lines_given": len(given.splitlines()),
        "products_given": given.count("stablehlo.dot_general"),
        "lines_made": len(made.splitlines()),
        "kernels": dict(Counter(kinds)),
        "custom_calls": dict(Counter(targets)),
    }


def started(small: bool) -> dict[str, Any]:
    """Seconds until the device answers, which are no compilation of the solver's."""
    began = time.perf_counter()
    jax.block_until_ready(jnp.zeros(3) + 1)
    first = time.perf_counter() - began
    A = jnp.eye(64)
    jax.block_until_ready(jnp.linalg.cholesky(A) @ A)
    return {"seconds": first, "seconds_with_linear_algebra": time.perf_counter() - began}


def _limited(
    solver: Any, formulation: planted.Formulation, function: Function, options: Options
) -> record.Measurement:
    return partial(compiled, solver, formulation, function, options), 200


CRONOS = Cronos(linear_solver="mean_field")
OPTIONS: list[Options] = [
    {"xla_gpu_autotune_level": 0},
    {"xla_gpu_enable_triton_gemm": False},
    {"xla_gpu_enable_command_buffer": ""},
    {"xla_backend_optimization_level": 1},
    {"xla_llvm_disable_expensive_passes": True},
    {"xla_gpu_force_compilation_parallelism": 16},
]
MEASUREMENTS: dict[str, record.Measurement] = {
    "start": (started, 60),
    "Cronos init": _limited(CRONOS, "relu", "init", {}),
    "Cronos init again": _limited(CRONOS, "relu", "init", {}),
    "Cronos factor": _limited(CRONOS, "relu", "factor", {}),
    "Cronos advance": _limited(CRONOS, "relu", "advance", {}),
    "ProximalGradient advance": _limited(ProximalGradient(), "gated", "advance", {}),
    **{
        f"Cronos {function}, {name}={value}": _limited(CRONOS, "relu", function, {name: value})
        for options in OPTIONS
        for name, value in options.items()
        for function in FUNCTIONS
    },
}

if __name__ == "__main__":
    record.run("compilation", MEASUREMENTS, "jax")
