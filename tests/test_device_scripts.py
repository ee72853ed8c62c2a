"""The scripts for a GPU, on tiny shapes, so that they run where there is one at last."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asv_bench.device.record import beside

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
    form = next(row for row in rows if row["name"] == "closed form")
    assert form["first"]["objective"] == pytest.approx(form["host"]["objective"], rel=1e-3)  # tol


def test_what_is_measured_is_not_lost_beside_what_is_said_of_it() -> None:
    found = {"device": {"gap": 1e-3}, "seconds": 2.0}
    assert beside(found, {"device": "NVIDIA H100", "cores": 16}) == {
        "device": "NVIDIA H100",
        "cores": 16,
        "measured device": {"gap": 1e-3},
        "seconds": 2.0,
    }
