"""All models of a comparison answer prompts, a judge reads them, and one page shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.evaluation import MTBenchQuestion, write_mt_bench_questions
from cvxnn.llm import generate_candidates, load_adapter, load_model
from cvxnn.llm.fine_tuning.adapters import merge_adapter

from ..evaluation.chat_server import Server, completion
from ..evaluation.conftest import server  # noqa: F401 (a fixture)
from .conftest import rows, write_rows

PROMPTS = ["a b", "c d e", "f"]
SHORT = ["--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """A linear head and DPO, both from the model that was fine-tuned on chosen replies."""
    from cvxnn.cli.main import main

    folder = tmp_path_factory.mktemp("compared")
    data = write_rows(folder / "pairs.jsonl", rows(16))
    command = ["compare", data, "--model", model, "--methods", "linear,dpo", "--sft-first"]
    command += ["--steps", "2", "--learning-rate", "0.05", "--output", folder / "result"]
    assert main([*map(str, command), "--quiet"]) == 0
    return folder / "result"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "prompts.jsonl", [{"prompt": text} for text in PROMPTS])


@pytest.mark.slow
def test_every_model_of_a_comparison_answers(
    run: Any, comparison: Path, model: str, prompts: Path, tmp_path: Path
) -> None:
    page, answers = tmp_path / "page.html", tmp_path / "answers.jsonl"
    command = ["evaluate", answers, "--comparison", comparison, "--prompts", prompts, *SHORT]
    command += ["--model", model, "--judge", "field:n_tokens", "--report", page]
    command += ["--output", tmp_path / "evaluation.json"]
    found = run(*command)
    made = [json.loads(line) for line in answers.read_text("utf-8").splitlines()]
    assert [row["prompt"] for row in made] == PROMPTS
    assert list(made[0]["replies"]) == ["plain", "linear", "dpo"]
    assert all(reply["reward"] is not None for reply in made[0]["replies"].values())

    lm = load_model(model)
    start = merge_adapter(load_adapter(lm, comparison / "start" / "adapter"))
    tuned = load_adapter(start, comparison / "dpo" / "adapter")
    for name, writer in (("plain", start), ("dpo", tuned)):
        greedy = [
            generate_candidates(writer, text, 1, max_new_tokens=6, top_k=1)[0] for text in PROMPTS
        ]
        assert [row["replies"][name]["text"] for row in made] == greedy

    for name, system in found["systems"].items():
        counts = [[row["replies"][way]["n_tokens"] for row in made] for way in (name, "plain")]
        expected = [(1 + np.sign(a - b)) / 2 for a, b in zip(*counts, strict=True) if a and b]
        assert system["preferences"] == expected
    shown = page.read_text("utf-8")
    assert "Win rates (tables 1 and 7)" in shown
    assert "3 prompts: a method has to win nearly all" in shown
    assert shown.count('class="reply"') == 9
    assert run(*command)["status"] == "nothing to do"
    other = run(*command, "--max-new-tokens", "5", code=4)["error"]
    assert "--max-new-tokens: 6 in the file, 5 requested" in other


def test_three_protocols_by_one_command(
    run: Any,
    server: Server,  # noqa: F811
    comparison: Path,
    model: str,
    prompts: Path,
    tmp_path: Path,
) -> None:
    questions = tmp_path / "question.jsonl"
    turns = ("a b", "c")
    write_mt_bench_questions(questions, [MTBenchQuestion(k, "math", turns) for k in (1, 2)])
    page, output = tmp_path / "page.html", tmp_path / "evaluation.json"
    command = ["evaluate", "--comparison", comparison, "--prompts", prompts, *SHORT]
    command += ["--limit", "1", "--methods", "dpo", "--model", model, "--output", output]
    command += ["--judge", server.url, "--judge-model", "m", "--n-requests", "1"]
    command += ["--protocol", "alpaca-eval,arena-hard,mt-bench"]
    assert "needs --questions" in run(*command, code=2)["error"]
    command += ["--questions", questions, "--report", page]
    said = ["Verdict: m", "[[A=B]]", "[[4]]", "[[5]]", "[[6]]", "[[8]]"]
    server.trouble = [(200, completion(text)) for text in said]
    found = run(*command, "--overwrite")["protocols"]
    assert found["alpaca-eval"]["systems"]["dpo"]["win_rate"]["ties"] == 0
    assert found["arena-hard"]["systems"]["dpo"]["win_rate"]["ties"] == 1
    scores = found["mt-bench"]["scores"]
    assert [scores[name]["score"] for name in ("plain", "dpo")] == [4.5, 7.0]
    shown = page.read_text("utf-8")
    for heading in ("AlpacaEval (table 1)", "Arena-Hard (table 7)", "MT-Bench (table 6)"):
        assert heading in shown
    n_asked = len(server.requests)
    run(*command)
    assert len(server.requests) == n_asked


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--judge", "word:others.jsonl"], "no such judge: word:others.jsonl"),
        (["--baseline", "plian"], "--baseline plian: the replies are plain, linear, dpo"),
    ],
)
def test_judge_and_baseline_are_checked_before_any_reply(
    run: Any, comparison: Path, prompts: Path, tmp_path: Path, extra: list[str], message: str
) -> None:
    answers = tmp_path / "answers.jsonl"
    command = ["evaluate", answers, "--comparison", comparison, "--prompts", prompts]
    command += ["--judge", "field:reward", "--output", tmp_path / "e.json", *extra]
    assert message in run(*command, code=2 if "--baseline" in extra else 1)["error"]
    assert not answers.exists()


def test_a_comparison_is_no_file_of_replies(run: Any, comparison: Path, tmp_path: Path) -> None:
    command = ["evaluate", comparison, "--judge", "field:reward", "--output", tmp_path / "e.json"]
    assert "give it as --comparison" in run(*command, code=2)["error"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--comparison", "FOLDER"], "needs --prompts"),
        (["--comparison", "FOLDER", "--methods", "sft"], "compares linear, dpo, and not sft"),
        (["--comparison", "."], "holds no comparison"),
        (["replies", "--protocol", "arena-hard"], "for a server as the judge"),
    ],
)
def test_what_cannot_be_evaluated(
    run: Any, comparison: Path, prompts: Path, tmp_path: Path, extra: list[str], message: str
) -> None:
    extra = [str(comparison) if word == "FOLDER" else word for word in extra]
    command = ["evaluate", *extra, "--judge", "field:reward", "--output", tmp_path / "e.json"]
    if "prompts" not in message:
        command += ["--prompts", prompts]
    code = 2 if message in ("needs --prompts", "for a server as the judge") else 1
    assert message in run(*command, code=code)["error"]


def test_a_model_that_the_comparison_does_not_know(
    run: Any, comparison: Path, other_model: str, prompts: Path, tmp_path: Path
) -> None:
    command = ["evaluate", tmp_path / "x.jsonl", "--comparison", comparison, "--model", other_model]
    command += ["--prompts", prompts, "--judge", "field:reward", "--output", tmp_path / "e.json"]
    assert "was trained on tiny" in run(*command, code=1)["error"]
