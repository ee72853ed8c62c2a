"""Grades of MT-Bench for ``cvxnn evaluate --protocol mt-bench``."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn.cli.console import Console
from cvxnn.files.digests import digest, digest_of_file
from cvxnn.files.json_files import made_once
from cvxnn.files.locks import check_file
from cvxnn.files.writing import read_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvxnn.evaluation.mt_bench import MTBenchAnswer


def grade_answers(
    options: argparse.Namespace,
    console: Console,
    output: Path,
    answered: Callable[[], list[MTBenchAnswer]] | None = None,
) -> dict[str, Any]:
    """Let a server grade answers to MT-Bench, and report the scores.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments of ``cvxnn evaluate``.
    console : Console
        Where results are shown.
    output : Path
        File for the results.
    answered : callable, optional
        Gives the answers; by default they are read from the file that the options name.

    Returns
    -------
    dict
        ``scores`` by model and ``grades`` of all turns.
    """
    from cvxnn.evaluation.mt_bench import read_mt_bench_answers, read_mt_bench_questions
    from cvxnn.evaluation.mt_bench_grades import EndpointGrader, grade_mt_bench, mt_bench_scores
    from cvxnn.evaluation.protocols import MT_BENCH

    template = MT_BENCH if options.template is None else read_text(options.template)
    grader = EndpointGrader(
        options.judge,
        options.judge_model,
        template=template,
        token_budget=options.token_budget,
        n_requests=options.n_requests,
    )
    questions = read_mt_bench_questions(options.questions)
    answers = read_mt_bench_answers(options.replies) if answered is None else answered()
    console.made += check_file(output)
    log = output.with_suffix(".judgements.jsonl")
    settings = {
        "replies": digest([asdict(answer) for answer in answers]),
        "questions": digest_of_file(options.questions),
        "judge": digest(options.judge, options.judge_model, template),
    }
    console.kept = lambda: f"answers are kept in {log}; the same command continues"

    def ask() -> dict[str, Any]:
        if options.overwrite:
            log.unlink(missing_ok=True)
        grades = grade_mt_bench(grader, questions, answers, log=log)
        rows = [asdict(grade) for grade in grades]
        for row in rows:
            row["grade"] = None if math.isnan(row["grade"]) else row["grade"]
        scores = mt_bench_scores(grades, questions)
        judge = f"{options.judge_model} at {options.judge}"
        return {"judge": judge, "scores": scores, "grades": rows, "tokens": grader.tokens}

    result = made_once(output, settings, ask, overwrite=options.overwrite)
    for model, scores in result["scores"].items():
        parts = [f"{name} {value:.2f}" for name, value in scores.items() if name != "ungraded"]
        console.show(f"{model}: {', '.join(parts) or 'no grades'}")
        if scores["ungraded"]:
            text = f"{scores['ungraded']:.0f} turns of {model} got no grade and are left out"
            console.complain("warning", text)
    done = "wrote" if result["status"] == "done" else "nothing to do:"
    console.show(f"{done} {output}")
    return result
