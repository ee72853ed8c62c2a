"""Dialogues and ranked pairs that a tiny model makes, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import write_rows


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_dialogues_and_ranked_pairs(run, features, data, model, tmp_path):
    file = tmp_path / "dialogues.jsonl"
    command = ["make", "dialogues", "--model", model, "--output", file, "--number", "3"]
    found = run(*command, "--max-new-tokens", "8", "--subjects", "a,b")
    assert found["kept"] + sum(found["faults"].values()) == 3
    assert set(found["subjects"]) <= {"a", "b"}

    head, pairs = tmp_path / "head.safetensors", tmp_path / "pairs.jsonl"
    run("fit", features, "--head", "linear", "--output", head)
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"prompt": p} for p in ("a b", "c d", "e")])
    command = ["make", "pairs", "--model", model, "--output", pairs, "--max-new-tokens", "6"]
    assert "needs --prompts and --head" in run(*command, code=2)["error"]
    made = run(*command, "--prompts", prompts, "--head", head, "--best-of", "4")
    assert made["pairs"] + made["without"] == 3
    rows = lines(pairs)
    assert all(row["rewards"][0] > row["rewards"][1] for row in rows)
    scored = run("score", head, pairs, "--model", model)["rewards"]
    assert all(row["margin"] > 0 for row in scored)
    again = run(*command, "--prompts", prompts, "--head", head, "--best-of", "4")
    assert again == made
    assert lines(pairs) == rows
