"""Policies of preferences and demonstrations, from the command line to guided replies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cvxnn
from cvxnn.cli.main import main
from cvxnn.joint import reference_front
from cvxnn.llm import load_adapter, load_model
from cvxnn.llm.fine_tuning import strategy_runs
from cvxnn.preference import read_preferences, split_by_group

torch = pytest.importorskip("torch")


def test_from_features_to_replies(run, features, data, model, tmp_path, capsys):
    pairs = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()]
    texts = [{"prompt": f"{p['prompt']} b", "response": p["chosen"]} for p in pairs[:24]]
    file, folder = tmp_path / "sft.jsonl", tmp_path / "joint"
    file.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    command = ["joint", features, file, "--model", model, "--output", folder]
    command += ["--lam", "0.25,0.75", "--strategy", "exact,mix,orpo", "--n-steps", "200"]
    found = run(*command)
    assert [(p["strategy"], p["lam"]) for p in found["policies"]] == [
        (strategy, lam) for strategy in ("exact", "mix", "orpo") for lam in (0.25, 0.75)
    ]
    exact, mix, orpo = (found["policies"][k : k + 2] for k in (0, 2, 4))
    for best, other in zip(exact, mix, strict=True):
        lam = best["lam"]
        values = [lam * p["dpo"] + (1 - lam) * p["sft"] for p in (best, other)]
        assert best["gap"] < 1e-6 <= other["gap"]
        assert values[0] <= values[1]
    assert exact[1]["dpo"] < exact[0]["dpo"]  # more weight on preferences
    assert exact[1]["sft"] > exact[0]["sft"]
    assert all(p["preferences"]["accuracy"] > 0.8 for p in exact)
    assert all(p["gap"] > 0 and p["preferences"]["accuracy"] > 0.8 for p in orpo)
    policy = cvxnn.load(exact[0]["file"])
    X = np.random.default_rng(0).standard_normal((3, policy.n_features_in_))
    np.testing.assert_allclose(policy.reward(X), X @ policy.coef_)
    for best, other in zip(exact, mix, strict=True):
        assert abs(best["excess"]) < 1e-6 < other["excess"]
        distance = np.hypot(other["dpo_gap"], other["sft_gap"])
        np.testing.assert_allclose(other["ideal_distance"], distance)
        np.testing.assert_allclose(other["course"]["dpo"][-1], other["dpo"])
    page = tmp_path / "joint.html"
    again = run(*command, "--report", page)
    assert again["status"] == "nothing to do"
    assert page.read_text("utf-8").count("<svg") == 4  # no sequential strategy: no times beside it
    capsys.readouterr()
    assert main([*map(str, command), "--seed", "1"]) == 4  # results of other settings
    replies = run(
        "generate", exact[0]["file"], "--model", model, "--prompt", "a b", "--max-new-tokens", "4"
    )
    assert "guided" in replies["replies"][0]["replies"]


def test_strategies_stop_near_the_front_and_have_batches_of_their_own(
    run, features, data, model, tmp_path
):
    pairs = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()]
    rows = [{"prompt": f"{p['prompt']} b", "response": p["chosen"]} for p in pairs[:24]]
    file = tmp_path / "sft.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["joint", features, file, "--model", model, "--output", tmp_path / "joint"]
    command += ["--lam", "0.5", "--strategy", "sequential,alright", "--n-steps", "400"]
    found = run(*command, "--batch-size", "4,8", "--stop-excess", "0.5")
    sequential, alright = found["policies"]
    assert (sequential["status"], sequential["steps"]) == ("finished", 400)
    assert alright["status"] == "stopped"
    assert alright["steps"] < 400
    assert alright["excess"] <= 0.5
    assert sequential["more_time"] == 0
    assert "more_time" in alright
    command[command.index("sequential,alright")] = "maxright,alright"
    command[command.index("--output") + 1] = tmp_path / "periods"
    found = run(*command, "--max-evaluation-steps", "1,7")
    frequent, rare, _ = found["policies"]
    assert [row["strategy"] for row in found["policies"]] == [
        "maxright-k1",
        "maxright-k7",
        "alright",
    ]
    assert frequent["course"]["dpo"] != rare["course"]["dpo"]
    policy = cvxnn.load(rare["file"])
    assert (policy.strategy, policy.max_evaluation_steps) == ("maxright", 7)
    refused = run(*command, "--max-evaluation-steps", "1,0", code=2)["error"]
    assert "'1,0' is not of the form K,K,..." in refused
    refused = run(*command, "--batch-size", "4,0", code=2)["error"]
    assert "'4,0' is neither a number of examples nor" in refused


def test_bad_trade_offs_are_named(capsys):
    assert main(["joint", "a", "b", "--lam", "2"]) == 2
    assert "'2' is not of the form L,L,... in [0, 1]" in capsys.readouterr().err


def dpo_by_a_loop(tuned, base, pair):
    """Loss of a pair: by how much more the chosen reply gained in log-probability, times 0.1."""
    changes = []
    for reply in (pair.chosen, pair.rejected):
        [head], [tail] = tuned.encode_prompts([pair.prompt]), tuned.encode_responses([reply])
        tokens = torch.tensor([*head, *tail, 2])
        sums = []
        for lm in (tuned, base):
            with torch.no_grad():
                scores = lm.model(tokens[None]).logits[0].log_softmax(-1)
            places = range(len(head) - 1, len(tokens) - 1)
            sums.append(float(scores[places, tokens[len(head) :]].sum()))
        changes.append(sums[0] - sums[1])
    return np.logaddexp(0, -0.1 * (changes[0] - changes[1]))


@pytest.mark.slow
def test_a_file_of_pairs_trains_the_language_model(run, data, model, tmp_path, capsys):
    pairs = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()]
    texts = [{"prompt": f"{p['prompt']} b", "response": p["chosen"]} for p in pairs[:16]]
    file, folder = tmp_path / "sft.jsonl", tmp_path / "joint"
    file.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    page = tmp_path / "page.html"
    command = ["joint", data, file, "--model", model, "--output", folder, "--report", page]
    command += ["--strategy", "sequential,maxright,orpo", "--lam", "0.5", "--steps", "4"]
    periods = ["--max-evaluation-steps", "1,2"]
    command += ["--learning-rate", "1e-2", "--micro-batch", "4", "--accumulation", "1"]
    found = run(*command, "--supervised-batch", "8", *periods)
    rows = found["policies"]
    assert [(row["strategy"], row["lam"]) for row in rows] == [
        (name, 0.5) for name in ("sequential", "maxright-k1", "maxright-k2", "orpo")
    ]
    ideal = found["front"]["ideal"]
    for row in rows:
        assert row["dpo_gap"] == row["dpo"] - ideal[0]
        np.testing.assert_allclose(row["ideal_distance"], np.hypot(row["dpo_gap"], row["sft_gap"]))
    start = found["start"]
    np.testing.assert_allclose(start["dpo"], np.log(2), rtol=1e-5)  # the model is its reference
    assert ideal[0] < start["dpo"]
    assert ideal[1] < start["sft"]
    assert rows[0]["more_time"] == rows[0]["more_memory"] == 0
    base = load_model(model)
    tuned = load_adapter(base, rows[1]["file"])
    kept = read_preferences(data)
    train, test = split_by_group(kept, found["settings"]["test_size"], 0)
    for part, name in ((train, "dpo"), (test, "held_dpo")):
        expected = np.mean([dpo_by_a_loop(tuned, base, pair) for pair in part])
        np.testing.assert_allclose(rows[1][name], expected, rtol=1e-4)
    html = page.read_text("utf-8")
    assert html.count("<svg") == 8
    assert "exact front" not in html
    assert run(*command, "--supervised-batch", "8", *periods)["status"] == "nothing to do"
    command[command.index("--output") + 1] = tmp_path / "second"
    command[command.index("sequential,maxright,orpo")] = "sequential"
    found = run(*command, "--sft-first", "--supervised-first")
    np.testing.assert_allclose(found["start"]["dpo"], np.log(2), rtol=1e-5)  # the reference now
    assert found["start"]["sft"] < start["sft"]  # the demonstrations were learnt
    assert found["policies"][0]["sft"] < found["start"]["sft"]
    refused = run(*command, "--strategy", "exact,mix", code=2)["error"]
    assert "--strategy exact needs frozen features" in refused


@pytest.mark.slow
def test_runs_of_a_language_model_end_near_the_front_of_alright(
    run, data, model, tmp_path, monkeypatch
):
    pairs = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()]
    texts = [{"prompt": f"{p['prompt']} b", "response": p["chosen"]} for p in pairs[:16]]
    file, logs, fine_tune = tmp_path / "sft.jsonl", {}, strategy_runs.fine_tune
    file.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")

    def watched(*args, **kwargs):
        tuned = fine_tune(*args, **kwargs)
        logs[kwargs["folder"].name] = tuned.history
        return tuned

    monkeypatch.setattr(strategy_runs, "fine_tune", watched)
    command = ["joint", data, file, "--model", model, "--steps", "4", "--learning-rate", "1e-2"]
    command += ["--micro-batch", "2", "--accumulation", "1", "--limit", "12"]
    command += ["--strategy", "maxright,alright", "--lam", "0.25,0.75", "--evaluate-every", "2"]
    for excess, steps in ((9.0, 2), (1e-9, None)):
        output = ["--output", tmp_path / f"joint {excess}", "--stop-excess", excess]
        found = run(*command, *output)
        rows = {(row["strategy"], row["lam"]): row for row in found["policies"]}
        assert list(rows) == [(name, k) for name in ("alright", "maxright") for k in (0.25, 0.75)]
        ends = [
            (rows["alright", k]["held_dpo"], rows["alright", k]["held_sft"]) for k in (0.25, 0.75)
        ]
        front = reference_front([0.25, 0.75], *zip(*ends, strict=True))
        for (name, lam), row in rows.items():
            seen = [e for e in logs[f"{name}-{lam:g}"] if "eval_loss" in e]
            if name == "alright":
                assert (row["steps"], row["stopped"], seen) == (4, False, [])
                continue
            near = [
                e["step"]
                for e in seen
                if e["step"] and front.excess(e["eval_loss"], e["eval_loss/supervised"]) <= excess
            ]
            assert row["steps"] == min([*near, 4]) == (steps or row["steps"])
            assert row["stopped"] == (row["steps"] < 4)
            last = seen[-1]["eval_loss"], seen[-1]["eval_loss/supervised"]
            np.testing.assert_allclose(last, (row["held_dpo"], row["held_sft"]), rtol=1e-5)
        assert run(*command, *output)["status"] == "nothing to do"
    command[command.index("maxright,alright")] = "maxright"
    refused = run(*command, "--stop-excess", "1", code=2)["error"]
    assert "--stop-excess needs alright in --strategy" in refused


def test_a_preset_of_another_kind_of_model_is_refused(run, data, model, tmp_path):
    file = tmp_path / "sft.jsonl"
    rows = [{"prompt": f"a {letter}", "response": letter} for letter in "bcdefghi"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["joint", data, file, "--model", model, "--output", tmp_path / "joint"]
    refused = run(*command, "--preset", "pythia-1b", code=1)["error"]
    assert "--preset pythia-1b has adapters in the layers query_key_value, which tiny" in refused
