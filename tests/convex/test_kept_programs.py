"""Compiled programs on the disk: found again, checked, and only those of this package."""

import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from cvxnn.convex import kept_programs as module
from cvxnn.convex.kept_programs import kept_programs

FIT = """
import collections, jax.monitoring, numpy as np
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
from cvxnn.convex import ConvexProgram, GatedOperator, ProximalGradient, sample_patterns, solve
X = np.random.default_rng(0).normal(size=(20, 3))
operator = GatedOperator(X, sample_patterns(X, 4, random_state=0).mask)
program = ConvexProgram(operator, X[:, :1], 1e-2, formulation="gated")
result = solve(program, ProximalGradient())
found = counts["/jax/compilation_cache/cache_hits"]
print(result.objective, found, counts["/jax/compilation_cache/compile_requests_use_cache"])
"""


@pytest.fixture
def parent(tmp_path, monkeypatch):
    """The folder of the stores of a process for which JAX keeps no programs."""
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    monkeypatch.setenv(module.SETTING, str(tmp_path))
    monkeypatch.setattr(module, "_programs", None)
    yield tmp_path
    new_process()
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()


@pytest.fixture
def found():
    """Names of the events of JAX's cache, as they come."""
    events = []

    def note(event, **_):
        if event.startswith("/jax/compilation_cache/cache_"):
            events.append(event.rpartition("_")[2])

    jax.monitoring.register_event_listener(note)
    yield events
    jax.monitoring.unregister_event_listener(note)


def new_process():
    """Forget what a new process would not know."""
    if module._programs is not None:
        module._programs._close()
        module._programs = None


def double(x):
    return 2 * x


def run():
    jax.clear_caches()
    with kept_programs():
        return jax.jit(double)(jnp.arange(3.0)).tolist()


def kept(parent):
    (store,) = parent.iterdir()
    return [file for file in store.iterdir() if file.name.startswith("jit_double-")]


@pytest.mark.slow
def test_the_next_process_compiles_nothing(parent, found):
    first = run()
    assert "hits" not in found
    found.clear()
    new_process()
    assert run() == first == [0.0, 2.0, 4.0]
    assert set(found) == {"hits"}


def test_programs_of_others_are_not_kept(parent):
    before = {name: getattr(jax.config, name) for name in module._SETTINGS}
    run()
    others = jax.jit(lambda x: x + 0.25)
    others(jnp.zeros(5))
    assert jax.config.jax_compilation_cache_dir is None
    assert before == {name: getattr(jax.config, name) for name in module._SETTINGS}
    run()
    (store,) = parent.iterdir()
    assert not [file for file in store.iterdir() if "lambda" in file.name]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:99] + b"?" + b[100:]])
def test_a_damaged_program_is_replaced(parent, found, damage):
    run()
    (file,) = kept(parent)
    contents = file.read_bytes()
    file.write_bytes(damage(contents))
    new_process()
    found.clear()
    assert run() == [0.0, 2.0, 4.0]
    assert found.count("misses") == 1
    (again,) = kept(parent)
    assert again.name.endswith(module.digest(again.read_bytes()))


def test_a_folder_of_the_users_own_is_used(parent, tmp_path_factory):
    own = tmp_path_factory.mktemp("own")
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    assert run() == [0.0, 2.0, 4.0]
    assert jax.config.jax_compilation_cache_dir == str(own)
    assert list(own.glob("jit_double-*"))
    assert not list(parent.iterdir())


def test_it_is_switched_off(parent, monkeypatch):
    monkeypatch.setenv(module.SETTING, "off")
    assert run() == [0.0, 2.0, 4.0]
    assert not list(parent.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_folder_that_others_could_write_to_is_refused(parent):
    run()
    (store,) = parent.iterdir()
    store.chmod(0o777)
    new_process()
    with pytest.warns(UserWarning, match="other users could write there"):
        assert run() == [0.0, 2.0, 4.0]


def test_no_room_and_no_folder_change_nothing(parent, monkeypatch):
    (parent / "file").write_text("")
    monkeypatch.setenv(module.SETTING, str(parent / "file"))
    assert run() == [0.0, 2.0, 4.0]
    monkeypatch.setenv(module.SETTING, str(parent))

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replacing", full)
    assert run() == [0.0, 2.0, 4.0]
    assert not [file for store in parent.iterdir() if store.is_dir() for file in store.glob("jit*")]


def test_the_oldest_programs_go_first(parent, monkeypatch):
    run()
    (store,) = parent.iterdir()
    sizes = [file.stat().st_size for file in kept(parent)]
    old = store / f"old{module._MARK}0"
    old.write_bytes(bytes(100))
    os.utime(old, (1, 1))
    monkeypatch.setattr(module, "_LIMIT", sum(f.stat().st_size for f in module._kept(store)) - 1)
    module._keep_newest(store)
    assert not old.exists()
    assert [file.stat().st_size for file in kept(parent)] == sizes


def test_threads_share_the_folder(parent):
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with kept_programs():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(10)
    run()
    folder = jax.config.jax_compilation_cache_dir
    assert folder is not None
    assert folder.startswith(str(parent))
    leave.set()
    thread.join()
    assert jax.config.jax_compilation_cache_dir is None
    assert kept(parent)


@pytest.mark.slow
def test_processes_fill_one_store_at_once(tmp_path):
    settings = os.environ | {module.SETTING: str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", FIT]

    def start():
        return subprocess.Popen(
            command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    both = [start(), start()]
    outputs = [process.communicate() for process in both]
    outputs.append(start().communicate())
    assert [error for _, error in outputs] == [""] * 3
    objectives, hits, requests = zip(*(text.split() for text, _ in outputs), strict=True)
    assert len(set(objectives)) == 1
    assert hits[2] == requests[2] != "0"
    (store,) = tmp_path.iterdir()
    left = [file.name.partition("-cache")[0] for file in store.iterdir()]
    assert all(name.startswith("jit_") for name in left)  # nothing temporary
    assert len(set(left)) == int(requests[2])
