"""Files of AlpacaEval: the outputs of a model, and the annotations of the judge."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from cvxnn.evaluation.win_rates import Judgement
from cvxnn.files.json_files import as_json
from cvxnn.files.writing import write_text
from cvxnn.preference.formats.alpaca_eval_annotations import parse_annotation
from cvxnn.preference.row_checks import (
    Row,
    check_distinct,
    check_one_name,
    check_text,
    optional_name,
    required_fields,
)
from cvxnn.preference.row_files import read_rows


@dataclass(frozen=True)
class AlpacaEvalOutput:
    """Reply of a model, in the form that ``alpaca_eval --model_outputs`` takes.

    Parameters
    ----------
    instruction : str
        The prompt.
    output : str
        The reply of the model, which may be empty. Leaving out empty replies would be choosing the
        replies by which a model is judged.
    generator : str
        Name of the model.
    dataset : str, default=""
        Origin of the instruction, such as ``"helpful_base"``; not written if empty.
    """

    instruction: str
    output: str
    generator: str
    dataset: str = ""


def write_alpaca_eval(path: str | os.PathLike[str], outputs: Iterable[AlpacaEvalOutput]) -> None:
    """Write the outputs of one model as a JSON array.

    All outputs are checked before the file is written.

    Parameters
    ----------
    path : path-like
        JSON file to create or to replace; it appears under its name only when it is complete.
    outputs : iterable of AlpacaEvalOutput
        Outputs of one model, at least one.

    Raises
    ------
    ValueError
        If there are no outputs, an instruction is empty or repeated, or there are outputs of
        several models: AlpacaEval compares one model for each file.
    """
    rows = []
    for number, output in enumerate(outputs):
        row: Row = {
            "instruction": output.instruction,
            "output": output.output,
            "generator": output.generator,
        }
        if output.dataset:
            row["dataset"] = output.dataset
        _checked_output(row, f"output {number}")
        rows.append(row)
    check_one_name([row["generator"] for row in rows], "outputs", "generator")
    check_distinct([row["instruction"] for row in rows], "instruction")
    write_text(path, as_json(rows, indent=2) + "\n")


def read_alpaca_eval(path: str | os.PathLike[str]) -> list[AlpacaEvalOutput]:
    """Read outputs that `write_alpaca_eval` or AlpacaEval wrote.

    Parameters
    ----------
    path : path-like
        JSON file with one array, or JSON lines; fields other than those of `AlpacaEvalOutput` are
        ignored.

    Returns
    -------
    list of AlpacaEvalOutput
        Outputs in the order of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `read_preferences`.
    """
    return [_checked_output(row, where) for where, row in read_rows(path)]


def read_alpaca_eval_annotations(path: str | os.PathLike[str]) -> list[Judgement]:
    """Read the ``annotations.json`` of AlpacaEval: the verdicts of its judge, including ties.

    Parameters
    ----------
    path : path-like
        JSON file with one array, or JSON lines.

    Returns
    -------
    list of Judgement
        Judgements in the order of the file. The evaluated model, which AlpacaEval puts second, is
        `system_a`, and the baseline is `system_b`. Rows without a verdict (null) are left out.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `read_preferences`. Also if no row has a verdict.
    """
    judgements = []
    for where, row in read_rows(path):
        instruction, first, second, preference = parse_annotation(row, where)
        if preference is None:
            continue
        systems = [optional_name(row, (f"generator_{k}",), where) or "" for k in (2, 1)]
        judgements.append(Judgement(instruction, second, first, preference, None, *systems))
    if not judgements:
        raise ValueError(f"{os.fspath(path)}: every 'preference' is null; run the judge first")
    return judgements


def _checked_output(row: Row, where: str) -> AlpacaEvalOutput:
    instruction, output, generator = required_fields(
        row, ("instruction", "output", "generator"), where
    )
    check_text(instruction, where, "instruction")
    check_text(output, where, "output", blank=True)
    check_text(generator, where, "generator")
    dataset = optional_name(row, ("dataset",), where) or ""
    return AlpacaEvalOutput(instruction, output, generator, dataset)
