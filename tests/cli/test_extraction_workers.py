"""Shards and workers of cvxnn extract: the bytes of one process."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from cvxnn.features.pairs import read_pair_features

LETTERS = "abcdefghijklmnopqrst"


def same(one: Path, other: Path) -> bool:
    names = ("features.npy", "features.npy.json", "pairs.jsonl.gz")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_shards_and_a_merge(run, model, data, features, tmp_path, monkeypatch):
    folder, whole = tmp_path / "shards", tmp_path / "whole"
    monkeypatch.setattr("cvxnn.features.blocks.BLOCK", 16)  # 80 rows are five blocks
    arguments = ["extract", data, "--model", model, "--output", folder]
    run(*arguments[:-1], whole)
    found = run(*arguments, "--shard", "2/2")
    assert (found["shard"], found["rows"]) == ("2/2", 48)
    missing = run("merge", folder, code=1)["error"]
    assert "1 of 2 shards are not finished" in missing
    assert "--shard 1/2" in missing
    assert "filled in 2 shards" in run(*arguments, "--shard", "1/3", code=4)["error"]
    assert "without --shard" in run(*arguments, "--shard", "1/2", "--overwrite", code=2)["error"]
    run(*arguments, "--shard", "1/2")
    merged = run("merge", folder)
    assert (merged["status"], merged["pairs"]) == ("done", 40)
    assert same(folder, whole)
    assert run("merge", folder)["status"] == "nothing to do"
    assert run(*arguments)["status"] == "nothing to do"
    assert run("merge", folder, "--store", "bfloat16")["status"] == "done"
    assert run("merge", folder, "--store", "bfloat16")["status"] == "nothing to do"
    halves = [(place / "features.npy").stat().st_size - 128 for place in (whole, folder)]
    assert halves[0] == 2 * halves[1]
    flops = [read_pair_features(place).costs.flops for place in (whole, folder)]
    assert 1.0 <= flops[1] / flops[0] < 1.1  # each worker checks a few tokens first


def test_shards_of_several_layers(run, model, data, tmp_path, monkeypatch):
    monkeypatch.setattr("cvxnn.features.blocks.BLOCK", 32)
    arguments = ["extract", data, "--model", model, "--layer", "1,2", "--output"]
    run(*arguments, tmp_path / "whole")
    for shard in ("2/2", "1/2"):
        run(*arguments, tmp_path / "shards", "--shard", shard)
    assert run("merge", tmp_path / "shards")["width"] == 32
    assert same(tmp_path / "shards", tmp_path / "whole")
    assert read_pair_features(tmp_path / "shards").layers == [1, 2]


def test_bad_shards(run, data, tmp_path):
    for text in ("3/2", "two"):
        assert "shard" in run("extract", data, "--shard", text, code=2)["error"]
    both = run("extract", data, "--shard", "1/2", "--workers", "2", code=2)["error"]
    assert "not allowed with" in both
    assert "no shards" in run("merge", tmp_path, code=1)["error"]


@pytest.mark.slow
def test_workers_write_the_bytes_of_one_process(run, model, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = [
        {"prompt": f"a {a}", "chosen": f"b {b}", "rejected": "c d"}
        for a in "abcdefghijklmno"
        for b in "efghijklmnop"
    ]
    file = tmp_path / "pairs.jsonl"  # 360 rows are two blocks
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["extract", file, "--model", model, "--output"]
    run(*arguments, tmp_path / "whole")
    found = run(*arguments, tmp_path / "shared", "--workers", "4")  # no more than blocks
    assert found["status"] == "done"
    assert same(tmp_path / "shared", tmp_path / "whole")
    assert run(*arguments, tmp_path / "shared", "--workers", "4")["status"] == "nothing to do"
    (Path(tmp_path) / "bad").mkdir()
    weightless = tmp_path / "weightless"
    shutil.copytree(model, weightless, ignore=shutil.ignore_patterns("*.safetensors"))
    arguments[arguments.index(model)] = weightless
    failed = run(*arguments, tmp_path / "bad", "--workers", "2", code=1)
    assert "2 of 2 workers failed" in failed["error"]


def test_engines_are_checked(run, data, model, tmp_path, monkeypatch):
    arguments = ["extract", data, "--output", tmp_path / "features"]
    for engine, said in (("tgi", "neither"), ("vllm", "needs --model"), ("http://h/v1", "--model")):
        assert said in run(*arguments, "--engine", engine, code=2)["error"]
    served = [*arguments, "--engine", "http://127.0.0.1:9/v1", "--model", "m"]
    assert "the server decides" in run(*served, "--layer", "3", code=2)["error"]
    assert "not of a server" in run(*served, "--plan-only", code=2)["error"]
    missing = run(*arguments, "--engine", "vllm", "--model", model, code=1)["error"]
    assert 'pip install "cvxnn[vllm]"' in missing
    assert "needs --workers" in run(*arguments, "--ray", code=2)["error"]
    monkeypatch.setattr("cvxnn.features.blocks.BLOCK", 16)
    monkeypatch.setitem(sys.modules, "ray", None)
    missing = run(*arguments, "--model", model, "--workers", "2", "--ray", code=1)["error"]
    assert 'pip install "cvxnn[ray]"' in missing


def test_an_endpoint_makes_features_for_a_head(run, data, tmp_path, monkeypatch):
    def answer(self, texts):
        return np.array([[t.count(c) for c in "abklt"] for t in texts], np.float32)

    monkeypatch.setattr("cvxnn.features.endpoint.EndpointEmbedder._request", answer)
    folder, head = tmp_path / "features", tmp_path / "head.safetensors"
    found = run(
        "extract", data, "--output", folder, "--engine", "http://127.0.0.1:9/v1", "--model", "m"
    )
    assert (found["width"], found["embedding"]["pooling"]) == (5, "endpoint")
    run("fit", folder, "--output", head, "--n-patterns", "8")
    run("score", head, folder)
    refused = run("score", head, data, code=1)["error"]
    assert "cvxnn extract --engine and score that folder" in refused


@pytest.mark.slow
def test_actors_of_ray_write_the_bytes_of_one_process(run, model, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"a {a} {b}", "chosen": f"b {b}", "rejected": f"c {b}"}
        for a in LETTERS
        for b in LETTERS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["extract", file, "--model", model, "--output"]
    run(*arguments, tmp_path / "whole")
    run(*arguments, tmp_path / "shared", "--workers", "2", "--ray")
    assert same(tmp_path / "shared", tmp_path / "whole")
