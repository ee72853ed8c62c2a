"""Rewards that are lower where the pairs of a head say little, in commands that score replies."""

import json

import numpy as np
import pytest

from cvxnn import load
from cvxnn.cli.caution import head_of
from cvxnn.cli.main import main

pytest.importorskip("torch")


@pytest.fixture
def replies(tmp_path):
    rows = [
        {"prompt": prompt, "response": response}
        for prompt in ("a b c", "d e")
        for response in ("a b a", "s t t", "q r")
    ]
    file = tmp_path / "replies.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_the_features_of_a_head_give_its_deviations(head, features):
    """The record of its pairs finds them among those that were held out."""
    options = type("Options", (), {"caution": 2.0, "fitted_to": [features], "quiet": True})
    cautious, plain = head_of(options, head), load(head)
    assert cautious.curvature.n == plain.n_pairs_
    X = np.random.RandomState(0).randn(5, plain.n_features_in_)
    assert (cautious.decision_function(X) < plain.decision_function(X)).all()
    assert cautious.embedding == plain.embedding


def test_commands_take_caution(run, head, model, features, replies, tmp_path):
    caution = ["--caution", "5", "--fitted-to", features]
    plain = run("score", head, replies, "--model", model)["rewards"]
    careful = run("score", head, replies, "--model", model, *caution)["rewards"]
    assert all(c["reward"] < p["reward"] for c, p in zip(careful, plain, strict=True))

    best = run("best", head, replies, "--model", model)["replies"]
    again = run("best", head, replies, "--model", model, *caution)["replies"]
    assert [row["prompt"] for row in again] == [row["prompt"] for row in best]
    assert all(c["reward"] < p["reward"] + 1e-9 for c, p in zip(again, best, strict=True))

    output = tmp_path / "written.jsonl"
    words = ["--prompt", "a b c", "--model", model, "--max-new-tokens", "4", "--segment", "2"]
    one = run("generate", head, *words, "--output", output)
    refused = run("generate", head, *words, "--output", output, *caution, code=4)
    assert "caution" in refused["error"]
    two = run("generate", head, *words, *caution)
    assert one["replies"][0]["replies"]["guided"]["reward"] != pytest.approx(
        two["replies"][0]["replies"]["guided"]["reward"]
    )


def test_training_pairs_stay_apart(run, head, features):
    plain = run("score", head, features)
    careful = run("score", head, features, "--caution", "1", "--fitted-to", features)
    assert plain["recorded"]
    assert careful["recorded"]
    assert careful["training"]["pairs"] == plain["training"]["pairs"] > 0
    assert careful["held_out"]["pairs"] == plain["held_out"]["pairs"] > 0


def test_what_is_missing_is_said(run, head, model, features, replies, tmp_path):
    words = ["score", head, replies, "--model", model]
    assert "belong together" in run(*words, "--caution", "1", code=2)["error"]
    assert "belong together" in run(*words, "--fitted-to", features, code=2)["error"]
    linear = tmp_path / "linear.safetensors"
    assert main(["fit", features, "--head", "linear", "--output", str(linear), "--quiet"]) == 0
    found = run(
        "score",
        linear,
        replies,
        "--model",
        model,
        "--caution",
        "1",
        "--fitted-to",
        features,
        code=1,
    )
    assert "needs a COALA head of cvxnn fit" in found["error"]
