"""The demo on a tiny model and on data of one's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "llama_preference.py"


@pytest.mark.slow
def test_the_demo_takes_a_model_and_data(model, data, tmp_path, environment):
    arguments = ["--model", model, "--data", data, "--output", "out", "--n-patterns", "8"]
    arguments += ["--max-new-tokens", "4", "--memory-plan", "12"]

    def run() -> str:
        done = subprocess.run(
            [sys.executable, str(DEMO), *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    said = run()
    for part in (
        *("training pairs", "fits in 12 GiB", "coala     begins", "linear    begins"),
        *("embeddings", "phase I ", "phase II", "lower bound", "FLOPs", "mean reward"),
        *("longer reply wins", "plain  ", "best of 5", "guided  ", "[reward ", "total "),
    ):
        assert part in said
    written = {path.name for path in Path(tmp_path, "out").iterdir()}
    assert written >= {"coala.safetensors", "comparison.json", "report.html", "features"}
    found = json.loads(Path(tmp_path, "out", "comparison.json").read_text("utf-8"))
    assert [result["method"] for result in found["results"]] == ["coala", "linear"]
    assert "coala     kept from before" in run()
