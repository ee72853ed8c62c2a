"""What is shown while a model is loaded."""

from __future__ import annotations

import functools
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn import _progress
from cvxnn._progress import Progress
from cvxnn.llm import load_model, loading_progress

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a line for each update."""
    monkeypatch.setattr(_progress, "_PRINTED", 0.0)


@pytest.mark.parametrize("shown", [True, False])
def test_tensors_of_a_folder_are_counted(
    tiny_lm: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: bool
) -> None:
    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    hooked = transformers.utils.logging
    set_hook = getattr(hooked, "set_tqdm_hook", None)
    if set_hook is None:
        pytest.skip("this transformers keeps its bar to itself")
    capsys.readouterr()
    load_model(tmp_path, device="cpu", progress=shown)
    assert set_hook(None) is None  # the hook is gone
    lines = capsys.readouterr().err.splitlines()
    total = len(list(lm.model.parameters()))
    assert len(lines) == (total if shown else 0)
    if shown:
        assert lines[-1].startswith(f"model     {total} of {total} tensors read (100 %)")


def test_what_is_fetched_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(loading_progress, "_PAUSE", 0.01)
    blobs, out = tmp_path / "models--some--model" / "blobs", io.StringIO()
    with loading_progress.fetching_shown("some/model", functools.partial(Progress, stream=out)):
        blobs.mkdir(parents=True)
        with (blobs / "a.incomplete").open("wb") as file:
            for n in (2, 5):
                file.truncate(n * 10**6)
                end = time.monotonic() + 10
                while f" {n} MB fetched" not in out.getvalue() and time.monotonic() < end:
                    time.sleep(0.01)
    assert [line.split(",")[0] for line in out.getvalue().splitlines()] == [
        "model     2 MB fetched",
        "model     5 MB fetched",
    ]
    with loading_progress.fetching_shown("some/model", functools.partial(Progress, stream=out)):
        time.sleep(0.05)
    assert len(out.getvalue().splitlines()) == 2  # what is there is not fetched


def test_weights_of_a_gguf_file_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = pytest.importorskip("gguf")
    monkeypatch.setattr(loading_progress, "_MILLION", 10)
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    for name, size in (("one", 6), ("two", 9), ("three", 15)):
        writer.add_tensor(name, np.arange(size, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    original, out = gguf.dequantize, io.StringIO()
    with loading_progress.conversion_shown(file, functools.partial(Progress, stream=out)):
        for tensor in gguf.GGUFReader(file).tensors:
            found = gguf.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(found, np.arange(len(found)))
    assert gguf.dequantize is original
    counted = [line.split(" million")[0] for line in out.getvalue().splitlines()]
    assert counted == [f"model     {n} of 3" for n in (0, 1, 3)]
