"""The scripts for a GPU, on tiny shapes, so that they run where there is one at last."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "asv_bench" / "device" / "run.sh"


@pytest.mark.slow
def test_no_measurement_fails(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("the script is for bash")
    env = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(SCRIPT), "--small", "coala", "disk", "default"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (tmp_path / "results.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    names = [row["name"] for row in rows]
    assert names[:2] == ["phase I", "phase II"], done.stderr
    assert "fit" in names
    assert not [row for row in rows if "error" in row]
