"""Files that somebody made to do harm: reading them runs no code, and neither hangs nor swells.

Mutations are of three kinds: of bytes, of the values in a JSON text, and of values with a digest
that was computed again, as an attacker would, so that they get past it.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from cvxnn import _model_file
from cvxnn.files.json_files import write_json

KINDS = ("estimator", "features", "comparison", "key", "log", "cache", "checkpoint")
SECONDS = 30  # far above what any small file takes, on a busy machine too
MEMORY = 2 * 2**20  # bytes beside twice the file: a message, a traceback, the modules of a reader
# Events of the interpreter that mean that code of somebody else runs, or is about to.
CODE = {
    "exec",
    "import",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "pickle.find_class",
    "marshal.loads",
    "ctypes.dlopen",
    "socket.connect",
}
VALUES = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**30, 1e308, "", "a", "\u2028", "__class__", [], {}
)  # fmt: skip

watching: list[str] | None = None


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if watching is not None and event in CODE:
        watching.append(f"{event} {arguments!r:.200}")


@contextmanager
def watched(limit: int) -> Iterator[None]:
    """Refuse code, a long time, and more memory than the limit in bytes."""
    global watching

    def late(*_: object) -> None:
        raise AssertionError(f"no end after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    tracemalloc.start()
    watching = []
    try:
        yield
    finally:
        found, watching = watching, None
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not found, found
    assert peak <= limit, f"{peak} bytes, {limit} allowed"


def places(value: Any) -> list[tuple[Any, Any]]:
    """List all (container, key) in a value of JSON."""
    found: list[tuple[Any, Any]] = []
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


def mutate(value: Any, rng: np.random.Generator) -> Any:
    """Change some entries of a value of JSON."""
    for _ in range(rng.integers(1, 4)):
        found = places(value)
        if not found:
            return value
        container, key = found[rng.integers(len(found))]
        kind = rng.integers(6)
        if kind == 0:
            del container[key]
        elif kind == 1:
            other, name = found[rng.integers(len(found))]
            container[key] = json.loads(json.dumps(other[name]))
        elif kind == 2:
            for _ in range(int(rng.choice([3, 900, 5000]))):
                container[key] = [container[key]]
                container, key = container[key], 0
        elif kind == 3 and isinstance(container, dict):
            container[str(rng.choice(["a", "__dict__", "fit", "_check", key + "_"]))] = container[
                key
            ]
        elif kind == 4 and isinstance(container[key], int | float):
            container[key] = container[key] * int(rng.choice([-1, 2, 10**6])) + 1
        else:
            container[key] = VALUES[rng.integers(len(VALUES))]
    return value


def mutate_bytes(content: bytearray, rng: np.random.Generator) -> bytes:
    """Change, insert, repeat or delete some bytes."""
    for _ in range(rng.integers(1, 5)):
        place, n = int(rng.integers(len(content) + 1)), int(rng.integers(1, 9))
        kind = rng.integers(5)
        if kind == 0:
            content[place : place + n] = rng.bytes(n)
        elif kind == 1:
            content[place:place] = rng.bytes(n)
        elif kind == 2:
            del content[place : place + int(rng.choice([n, 10**6]))]
        elif kind == 3:
            content[place:place] = content[place : place + 64] * int(rng.integers(1, 50))
        else:  # lengths and offsets at the beginning
            content[:8] = (1 << int(rng.integers(64))).to_bytes(8, "little")
    return bytes(content)


def forge(file: Path, rng: np.random.Generator) -> None:
    """Change what a file says, with a digest that agrees."""
    if file.suffix == ".json":
        value = json.loads(file.read_text("utf-8"))
        value.pop("digest", None)
        write_json(file, mutate(value, rng))
        return
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if rng.random() < 0.3:
        name = str(rng.choice(sorted(tensors)))
        shape = tuple(int(n) for n in rng.choice([0, 1, 3, 7], rng.integers(0, 4)))
        tensors[name] = rng.normal(size=shape).astype(str(rng.choice(["<f4", "<f8", "<i8", "?"])))
    if "cvxnn" in metadata:
        header = mutate(json.loads(metadata["cvxnn"]), rng)
        metadata = {"cvxnn": _model_file.seal(header, tensors)}
    else:
        import torch

        from cvxnn.llm.fine_tuning import run_checkpoint

        settings, state = (json.loads(metadata[name]) for name in ("settings", "state"))
        state = mutate(state, rng)
        arrays = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
        metadata["state"] = json.dumps(state)
        metadata["digest"] = run_checkpoint._digest(arrays, settings, state)
    file.write_bytes(to_bytes(tensors, metadata=metadata))


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs signals of Unix")
@pytest.mark.parametrize("kind", KINDS)
def test_forged_files_do_no_harm(kept: Any, cases: int, tmp_path: Path, kind: str) -> None:
    folder, read = kept(kind)
    sys.addaudithook(watch)
    for case in range(-1, max(1, cases // len(KINDS))):
        rng = np.random.default_rng([max(case, 0), KINDS.index(kind)])
        copy = tmp_path / str(case)
        shutil.copytree(folder, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        file = files[rng.integers(len(files))]
        if case < 0:
            pass  # the first reading may import modules
        elif file.suffix in (".json", ".safetensors") and rng.random() < 0.7:
            try:
                forge(file, rng)
            except (ValueError, TypeError, RecursionError, KeyError, AttributeError):
                continue  # an attacker cannot write this either
        else:
            file.write_bytes(mutate_bytes(bytearray(file.read_bytes()), rng))
        limit = MEMORY + 2 * sum(path.stat().st_size for path in files)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refusal = str(copy)
            try:
                if case < 0:
                    read(copy)
                else:
                    with watched(limit):
                        read(copy)
            except (ValueError, OSError) as error:
                refusal = str(error)
        assert str(copy) in refusal, (case, file, refusal)
        shutil.rmtree(copy)
