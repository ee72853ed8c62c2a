"""Sheets for people, straight from the replies of cvxnn generate, and the count of answers."""

from __future__ import annotations

import json
from pathlib import Path

from cvxnn.cli.main import main


def test_from_replies_to_counted_answers(run, tmp_path):
    def row(k, plain, guided):
        replies = {"plain": {"text": plain, "reward": 0.0}, "guided": {"text": guided}}
        return json.dumps({"prompt": f"Question {k}?", "replies": replies}) + "\n"

    file, folder = tmp_path / "replies.jsonl", tmp_path / "study"
    same = [row(7, "Alike.", "Alike. "), row(8, "", "So.")]
    lines = [row(k, f"In plain words {k}.", f"Guided {k}.") for k in range(3)]
    file.write_text("".join(lines + same), encoding="utf-8")
    found = run("study", file, "--output", folder)
    assert (found["questions"], found["left_out"]) == (3, 2)
    key = json.loads(Path(found["key"]).read_text("utf-8"))
    assert Path(found["key"]).parent == folder.parent
    sheet = (folder / "sheet.html").read_text("utf-8")
    assert "cvxnn guided" not in sheet
    choices = {
        question["id"]: letter
        for question in key["questions"]
        for letter, systems in question["options"].items()
        if systems == ["cvxnn guided"]
    }
    assert len(choices) == 3
    answers = tmp_path / "ann.json"
    content = {"format": "cvxnn-study-answers", "version": 1, "consent": "yes"}
    content |= {"sheet": key["sheet"], "participant": "ann", "answers": choices}
    answers.write_text(json.dumps(content), encoding="utf-8")
    counted = run("study", "--output", folder, "--answers", answers)
    assert counted["shares"]["cvxnn guided"]["rate"] == 1.0
    assert counted["participants"] == 1


def test_replies_that_do_not_differ_are_refused(tmp_path, capsys):
    file = tmp_path / "replies.jsonl"
    file.write_text(json.dumps({"prompt": "a", "replies": {"guided": "So."}}) + "\n")
    assert main(["study", str(file), "--output", str(tmp_path / "study")]) == 1
    assert "no prompt has two replies that differ" in capsys.readouterr().err
