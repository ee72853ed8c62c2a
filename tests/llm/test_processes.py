"""Two processes that train and write together: the numbers of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cvxnn.llm import LanguageModel

pytest.importorskip("torch")
pytest.importorskip("peft")

from . import shared_run


def run_two(folder: Path) -> tuple[list[int], list[str]]:
    """Start two processes as ``torchrun`` does; return their exit codes and messages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    of_both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", shared_run.__file__, str(folder)],
            env=os.environ | of_both | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], errors


@pytest.mark.slow
def test_two_processes_train_and_write_as_one_does(
    tiny_lm: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path / "tiny")
    lm.tokenizer.save_pretrained(tmp_path / "tiny")
    alone = shared_run.train(tmp_path, "one")
    written = shared_run.write(tmp_path, shared_run.PROMPTS)
    codes, errors = run_two(tmp_path)
    assert codes[0] == 9, errors
    assert codes[1] not in (0, 9), errors  # the first process dies at last: the other ends too
    found = [json.loads((tmp_path / f"found-{number}.json").read_text()) for number in range(2)]
    for shared in found:
        assert shared["written"] == written
        assert "different settings, models or data" in shared["refused"]
        assert shared["stopped"] == [0, 1, 2]  # the first process alone says so
    found.append(shared_run.train(tmp_path, "dies"))  # goes on from their checkpoint
    for shared in found:
        assert shared["tokens"] == alone["tokens"]
        assert [entry["step"] for entry in shared["history"]] == [0, 1, 2, 3, 4]
        for entry, expected in zip(shared["history"], alone["history"], strict=True):
            assert entry == pytest.approx(expected, rel=1e-4, abs=1e-6)
        for name, weights in shared["weights"].items():
            np.testing.assert_allclose(weights, alone["weights"][name], rtol=1e-3, atol=1e-6)
