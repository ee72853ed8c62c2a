"""Settings and fixtures that all tests have in common."""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# Before anything imports jax: tests run on the CPU unless the caller chose a device.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers already share the cores. torch and BLAS read this when they are first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import jax
import numpy as np
import pytest

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


class Teacher(NamedTuple):
    """A regression problem whose targets come from a two-layer ReLU network."""

    X: np.ndarray  # (n, d), standard normal
    y: np.ndarray  # (n,)
    gates: np.ndarray  # (d, P), standard normal: activation patterns are X @ gates >= 0


def make_teacher(
    n: int = 40,
    d: int = 5,
    P: int = 8,
    *,
    neurons: int = 3,
    noise: float = 0.1,
    dtype: type = np.float64,
    seed: int = 0,
) -> Teacher:
    """Draw X, the teacher's weights, the noise and P gate vectors from normal distributions."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    hidden = np.maximum(X @ rng.standard_normal((d, neurons)), 0)
    y = hidden @ rng.standard_normal(neurons) + noise * rng.standard_normal(n)
    gates = rng.standard_normal((d, P))
    return Teacher(X.astype(dtype), y.astype(dtype), gates.astype(dtype))


@pytest.fixture
def teacher() -> Callable[..., Teacher]:
    """Give `make_teacher`: equal arguments, equal data."""
    return make_teacher


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> type:
    """Run the test in both precisions."""
    return request.param


@pytest.fixture
def compilations() -> Iterator[Callable[[], int]]:
    """Count what XLA compiles while the test runs."""
    count = 0

    def listen(event: str, duration: float, **_: Any) -> None:
        nonlocal count
        count += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: count
    jax.monitoring.unregister_event_duration_listener(listen)
