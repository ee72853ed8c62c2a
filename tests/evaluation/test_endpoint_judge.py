"""Judges behind the interface of OpenAI, against a server in this process, and their command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.cli.main import main
from cvxnn.evaluation import EndpointJudge, RewardModelJudge, compare_with_judge, win_rate

from .chat_server import Server, completion

PROMPTS = [f"Question {k}?" for k in range(6)]
OUTPUTS = ["yes " * (k + 1) for k in range(6)]
BASELINE = ["no " * (6 - k) for k in range(6)]
TEMPLATE = "{prompt}|{first}|{second}|{first}"


def test_answers_are_those_of_a_callable(server: Server, tmp_path: Path) -> None:
    judge = EndpointJudge(server.url, "m", template=TEMPLATE)
    log = tmp_path / "log.jsonl"
    found = compare_with_judge(judge, PROMPTS, OUTPUTS, BASELINE, both_orders=True, log=log)
    longer = RewardModelJudge(lambda _, replies: [len(reply) for reply in replies])
    expected = compare_with_judge(longer, PROMPTS, OUTPUTS, BASELINE, both_orders=True)
    assert found.judgements == expected.judgements
    assert found.position_bias is not None
    assert found.position_bias.consistency == 1.0
    assert judge.tokens == 10 * len(server.requests) == 120
    assert server.requests[0]["model"] == "m"
    again = compare_with_judge(judge, PROMPTS, OUTPUTS, BASELINE, both_orders=True, log=log)
    assert again.judgements == found.judgements
    assert len(server.requests) == 12  # nothing was asked, or paid, twice


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Verdict: A", 1.0),
        ("**Verdict:** B.", 0.0),
        ("verdict: A\nOn reflection,\nVERDICT: tie", 0.5),
        ("(b)", 0.0),
        ("Both are fine.", None),
        ("", None),
    ],
)
def test_verdicts(server: Server, said: str, expected: float | None) -> None:
    server.trouble = [(200, completion(said))]
    judge = EndpointJudge(server.url, "m")
    assert judge("p", "a {second}", "b") == (0.5 if expected is None else expected)
    assert judge.n_unclear == (expected is None)
    # What stands in a reply is no placeholder.
    assert "[Answer A]\na {second}\n" in server.requests[0]["messages"][0]["content"]


def test_trouble(server: Server) -> None:
    server.trouble = [(503, {"error": "busy"}), (429, {"error": "busy"})]
    judge = EndpointJudge(server.url, "m", template=TEMPLATE)
    assert judge("p", "aa", "b") == 1.0
    server.trouble = [(401, {"error": "no key"})]
    with pytest.raises(ValueError, match=r"refused to judge replies .*OPENAI_API_KEY"):
        judge("p", "aa", "b")
    server.trouble = [(200, {"choices": []})]
    with pytest.raises(ValueError, match="expected a chat completion"):
        judge("p", "aa", "b")
    with pytest.raises(ValueError, match=r"lacks \{second\}"):
        EndpointJudge(server.url, "m", template="{prompt} {first}")
    with pytest.raises(ValueError, match="expected at least 1"):
        EndpointJudge(server.url, "m", token_budget=0)


def replies_file(path: Path) -> Path:
    rows = [
        {
            "prompt": prompt,
            "replies": {
                "plain": {"text": b, "reward": float(k % 2)},
                "guided": {"text": a, "reward": 0.5},
            },
        }
        for k, (prompt, a, b) in enumerate(zip(PROMPTS, OUTPUTS, BASELINE, strict=True))
    ]
    rows.append({"prompt": "Alone?", "replies": {"plain": {"text": "x", "reward": 0.0}}})
    rows.append(
        {"prompt": "Mute?", "replies": {n: {"text": "", "reward": 0} for n in ("plain", "guided")}}
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_command_with_a_server(run: Any, server: Server, tmp_path: Path) -> None:
    file, template = replies_file(tmp_path / "replies.jsonl"), tmp_path / "question.txt"
    template.write_text(TEMPLATE, encoding="utf-8")
    output = tmp_path / "evaluation.json"
    ask = [file, "--judge", server.url, "--judge-model", "m", "--template", template]
    ask += ["--output", output, "--n-requests", "1"]
    spent = run(*ask, "--token-budget", "25", code=1)
    assert "budget of 25 tokens is used up" in spent["error"]
    assert len(server.requests) == 3
    found = run(*ask)
    assert len(server.requests) == 6
    guided = found["systems"]["guided"]
    lengths = zip(map(len, OUTPUTS), map(len, BASELINE), strict=True)
    preferences = [(1 + float(np.sign(a - b))) / 2 for a, b in lengths]
    assert guided["preferences"] == preferences
    assert guided["win_rate"]["rate"] == win_rate(preferences).rate
    assert (guided["prompts"], guided["left_out"]) == (6, 1)
    assert guided["length_controlled"]["rate"] != guided["win_rate"]["rate"]
    assert run(*ask)["status"] == "nothing to do"
    assert len(server.requests) == 6
    refused = run(*ask, "--both-orders", code=4)
    assert "both-orders: false in the file, true requested" in refused["error"]


def test_command_with_a_field(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, output = replies_file(tmp_path / "replies.jsonl"), tmp_path / "evaluation.json"
    found = run(file, "--judge", "field:reward", "--output", output)
    assert found["systems"]["guided"]["preferences"] == [1.0, 0.0] * 3
    assert main(["evaluate", str(file), "--judge", "field:reward", "--output", str(output)]) == 0
    said = capsys.readouterr()
    assert "had no part in them" in said.err
    assert "over 6 prompts only" in said.err
    assert "guided    50.0%" in said.out
    for extra, code, message in (
        (["--judge", "field:rewart"], 1, "; did you mean 'reward'"),
        (["--judge", "field:reward", "--baseline", "plan"], 2, "did you mean 'plain'"),
        (["--judge", "field:reward", "--token-budget", "3"], 2, "for a server"),
        (["--judge", "http://localhost:1/v1"], 2, "needs --judge-model"),
        (["--judge", "nowhere"], 1, "no such judge"),
    ):
        assert message in run(file, "--output", tmp_path / "x.json", *extra, code=code)["error"]


def test_command_with_words(run: Any, tmp_path: Path) -> None:
    """A model of words says how often it is right about pairs that it has not seen."""
    words, pairs = ("good", "fine", "poor", "bad"), tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"p{k}", "chosen": words[k % 2], "rejected": words[2 + k % 2]} for k in range(8)
    ]
    rows.append({"prompt": "p8", "chosen": "poor", "rejected": "good"})
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = tmp_path / "replies.jsonl"
    texts = [("good", "bad"), ("poor", "fine"), ("odd", "even")]
    file.write_text(
        "".join(
            json.dumps({"prompt": f"q{k}", "replies": {"plain": b, "other": a}}) + "\n"
            for k, (a, b) in enumerate(texts)
        ),
        encoding="utf-8",
    )
    found = run(file, "--judge", f"words:{pairs}", "--output", tmp_path / "evaluation.json")
    assert found["systems"]["other"]["preferences"] == [1.0, 0.0, 0.5]
    assert found["judge"] == (
        "words of 9 pairs of pairs.jsonl, 88.9% right on those of them that it has not seen"
    )
    assert found["judge_warning"] == ""


def test_a_judge_of_words_that_guesses_warns(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the pairs contradict the others, so that no words tell the better replies."""
    pairs, page = tmp_path / "pairs.jsonl", tmp_path / "page.html"
    rows = [
        {"prompt": f"p{k}", "chosen": ("good", "bad")[k % 2], "rejected": ("bad", "good")[k % 2]}
        for k in range(12)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ask = (replies_file(tmp_path / "replies.jsonl"), "--judge", f"words:{pairs}")
    ask += ("--output", tmp_path / "evaluation.json", "--report", page)
    found = run(*ask)
    assert "which guessing explains" in found["judge_warning"]
    assert main(["evaluate", *map(str, ask)]) == 0  # nothing to do, and the warning again
    assert f"warning: {found['judge_warning']}" in capsys.readouterr().err
    assert found["judge_warning"][1:] in page.read_text("utf-8")
