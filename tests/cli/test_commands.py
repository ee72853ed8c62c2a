"""Each command on a tiny random model: what it writes, that it resumes, what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cvxnn
from cvxnn.cli.main import main
from cvxnn.cli.prompts import read_prompts
from cvxnn.features.pairs import read_pair_features
from cvxnn.features.writer import FeatureWriter
from cvxnn.files.locks import check_page
from cvxnn.llm import Embedder, EmbeddingCache, load_model


def copy(source, target):
    shutil.copytree(source, target)
    return target


def copy_file(source, target):
    return shutil.copyfile(source, target)


def write(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


class TestOutput:
    """A file that cvxnn did not make is no place for a result, and one that is read never."""

    def commands(self, head, features, model, tmp_path):
        prompts = write(tmp_path / "prompts.jsonl", {"prompt": "a b"})
        candidates = write(tmp_path / "candidates.jsonl", {"prompt": "a", "responses": ["b", "c"]})
        return {
            "fit": ["fit", features],
            "score": ["score", head, features],
            "best": ["best", head, candidates, "--model", model],
            "generate": [
                *("generate", head, "--prompts", prompts, "--model", model),
                *("--max-new-tokens", "2"),
            ],
        }

    @pytest.mark.parametrize("command", ["fit", "score", "best", "generate"])
    def test_of_another_is_not_replaced(self, run, head, features, model, tmp_path, command):
        arguments = self.commands(head, features, model, tmp_path)[command]
        suffix = "safetensors" if command == "fit" else "jsonl"
        output = tmp_path / f"mine.{suffix}"
        output.write_text("mine", encoding="utf-8")
        before = sorted(path.name for path in tmp_path.iterdir())
        refused = run(*arguments, "--output", output, code=4)["error"]
        assert "says that cvxnn made it" in refused
        assert "--overwrite" in refused
        assert output.read_text("utf-8") == "mine"
        left = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
        assert left == before
        assert run(*arguments, "--output", output, "--overwrite")["status"] == "done"
        assert run(*arguments, "--output", output)["status"] == "nothing to do"

    @pytest.mark.parametrize("way", [(), ("--overwrite",)])
    def test_is_no_file_that_is_read(self, run, head, features, model, data, tmp_path, way):
        commands = self.commands(head, features, model, tmp_path)
        head = copy_file(head, tmp_path / "own.safetensors")
        for arguments, output in (
            (commands["best"], tmp_path / "candidates.jsonl"),
            (commands["generate"], tmp_path / "prompts.jsonl"),
            (["score", head, features], head),
            (["extract", data], data),
        ):
            before = Path(output).read_bytes()
            refused = run(*arguments, "--output", output, *way, code=2)["error"]
            assert "is a file that this command reads" in refused
            assert Path(output).read_bytes() == before

    def test_a_page_replaces_pages_only(self, tmp_path):
        page, other = tmp_path / "page.html", tmp_path / "pairs.jsonl"
        page.write_text("<!DOCTYPE html>\n<html>", encoding="utf-8")
        assert check_page(page) == []
        assert check_page(tmp_path / "new.html") == []
        other.write_text("mine", encoding="utf-8")
        with pytest.raises(ValueError, match="no HTML page"):
            check_page(other)
        assert other.read_text("utf-8") == "mine"

    def test_tables_with_semicolons_are_named(self, run, model, tmp_path):
        table = tmp_path / "pairs.csv"
        table.write_text("prompt;chosen;rejected\na;b, c;d\n", encoding="utf-8")
        told = run("extract", table, "--model", model, "--output", tmp_path / "out", code=1)
        assert "not semicolons" in told["error"]

    def test_a_blank_prompt_is_refused_before_anything_is_loaded(self, run, head, monkeypatch):
        monkeypatch.setattr("cvxnn.persistence.load", None)
        assert "expected some text" in run("generate", head, "--prompt", " ", code=2)["error"]


class TestExtract:
    def test_features_are_the_embeddings(self, features, model, data):
        found = read_pair_features(features)
        pairs = cvxnn_pairs(data)
        assert [(p.chosen, p.rejected, p.group) for p in found.pairs] == [
            (p.chosen, p.rejected, p.group) for p in pairs
        ]
        embedder = Embedder(load_model(model, dtype="float32"))
        for rows, replies in (
            (found.chosen, [p.chosen for p in pairs]),
            (found.rejected, [p.rejected for p in pairs]),
        ):
            expected = embedder.embed([p.prompt for p in pairs], replies)
            np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)

    def test_second_call_has_nothing_to_do(self, run, features, model, data, tmp_path, monkeypatch):
        files = {path: path.stat().st_mtime_ns for path in Path(features).iterdir()}
        monkeypatch.setattr("cvxnn.cli.extraction_engines.model_of", None)  # no weights are loaded
        moved = copy(model, tmp_path / "moved")
        found = run("extract", data, "--model", moved, "--output", features, "--layer", "-1")
        assert found["status"] == "nothing to do"
        assert found["costs"]["flops"] > 0
        assert {path: path.stat().st_mtime_ns for path in Path(features).iterdir()} == files
        (moved / "config.json").write_text("{}", encoding="utf-8")
        for changed in (["--model", moved], ["--model", model, "--layer", "1"]):
            refused = run("extract", data, *changed, "--output", features, code=1)
            assert "not callable" in refused["error"]

    def test_other_settings_are_refused_then_overwritten(
        self, run, features, model, data, tmp_path
    ):
        folder = copy(features, tmp_path / "features")
        (folder / "mine.txt").write_text("kept", encoding="utf-8")
        arguments = ["extract", data, "--model", model, "--output", folder, "--layer", "1"]
        refused = run(*arguments, code=4)
        assert "--layer: 2 in the file, 1 requested" in refused["error"]
        assert read_pair_features(folder).embedding["layer"] == 2
        assert run(*arguments, "--overwrite")["embedding"]["layer"] == 1
        assert read_pair_features(folder).embedding["layer"] == 1
        assert (folder / "mine.txt").exists()

    def test_interrupted_extraction_continues(self, run, model, tmp_path, monkeypatch):
        # Blocks of 8 rows, so that a few pairs are several blocks.
        monkeypatch.setattr("cvxnn.features.blocks.BLOCK", 8)
        values = [
            {"prompt": f"a {c}", "chosen": f"b {c}", "rejected": "c d"} for c in "efghijklmnop"
        ]
        file = write(tmp_path / "pairs.jsonl", *values)
        folder = tmp_path / "features"
        append, calls = FeatureWriter.append, []

        def stop(self, *arguments):
            calls.append(None)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return append(self, *arguments)

        monkeypatch.setattr(FeatureWriter, "append", stop)
        arguments = ["extract", file, "--model", model, "--output", folder]
        said = run(*arguments, code=130)["interrupted"]
        assert said == "24 of 24 embeddings are kept; the same command continues"
        with pytest.raises(FileNotFoundError, match="was not finished"):
            read_pair_features(folder)
        assert run(*arguments)["status"] == "done"
        assert len(calls) == 4  # two blocks, the interrupted one, and that one again
        whole = tmp_path / "whole"
        run("extract", file, "--model", model, "--output", whole)
        assert (folder / "features.npy").read_bytes() == (whole / "features.npy").read_bytes()
        # What was interrupted counts, and nothing was computed twice.
        costs = [read_pair_features(part).costs for part in (folder, whole)]
        assert costs[0].flops == costs[1].flops > 0

    @pytest.mark.parametrize("damage", ["flip", "cut", "texts", "note"])
    def test_changed_bytes_are_noticed_by_every_reader(
        self, run, features, head, model, data, tmp_path, damage
    ):
        folder = copy(features, tmp_path / "features")
        name = {"texts": "pairs.jsonl.gz", "note": "features.npy.json"}.get(damage, "features.npy")
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content[:-40] if damage == "cut" else content)
        for command in (
            ["fit", folder, "--output", tmp_path / "head.safetensors"],
            ["fit", features, "--test", folder, "--output", tmp_path / "head.safetensors"],
            ["score", head, folder],
            ["score", head, folder, "--output", tmp_path / "rewards.csv"],
            ["extract", data, "--model", model, "--output", folder],
        ):
            found = run(*command, code=1)
            assert name in found["error"], found
            assert not (tmp_path / "head.safetensors").exists()

    def test_memory_plan_comes_first(self, model, data, tmp_path, capsys):
        arguments = ["extract", data, "--model", model, "--output", str(tmp_path / "features")]
        assert main([*arguments, "--memory-plan", "12"]) == 0
        said = capsys.readouterr().err
        assert "fits in 12 GiB" in said
        assert said.index("weights") < said.index("model     ")

    @pytest.mark.slow
    def test_a_plan_alone(self, run, model, data, tmp_path, capsys):
        folder = tmp_path / "features"
        arguments = ["extract", data, "--model", model, "--output", folder, "--plan-only"]
        found = run(*arguments)
        assert (found["status"], found["fits"]) == ("planned", True)
        assert not folder.exists()
        # Letters are the words; a prompt has three marks of the template besides.
        n_tokens, n_apart = 0, 0
        for pair in cvxnn_pairs(data):
            replies = [len(reply.split()) for reply in (pair.chosen, pair.rejected)]
            prompt = len(pair.prompt.split()) + 3
            n_tokens += prompt + sum(replies)
            n_apart += 2 * prompt + sum(replies)
        assert (found["tokens"], found["tokens_apart"]) == (n_tokens, n_apart)
        assert found["disk"] == 40 * 2 * 16 * 4
        assert run(*arguments, "--context")["disk"] == 2 * found["disk"]
        assert found["memory"][0]["settings"]["dtype"] == "float32"  # what runs on this machine
        assert found["seconds"] > 0
        other = run(*arguments, "--memory", "24")
        assert other["memory"][0]["settings"]["dtype"] == "bfloat16"
        assert "seconds" not in other
        small = run(*arguments, "--memory", "0.1", code=3)
        assert small["fits"] is False
        assert main([*map(str, arguments), "--memory", "0.76", "--batch-tokens", "4096"]) == 3
        assert "does not fit in 0.76 GiB: set --batch-tokens " in capsys.readouterr().out
        compared = ["compare", data, "--model", model, "--methods", "coala,dpo", "--plan-only"]
        found = run(*compared)
        assert [plan["method"] for plan in found["memory"]] == ["embed", "fine_tune"]
        assert list(found["fine_tuning_seconds"]) == ["DPO"]
        assert "writing_seconds" not in found
        more = run(*compared, "--epochs", "3", "--replies", "2", "--max-new-tokens", "4")
        assert more["writing_seconds"] > 0
        assert [plan["method"] for plan in more["memory"]] == ["embed", "fine_tune", "guide"]

    @pytest.mark.slow
    def test_a_plan_of_replies_has_their_time(self, run, model):
        # The head is not read, as nothing depends on it.
        arguments = ["generate", "head", "--model", model, "--plan-only", "--max-new-tokens", "4"]
        assert "seconds" not in run(*arguments)
        found = run(*arguments, "--prompt", "a b", "--plain")
        assert found["seconds"] > 0
        size = sum(file.stat().st_size for file in Path(model).iterdir())
        assert found["loading_seconds"] == pytest.approx(2 + size / 1e9)
        [plan] = found["memory"]
        assert plan["process"] == plan["total"] + 460_000_000
        other = run(*arguments, "--memory", "24")
        assert "loading_seconds" not in other
        assert "process" not in other["memory"][0]

    def test_a_device_that_is_not_here(self, run, model, data, tmp_path, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        arguments = ["extract", data, "--model", model, "--output", tmp_path / "f", "--device"]
        assert "finds no GPU here; use 'cpu'" in run(*arguments, "cuda", code=1)["error"]
        assert "device is 'gpu'; expected" in run(*arguments, "gpu", code=1)["error"]

    def test_bad_data_names_file_and_line(self, run, model, tmp_path):
        file = write(tmp_path / "bad.jsonl", {"prompt": "a", "chosen": "b"})
        found = run("extract", file, "--model", model, "--output", tmp_path / "f", code=1)
        assert "bad.jsonl:1" in found["error"]
        assert not (tmp_path / "f").exists()
        found = run("extract", tmp_path / "none.jsonl", "--model", model, code=1)
        assert "no such file" in found["error"]


def cvxnn_pairs(data):
    from cvxnn.preference import read_preferences

    return read_preferences(data)


class TestFit:
    def test_head_and_what_was_measured(self, run, head, features):
        found = run("fit", features, "--output", head, "--n-patterns", "8")
        assert found["status"] == "nothing to do"
        measured = found["measured"]
        loaded = cvxnn.load(head)
        assert loaded.embedding == read_pair_features(features).embedding
        test = read_pair_features(features).split(0.25, 0)[1]
        margins = loaded.reward_margin(np.asarray(test.chosen), np.asarray(test.rejected))
        assert measured["accuracy"] == pytest.approx((margins > 0).mean())
        assert measured["accuracy"] > 0.8
        assert measured["certificate"]["phase I"]["gap"] <= 0.01
        assert set(found["baselines"]) == {"longer reply wins", "linear head"}
        assert found["held_out_pairs"] == len(test)
        assert found["converged"] is True

    def test_what_people_read(self, head, features, capsys):
        assert main(["fit", features, "--output", head, "--n-patterns", "8"]) == 0
        text = capsys.readouterr().out
        for part in ("lower bound", "COALA", "linear head", "longer reply wins", "nothing to do"):
            assert part in text

    def test_rows_beyond_the_memory_stay_on_the_disk(
        self, run, head, features, monkeypatch, tmp_path
    ):
        monkeypatch.setattr("cvxnn.features.pairs._MOST_IN_MEMORY", 0)
        output = tmp_path / "head.safetensors"
        stored = read_pair_features(features)
        # The linear head chooses its strength on 20 of the pairs, and is fitted to all.
        width = stored.chosen.shape[1]
        monkeypatch.setattr("cvxnn.estimators._streamed_pairs._SAMPLE_NUMBERS", 20 * 2 * width)
        found = run("fit", features, "--output", output, "--n-patterns", "8")
        assert set(found["baselines"]) == {"longer reply wins", "linear head"}
        np.testing.assert_allclose(
            cvxnn.load(output).reward(stored.chosen),
            cvxnn.load(head).reward(np.asarray(stored.chosen)),
            rtol=1e-3,
            atol=1e-4,
        )

    def test_other_settings_are_refused(self, run, head, features):
        before = Path(head).read_bytes()
        found = run("fit", features, "--output", head, "--n-patterns", "9", code=4)
        assert "(--n-patterns: 8 in the file, 9 requested)" in found["error"]
        assert Path(head).read_bytes() == before

    def test_held_out_features_and_linear_head(self, run, features, tmp_path):
        output = tmp_path / "deep" / "linear.safetensors"
        found = run("fit", features, "--test", features, "--head", "linear", "--output", output)
        assert found["training_pairs"] == found["held_out_pairs"] == 40
        assert set(found["baselines"]) == {"longer reply wins"}
        assert type(cvxnn.load(output)).__name__ == "LinearPreferenceHead"

    def test_the_head_is_fitted_to_all_pairs_at_the_end(self, run, features, tmp_path, capsys):
        linear = ["fit", features, "--head", "linear", "--output"]
        part = run(*linear, tmp_path / "part.safetensors")
        final = run(*linear, tmp_path / "all.safetensors", "--refit")
        alone = run(*linear, tmp_path / "alone.safetensors", "--test-size", "0")
        assert final["measured"]["margins"] == part["measured"]["margins"]
        assert final["fit_to_all"]["pairs"] == alone["fit_to_all"]["pairs"] == 40
        assert final["training_pairs"] == part["training_pairs"] < 40
        assert (alone["measured"], alone["held_out_pairs"]) == (None, 0)
        heads = [cvxnn.load(tmp_path / f"{name}.safetensors") for name in ("part", "all", "alone")]
        np.testing.assert_array_equal(heads[1].coef_, heads[2].coef_)
        assert not np.array_equal(heads[0].coef_, heads[1].coef_)
        assert len(heads[1].training_record_) > len(heads[0].training_record_)
        for name, said in (("all", "without the held-out pairs"), ("alone", "was not measured")):
            extra = ["--refit"] if name == "all" else ["--test-size", "0"]
            assert main([*linear, str(tmp_path / f"{name}.safetensors"), *extra]) == 0
            assert said in capsys.readouterr().out
        both = [*linear, tmp_path / "h", "--test", features, "--test-size", "0"]
        assert "--test-size 0 asks for none" in run(*both, code=2)["error"]

    def test_several_folders_are_one(self, run, features, model, data, tmp_path):
        known = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()[:10]]
        new = [{**row, "prompt": f"{row['prompt']} b", "conversation_id": "n"} for row in known]
        fresh = write(tmp_path / "more.jsonl", *new)
        more, other = tmp_path / "more", tmp_path / "other"
        run("extract", fresh, "--model", model, "--output", more)
        output = tmp_path / "head.safetensors"
        arguments = ["--head", "linear", "--test-size", "0", "--output", output]
        assert run("fit", features, more, *arguments)["fit_to_all"]["pairs"] == 50
        rows = [read_pair_features(folder) for folder in (features, more)]
        won, lost = (
            np.concatenate([getattr(part, name) for part in rows])
            for name in ("chosen", "rejected")
        )
        expected = cvxnn.LinearPreferenceHead(random_state=0)
        expected.fit_pairs(won, lost, groups=[*rows[0].groups, *rows[1].groups])
        np.testing.assert_array_equal(cvxnn.load(output).coef_, expected.coef_)
        settings = tmp_path / "settings.toml"
        settings.write_text(f'[fit]\nfeatures = ["{features}", "{more}"]\n', encoding="utf-8")
        assert run("fit", "--config", settings, *arguments)["status"] == "nothing to do"
        run("extract", fresh, "--model", model, "--output", other, "--layer", "1")
        found = run("fit", features, other, *arguments, code=1)
        assert "folders 1 and 2 were embedded differently (layer is 2 and 1)" in found["error"]
        found = run("fit", features, more, features, *arguments, code=2)
        assert "two hold the same pairs; name each once" in found["error"]

    def test_no_convergence_is_an_exit_code(self, run, features, tmp_path, capsys):
        output = tmp_path / "head.safetensors"
        arguments = ["fit", features, "--output", output, "--n-patterns", "8"]
        arguments += ["--max-iter", "2", "--tol", "1e-6", "--formulation", "relu"]
        assert run(*arguments, code=3)["converged"] is False
        assert output.exists()
        assert run(*arguments, code=3)["status"] == "nothing to do"

    def test_a_head_that_is_constant_is_named(self, features, tmp_path, capsys):
        arguments = ["fit", features, "--output", str(tmp_path / "h"), "--strength", "2"]
        assert main([*arguments, "--n-patterns", "8", "--formulation", "relu"]) == 0
        assert "warning: COALAPreferenceHead predicts the same" in capsys.readouterr().err

    @pytest.mark.slow
    def test_neither_torch_nor_transformers_is_needed(self, features, tmp_path, environment):
        # Extracted features are numbers and texts: a machine without the extra "llm" can fit.
        code = (
            "import sys\n"
            "class Missing:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.partition('.')[0] in ('torch', 'transformers', 'peft'):\n"
            "            raise ModuleNotFoundError(name)\n"
            "sys.meta_path.insert(0, Missing())\n"
            "from cvxnn.cli.main import main\n"
            "fit = ['fit', sys.argv[1], '--output', 'head.safetensors', '--n-patterns', '4']\n"
            "assert main([*fit, '--tol', '0.1', '--quiet']) == 0\n"
            "assert main(['score', 'head.safetensors', sys.argv[1], '--output', 'r.csv']) == 0\n"
            "assert main(['report', 'none.json']) == 1\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, features],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.endswith("error: no such file: none.json\n")
        assert {"head.safetensors", "r.csv"} <= {path.name for path in tmp_path.iterdir()}

    def test_parameters_of_coala_are_not_for_others(self, run, features, tmp_path):
        found = run(
            "fit", features, "--head", "linear", "--beta", "2", "--output", tmp_path / "h", code=1
        )
        assert "'beta'" in found["error"]


class TestScore:
    def test_pairs_features_and_replies_agree(self, run, head, features, model, data, tmp_path):
        stored = run("score", head, features)
        fresh = run("score", head, data, "--model", model)
        for part in ("held_out", "training"):
            assert stored[part]["pairs"] in range(1, 40)
            assert stored[part]["accuracy"] == fresh[part]["accuracy"]
        margins = [[row["margin"] for row in found["rewards"]] for found in (stored, fresh)]
        np.testing.assert_allclose(*margins, rtol=1e-3, atol=1e-3)
        rows = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()]
        replies = [{"prompt": row["prompt"], "response": row["chosen"]} for row in rows]
        found = run("score", head, write(tmp_path / "replies.jsonl", *replies), "--model", model)
        np.testing.assert_allclose(
            [row["reward"] for row in found["rewards"]],
            [row["chosen_reward"] for row in fresh["rewards"]],
            rtol=1e-3,
            atol=1e-3,
        )
        assert "held_out" not in found
        assert [row["response"] for row in found["rewards"]] == [row["chosen"] for row in rows]

    def test_all_fields_of_the_rows_come_back(self, run, head, model, tmp_path):
        own = {"id": "p1", "note": {"a": [1]}, "margin": 2}
        pair = {"winner": "b c", "loser": "d", "question": "a"}
        none = {**pair, "loser": "b c", "id": "p0"}  # states no preference, so is left out
        file = write(tmp_path / "pairs.jsonl", none, {**pair, **own})
        names = "prompt=question,chosen=winner,rejected=loser"
        [row] = run("score", head, file, "--model", model, "--fields", names)["rewards"]
        texts = {"prompt": "a", "chosen": "b c", "rejected": "d", "group": "p1"}
        assert texts.items() | {("id", "p1"), ("input_margin", 2)} <= {
            item for item in row.items() if item[0] != "note"
        }
        assert row["note"] == own["note"]
        assert row["margin"] == row["chosen_reward"] - row["rejected_reward"]
        scored = write(tmp_path / "replies.jsonl", {"prompt": "a", "response": "b", "reward": 7})
        [row] = run("score", head, scored, "--model", model)["rewards"]
        assert row["input_reward"] == 7
        assert row["reward"] < 0
        [row] = run("best", head, scored, "--model", model)["replies"]
        assert row["input_reward"] == 7
        assert row["verdict"] == "only"

    def test_lines_on_stdout(self, head, features, capsys):
        assert main(["score", head, features]) == 0
        captured = capsys.readouterr()
        rows = [json.loads(line) for line in captured.out.splitlines()]
        assert len(rows) == 40
        assert all(row["margin"] == row["chosen_reward"] - row["rejected_reward"] for row in rows)
        assert "training pairs" in captured.err
        assert "held-out pairs" in captured.err
        assert "share a conversation or a prompt" in captured.err
        assert "conversations or prompts only" in captured.err

    def test_a_head_without_a_record_of_its_training_pairs(self, features, tmp_path, capsys):
        rows = read_pair_features(features)
        own = cvxnn.LinearPreferenceHead(embedding=rows.embedding, random_state=0)
        cvxnn.save(own.fit_pairs(rows.chosen, rows.rejected), tmp_path / "own.safetensors")
        assert main(["score", str(tmp_path / "own.safetensors"), features]) == 0
        said = capsys.readouterr().err
        assert "40 pairs, perhaps those of the fit" in said
        assert "has no record of its training pairs" in said
        assert "held-out pairs" not in said

    def test_training_pairs_are_not_taken_for_held_out_ones(
        self, run, head, features, model, tmp_path
    ):
        fitted = json.loads(Path(head).with_suffix(".json").read_text("utf-8"))
        found = run("score", head, features)
        assert found["held_out"]["pairs"] == fitted["held_out_pairs"]
        assert found["training"]["pairs"] == fitted["training_pairs"]
        assert found["held_out"]["accuracy"] == fitted["measured"]["accuracy"]
        assert found["held_out"]["interval"] == fitted["measured"]["interval"]
        # Another conversation with a prompt of the training is not held out, a new prompt is.
        known = next(row for row in found["rewards"] if row["trained_on"])
        row = {name: known[name] for name in ("prompt", "chosen", "rejected")}
        others = [{**row, "conversation_id": "new"}, {**row, "prompt": "a b c d e f"}]
        fresh = run("score", head, write(tmp_path / "new.jsonl", *others), "--model", model)
        assert [row["trained_on"] for row in fresh["rewards"]] == [True, False]

    def test_csv_once(self, run, head, features, tmp_path):
        output = tmp_path / "rewards.csv"
        first = run("score", head, features, "--output", output)
        table = list(csv.DictReader(io.StringIO(output.read_text("utf-8"))))
        assert len(table) == first["pairs"] == 40
        assert run("score", head, features, "--output", output)["status"] == "nothing to do"
        refused = run("score", head, features, "--output", output, "--limit", "3", code=4)
        assert "--limit: null in the file, 3 requested" in refused["error"]
        assert run("score", head, features, "--output", tmp_path / "rewards.txt", code=1)

    def test_a_folder_whose_files_change_is_another_input(self, run, head, model, tmp_path):
        row = {"prompt": "a b", "chosen": "c d", "rejected": "e"}
        folder, output = tmp_path / "pairs", tmp_path / "rewards.jsonl"
        folder.mkdir()
        write(folder / "one.jsonl", row)
        arguments = ["score", head, folder, "--model", model, "--output", output]
        assert run(*arguments)["pairs"] == 1
        assert run(*arguments)["status"] == "nothing to do"
        write(folder / "two.jsonl", {**row, "prompt": "f g"})
        assert "data: " in run(*arguments, code=4)["error"]
        assert run(*arguments, "--overwrite")["pairs"] == 2

    def test_interrupted_scoring_continues(self, run, head, data, model, tmp_path, monkeypatch):
        output = tmp_path / "rewards.jsonl"
        arguments = ["score", head, data, "--model", model, "--output", output]
        arguments += ["--batch-tokens", "64"]
        put, calls = EmbeddingCache.put, []

        def stop(self, vectors):
            put(self, vectors)
            calls.append(len(vectors))
            if len(calls) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(EmbeddingCache, "put", stop)
        said = run(*arguments, code=130)["interrupted"]
        assert said == f"{sum(calls)} embeddings are kept; the same command continues"
        assert not output.exists()
        found = run(*arguments)
        assert sum(calls) == 80 == 2 * found["pairs"]  # none was computed twice
        assert [path.name for path in sorted(tmp_path.iterdir())] == [
            "rewards.jsonl",
            "rewards.jsonl.json",
        ]

    def test_another_model_is_refused(self, run, head, data, other_model):
        found = run("score", head, data, "--model", other_model, code=1)
        assert "fingerprint" in found["error"]


class TestBest:
    def test_the_reply_of_highest_reward(self, run, head, data, model, tmp_path):
        pairs = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()[:4]]
        scored = run("score", head, data, "--model", model, "--limit", "4")["rewards"]
        each = [
            {"prompt": pair["prompt"], "response": pair[side], "id": f"{i}{side}"}
            for i, pair in enumerate(pairs)
            for side in ("rejected", "chosen")
        ]
        lists = [{"prompt": p["prompt"], "responses": [p["rejected"], p["chosen"]]} for p in pairs]
        named = [
            {"prompt": p["prompt"], "replies": {"plain": p["rejected"], "b": {"text": p["chosen"]}}}
            for p in pairs
        ]
        output = tmp_path / "best.jsonl"
        for i, rows in enumerate((each, lists, named)):
            file = write(tmp_path / f"{i}.jsonl", *rows)
            found = run("best", head, file, "--model", model)["replies"]
            for row, pair, known in zip(found, pairs, scored, strict=True):
                assert row["verdict"] == "chosen"
                assert row["response"] == pair["chosen" if known["margin"] > 0 else "rejected"]
                assert row["margin"] == pytest.approx(abs(known["margin"]), rel=1e-3, abs=1e-3)
                assert row["candidates"] == 2
            name = ("id", "prompt", "name")[i]
            assert name in found[0]
        arguments = ["best", head, tmp_path / "0.jsonl", "--model", model, "--output", output]
        strict = run(*arguments, "--least-margin", "1e9")
        assert strict["verdicts"] == {"abstained": 4}
        assert "4 without a choice" in strict["summary"]
        kept = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
        assert [row["id"] for row in kept] == [f"{i}rejected" for i in range(4)]
        assert run(*arguments, "--least-margin", "1e9")["status"] == "nothing to do"
        assert "--least-margin" in run(*arguments, code=4)["error"]
        # The same head twice changes no choice.
        both = run("best", head, tmp_path / "0.jsonl", "--model", model, "--also", head)["replies"]
        one = run("best", head, tmp_path / "0.jsonl", "--model", model)["replies"]
        assert [row["id"] for row in both] == [row["id"] for row in one]
        assert len(both[0]["rewards"]) == 2

    def test_a_folder_in_place_of_the_output_is_refused_first(self, run, head, features, tmp_path):
        folder = tmp_path / "folder.jsonl"
        folder.mkdir()
        replies = write(tmp_path / "replies.jsonl", {"prompt": "a", "response": "b"})
        for command in (
            ["fit", features],
            ["score", head, features],
            ["best", head, replies, "--model", tmp_path / "no-model"],
            ["generate", head, "--prompt", "a", "--model", tmp_path / "no-model"],
        ):
            found = run(*command, "--output", folder, code=1)
            assert (
                found["error"] == f"cannot write {folder}: it is a folder; give the name of a file"
            )
        for place in (".", "/"):  # paths without a name
            refused = run("fit", features, "--output", place, code=1)["error"]
            assert refused == f"cannot write {place}: it is a folder; give the name of a file"
            refused = run("study", replies, "--output", place, code=2)["error"]
            assert refused == f"--output is {place}; give a name, beside which the key may lie"

    def test_rows_without_replies_are_named(self, run, head, tmp_path):
        for row in (
            {"prompt": "a"},
            {"prompt": "a", "responses": []},
            {"prompt": "a", "replies": 3},
        ):
            file = write(tmp_path / "bad.jsonl", {"prompt": "a", "response": "b"}, row)
            assert "bad.jsonl:2: expected 'response'" in run("best", head, file, code=1)["error"]
        assert "no such file of replies" in run("best", head, tmp_path / "no", code=1)["error"]


class TestGenerate:
    def test_replies_side_by_side_and_resumed(self, run, head, model, tmp_path):
        output = tmp_path / "replies.jsonl"
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a b c\n\nd e\n", encoding="utf-8")
        arguments = ["generate", head, "--prompts", prompts, "--model", model, "--plain"]
        arguments += ["--best-of", "2", "--max-new-tokens", "6", "--segment", "2"]
        found = run(*arguments, "--output", output)
        assert [row["prompt"] for row in found["replies"]] == ["a b c", "d e"]
        assert [list(row["replies"]) for row in found["replies"]] == [
            ["plain", "best of 2", "guided"]
        ] * 2
        lines = output.read_text("utf-8").splitlines(keepends=True)
        assert [json.loads(line) for line in lines] == found["replies"]
        for row in found["replies"]:
            for reply in row["replies"].values():
                assert reply["ending"] in ("end", "length")
                assert reply["n_tokens"] <= 6
        output.write_text(lines[0], encoding="utf-8")  # as if interrupted
        again = run(*arguments, "--output", output)
        assert again["replies"] == found["replies"]
        assert run(*arguments, "--output", output)["status"] == "nothing to do"
        refused = run(*arguments, "--output", output, "--weight", "2", code=4)
        assert "--weight: 1.0 in the file, 2.0 requested" in refused["error"]

    def test_text_is_streamed_without_codes_of_the_terminal(self, head, model, capsys):
        arguments = ["generate", head, "--prompt", "a \x1b[31m b", "--model", model]
        assert main([*arguments, "--max-new-tokens", "4", "--quiet"]) == 0
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out
        assert captured.out.startswith("prompt    a �[31m b\nguided    ")
        assert re.search(r"\[reward \S+(; cut at 4 tokens)?\]", captured.out)

    def test_an_interruption_says_what_is_kept(self, head, model, tmp_path, capsys, monkeypatch):
        from cvxnn.cli import generate

        write_reply, output = generate._reply, tmp_path / "replies.jsonl"
        calls: list[Any] = []

        def interrupt(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return write_reply(*arguments)

        arguments = ["generate", head, "--prompt", "a", "--prompt", "b", "--model", model]
        arguments += ["--max-new-tokens", "2", "--output", str(output), "--quiet"]
        monkeypatch.setattr(generate, "_reply", interrupt)
        assert main(arguments) == 130
        kept = f"the replies to 1 of 2 prompts are kept in {output}; the same command continues"
        assert kept in capsys.readouterr().err
        with monkeypatch.context() as patch:  # while the model is loaded, they are still kept
            patch.setattr(generate, "embedder_of", interrupt)
            calls.pop()
            assert main(arguments) == 130
        assert kept in capsys.readouterr().err

    def test_the_replies_to_a_prompt_are_kept_one_by_one(
        self, run, head, model, tmp_path, capsys, monkeypatch
    ):
        from cvxnn.comparison import replies

        arguments = [
            "generate",
            head,
            "--prompt",
            "a",
            "--prompt",
            "b",
            "--model",
            model,
            "--plain",
        ]
        arguments += ["--best-of", "2", "--max-new-tokens", "3", "--segment", "2"]
        whole, output = tmp_path / "whole.jsonl", tmp_path / "replies.jsonl"
        run(*arguments, "--output", whole)
        write_replies, left, asked = replies.side_by_side, [2, 1, 9], []

        def interrupt(*given: Any, **ways: Any) -> Any:
            asked.append([ways["plain"], ways["best_of"], ways["guided"]])
            for reply in write_replies(*given, **ways):
                if not left[0]:
                    left.pop(0)
                    raise KeyboardInterrupt
                left[0] -= 1
                yield reply

        monkeypatch.setattr(replies, "side_by_side", interrupt)
        kept = "are kept in", f"{output}; the same command continues"
        for said in ("2 of the replies to the first prompt", "the replies to 1 of 2 prompts"):
            assert main([*arguments, "--output", str(output), "--quiet"]) == 130
            assert " ".join([said, *kept]) in capsys.readouterr().err
        run(*arguments, "--output", output)
        assert asked == [[True, 2, True], [False, 0, True], [True, 2, True], [True, 2, True]]
        assert output.read_bytes() == whole.read_bytes()
        assert {path.name for path in tmp_path.iterdir()} == {
            *("whole.jsonl", "whole.jsonl.json", "replies.jsonl", "replies.jsonl.json")
        }

    def test_what_wrote_no_reply_binds_nobody(
        self, run, head, model, tmp_path, capsys, monkeypatch
    ):
        from cvxnn.comparison import replies

        output = tmp_path / "replies.jsonl"
        arguments = ["generate", head, "--prompt", "a", "--output", str(output)]
        assert main([*arguments, "--model", str(tmp_path / "none")]) == 1
        assert list(tmp_path.iterdir()) == []
        arguments += ["--model", model]
        with monkeypatch.context() as patch:
            patch.setattr(replies, "side_by_side", lambda *_, **__: 1 / 0)
            assert main([*arguments, "--max-new-tokens", "3"]) == 1
        run(*arguments, "--max-new-tokens", "2")
        made = output.read_bytes()
        assert main([*arguments, "--model", str(tmp_path / "none"), "--overwrite"]) == 1
        assert output.read_bytes() == made  # it is replaced once there is something else
        assert run(*arguments, "--max-new-tokens", "2")["status"] == "nothing to do"

    def test_prompts_of_a_file(self, head, run, tmp_path):
        chat = [{"role": "user", "content": "a"}]
        rows = [{"prompt": "a"}, {"prompt": "a"}, {"prompt": chat}, {"prompt": "b"}]
        file = str(write(tmp_path / "prompts.jsonl", *rows))
        assert read_prompts(file) == ["a", chat, "b"]
        assert read_prompts(file, limit=2) == ["a", chat]  # of prompts, not of rows
        missing = run("generate", head, "--prompts", tmp_path / "none.txt", code=1)
        assert missing["error"] == f"no such file of prompts: {tmp_path / 'none.txt'}"
        empty = tmp_path / "empty.txt"
        empty.write_text("\n", encoding="utf-8")
        found = run("generate", head, "--prompts", empty, code=1)
        assert "the file is empty; expected one prompt a line" in found["error"]
        bad = write(tmp_path / "bad.jsonl", {"prompt": "a"}, {"text": "b"})
        assert "bad.jsonl:2" in run("generate", head, "--prompts", bad, code=1)["error"]

    def test_no_prompt_is_a_usage_error(self, head, capsys, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        assert main(["generate", head]) == 2
        assert "no prompt" in capsys.readouterr().err


def test_compare_answers_held_out_prompts(run, model, data, tmp_path):
    output = tmp_path / "comparison"
    arguments = ["compare", data, "--model", model, "--output", output, "--n-patterns", "8"]
    arguments += ["--methods", "linear", "--max-new-tokens", "4", "--no-guided"]
    assert run(*arguments)["replies"] == []
    found = run(*arguments, "--replies", "2", "--best-of", "3")
    assert [list(row["replies"]) for row in found["replies"]] == [["plain", "best of 3"]] * 2
    lines = (output / "replies.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(line) for line in lines if line] == found["replies"]
    again = run(*arguments, "--replies", "2", "--best-of", "3")
    assert (again["status"], again["replies"]) == ("nothing to do", found["replies"])
    run("report", output, "--output", tmp_path / "report.html")
    assert "best of 3" in (tmp_path / "report.html").read_text("utf-8")  # without being named
    refused = run(*arguments, "--replies", "2", code=4)
    assert "--best-of: 3 in the file, 5 requested" in refused["error"]


@pytest.mark.slow
def test_layers_are_extracted_once_and_chosen_later(
    run, model, data, tmp_path, capsys, monkeypatch
):
    folder, one = tmp_path / "layers", tmp_path / "one"
    extract = ["extract", data, "--model", model]
    assert run(*extract, "--layers", "2,1", "--output", folder)["embedding"]["layer"] == [2, 1]
    alone = run(*extract, "--layer", "1", "--output", one)["embedding"]
    part = read_pair_features(folder).take_layers([1])
    assert part.embedding == alone
    np.testing.assert_allclose(part.chosen, read_pair_features(one).chosen, atol=1e-5)
    refused = run(*extract, "--layers", "1", "--output", folder, code=4)
    assert "--layer: [2, 1] in the file, 1 requested" in refused["error"]
    assert "did you mean 'all'" in run(*extract, "--layer", "al", code=2)["error"]

    fit = ["fit", folder, "--n-patterns", "8", "--output"]
    auto = run(*fit, tmp_path / "auto.safetensors")
    [best], shares = auto["layers"]["layers"], auto["layers"]["accuracies"]
    assert best in (1, 2)
    assert shares[str(best)] == max(shares.values())
    assert auto["embedding"]["layer"] == best
    assert run(*fit, tmp_path / "auto.safetensors")["status"] == "nothing to do"
    file = tmp_path / "both.safetensors"
    both = run(*fit, file, "--layers", "all")
    assert both["measured"]["settings"]["blocks"] == "[16, 16]"
    kept = cvxnn.load(file)
    assert kept.embedding["layer"] == [2, 1]
    error = run(*fit, file, "--layers", "3", code=2)["error"]
    assert (
        "has the layers 2,1; choose among these, or run cvxnn extract with --layer 1,2,3" in error
    )
    fit[1] = one
    assert "has layer 1 only" in run(*fit, file, "--layers", "2", code=2)["error"]
    other = "layer is 1 and [2, 1]; embed the pairs again, by cvxnn extract --layer 2,1"
    assert run("score", file, one, code=1)["error"].endswith(other)
    fit[1] = folder
    assert run(*fit, tmp_path / "h", "--test", one, code=1)["error"].endswith(other)

    # A head takes its layers out of the folder, and a model gives the same rewards.
    features = read_pair_features(folder).take_layers([2, 1])
    for place, name in ((folder, file), (folder, tmp_path / "auto.safetensors")):
        by_folder = run("score", name, place)["rewards"]
        by_model = run("score", name, data, "--model", model)["rewards"]
        for row, other in zip(by_folder, by_model, strict=True):
            np.testing.assert_allclose(row["margin"], other["margin"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        [row["chosen_reward"] for row in run("score", file, folder)["rewards"]],
        kept.reward(np.asarray(features.chosen)),
        rtol=1e-6,
    )
    guided = ["generate", file, "--model", model, "--prompt", "a b", "--max-new-tokens", "3"]
    reply = run(*guided)["replies"][0]["replies"]["guided"]
    if reply["text"]:
        row = Embedder.from_description(load_model(model), kept.embedding).embed(
            ["a b"], [reply["text"]]
        )
        np.testing.assert_allclose(reply["reward"], kept.reward(row)[0], rtol=1e-3, atol=1e-4)

    compare = ["compare", folder, "--model", model, "--methods", "linear"]
    compare += ["--output", tmp_path / "compared"]
    fresh = run(*compare)
    assert fresh["settings"]["embedding"]["layer"] == best
    monkeypatch.setattr("cvxnn.cli.compare.model_of", None)  # no weights are loaded
    again = run(*compare)
    assert again["status"] == "nothing to do"
    assert again["results"] == fresh["results"]
    (tmp_path / "compared" / "linear.json").unlink()
    assert "not callable" in run(*compare, code=1)["error"]


@pytest.mark.slow
def test_compare_takes_what_was_extracted(run, features, data, model, tmp_path, monkeypatch):
    arguments = ["--model", model, "--methods", "linear"]
    fresh = run("compare", data, *arguments, "--output", tmp_path / "fresh")
    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed_to_file", None)
        kept = run("compare", features, *arguments, "--output", tmp_path / "kept")
    [one], [other] = fresh["results"], kept["results"]
    np.testing.assert_allclose(one["margins"], other["margins"], rtol=1e-3, atol=1e-3)
    # The extraction of all pairs is charged by the share of the training pairs.
    assert 0.5 < other["flops"]["embeddings"] / one["flops"]["embeddings"] < 1.5
    again = ["compare", features, *arguments, "--output", tmp_path / "kept"]
    assert run(*again)["status"] == "nothing to do"
    assert "do not apply" in run(*again, "--limit", "3", code=1)["error"]
    assert "has layer 2 only" in run(*again, "--layer", "1", code=2)["error"]
    mixed = run("compare", features, "--test", data, *arguments, "--output", tmp_path, code=1)
    assert "extract both, or none" in mixed["error"]
    monkeypatch.setattr("cvxnn.cli.compare.model_of", None)  # heads on features need no model
    alone = ["compare", features, "--methods", "linear", "--output", tmp_path / "alone"]
    found = run(*alone)
    assert found["results"][0]["margins"] == other["margins"]
    assert found["model"] == {**kept["model"], "parameters": None}
    assert run(*alone)["status"] == "nothing to do"
    run("report", tmp_path / "alone", "--output", tmp_path / "report.html")
    head = f"{found['model']['name']}, in float32:"
    assert head in " ".join((tmp_path / "report.html").read_text("utf-8").split())


@pytest.mark.slow
@pytest.mark.slow
def test_an_interrupted_comparison_says_what_is_kept(model, data, tmp_path, capsys, monkeypatch):
    from cvxnn.llm.fine_tuning import training_loop

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training_loop, "stages", interrupt)  # once the reference has scored
    arguments = ["compare", data, "--model", model, "--methods", "dpo", "--quiet"]
    assert main([*arguments, "--output", str(tmp_path / "c")]) == 130
    assert "kept: what the reference of dpo has scored; the same" in capsys.readouterr().err


def test_compare_then_report(run, model, data, tmp_path, capsys):
    output = tmp_path / "comparison"
    arguments = ["compare", data, "--model", model, "--output", output, "--n-patterns", "8"]
    arguments += ["--micro-batch", "2", "--accumulation", "4", "--lora-r", "2"]
    first = run(*arguments, "--methods", "coala,dpo")
    assert [result["method"] for result in first["results"]] == ["coala", "dpo"]
    for result in first["results"]:
        assert len(result["margins"]) == first["data"]["held_out_pairs"]
        assert result["metrics"]["rewards/accuracies"] == pytest.approx(result["accuracy"])
        assert any(value is not None for value in result["history"]["rewards/margins"])
        assert sum(result["flops"].values()) > 0
    assert (output / "coala.safetensors").exists()
    # A further method is added; the others are kept.
    times = {name: (output / name).stat().st_mtime_ns for name in ("coala.json", "dpo.json")}
    more = run(*arguments, "--methods", "coala,simpo,dpo")
    assert more["results"][0] == first["results"][0]
    assert more["results"][2] == first["results"][1]
    assert times == {name: (output / name).stat().st_mtime_ns for name in times}
    assert run(*arguments, "--methods", "simpo")["status"] == "nothing to do"
    refused = run(*arguments, "--methods", "dpo,orpo", "--dpo-beta", "0.5", code=4)
    assert "fine_tuning.beta: 0.1 in the file, 0.5 requested" in refused["error"]
    assert not (output / "orpo.json").exists()  # refused before any work

    replies = write(tmp_path / "replies.jsonl", {"prompt": "<b>", "replies": {"plain": "x & y"}})
    page = tmp_path / "report.html"
    run(*arguments, "--methods", "coala,dpo,simpo")
    made = run("report", output, "--examples", replies, "--output", page)
    assert made["methods"] == ["coala", "dpo", "simpo"]
    html = page.read_text("utf-8")
    assert "&lt;b&gt;" in html
    assert "SimPO" in html
    assert run("report", output, "--examples", replies, "--output", page)["status"] == (
        "nothing to do"
    )
    bad = tmp_path / "bad.jsonl"
    bad.write_text("[1, 2", encoding="utf-8")
    assert "bad.jsonl:1" in run("report", output, "--examples", bad, code=1)["error"]
    assert f"--examples {replies}" in run("report", replies, code=1)["error"]


@pytest.mark.slow
def test_compare_several_seeds(run, model, data, tmp_path, monkeypatch):
    folder = tmp_path / "seeds"
    command = ["compare", data, "--model", model, "--output", folder, "--n-patterns", "8"]
    command += ["--methods", "coala,linear", "--seeds", "2", "--patterns", "gaussian"]
    found = run(*command)
    assert [row["method"] for row in found["seeds"]] == ["coala", "linear"]
    files = [folder / f"seed-{seed}" / "comparison.json" for seed in (0, 1)]
    alone = [json.loads(file.read_text("utf-8")) for file in files]
    for i, row in enumerate(found["seeds"]):
        assert row["accuracies"] == [one["results"][i]["accuracy"] for one in alone]
    assert found["results"] == alone[0]["results"]
    assert [path.name for path in folder.rglob("features")] == ["features"]  # embedded once
    monkeypatch.setattr("cvxnn.cli.compare.model_of", None)  # no weights are loaded
    again = run(*command)
    assert (again["status"], again["seeds"]) == ("nothing to do", found["seeds"])
    run("report", folder, "--output", tmp_path / "seeds.html")
    assert "Over 2 seeds" in (tmp_path / "seeds.html").read_text("utf-8")


@pytest.mark.slow
def test_compare_from_the_fine_tuned_model(run, model, data, features, tmp_path):
    folder = tmp_path / "sft"
    command = ["compare", data, "--model", model, "--methods", "linear,dpo", "--output", folder]
    command += ["--steps", "2", "--micro-batch", "2", "--accumulation", "2", "--lora-r", "2"]
    raw = run(*[tmp_path / "raw" if part == folder else part for part in command])
    found = run(*command, "--sft-first")
    assert found["model"]["fingerprint"] != raw["model"]["fingerprint"]
    assert found["results"][0]["margins"] != raw["results"][0]["margins"]
    assert found["results"][1]["history"]["eval_rewards/margins"][0] == 0  # DPO's reference is it
    (folder / "linear.json").unlink()
    again = run(*command, "--sft-first")  # the start is kept too
    assert again["results"][0]["margins"] == found["results"][0]["margins"]
    assert again["results"][1] == found["results"][1]
    assert "model" in run(*command, code=4)["error"]  # results of another start
    refused = run("compare", features, "--sft-first", "--output", tmp_path / "x", code=2)
    assert "give pairs" in refused["error"]


@pytest.mark.parametrize(
    ("option", "loss"),
    [("--solver cronos", "pointwise"), ("--solver interior-point", ""), ("--patterns local", "")],
)
def test_settings_that_a_gated_head_lacks_are_refused_at_once(
    run: Any, data: str, features: str, tmp_path: Path, option: str, loss: str
) -> None:
    option, ways = option.split(), [("--formulation", "relu"), ("--loss", "pointwise")]
    option += ["--loss", loss] if loss else []
    compare = ["compare", data, "--methods", "dpo,coala", "--output", tmp_path / "compared"]
    refused = run(*compare, *option, "--model", "no such model", code=2)["error"]
    assert refused.startswith(" ".join(option[:2]))
    assert "add --formulation relu" in refused
    fit = ["fit", features, "--output", tmp_path / "head.safetensors", "--n-patterns", "8"]
    assert run(*fit, *option, code=2)["error"] == refused
    for way in ways[: 1 if loss else 2]:
        assert run(*fit, *option, *way, "--overwrite")["status"] == "done"
