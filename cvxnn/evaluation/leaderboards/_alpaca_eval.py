"""AlpacaEval: outputs of a model, and the judge's annotations."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from cvxnn._files import as_json, write_text
from cvxnn.evaluation import Judgement
from cvxnn.evaluation.leaderboards._checks import PathLike, distinct, one
from cvxnn.preference.rows import (
    Row,
    check_text,
    optional_name,
    optional_number,
    read_rows,
    required,
)


@dataclass(frozen=True)
class AlpacaEvalOutput:
    """One reply, as ``alpaca_eval --model_outputs`` takes it.

    Parameters
    ----------
    instruction, output : str
    generator : str
        Name of the model.
    dataset : str, default=""
        Where the instruction is from, such as ``"helpful_base"``; left out if empty.
    """

    instruction: str
    output: str
    generator: str
    dataset: str = ""


def write_alpaca_eval(path: PathLike, outputs: Iterable[AlpacaEvalOutput]) -> None:
    """Write the outputs of one model as a JSON array.

    Raises
    ------
    ValueError
        If there are none, an instruction comes twice, or they are of several models: AlpacaEval
        compares one model a file.
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
        _alpaca_eval(row, f"output {number}")
        rows.append(row)
    one([row["generator"] for row in rows], "outputs", "generator")
    distinct([row["instruction"] for row in rows], "instruction")
    write_text(path, as_json(rows, indent=2) + "\n")


def read_alpaca_eval(path: PathLike) -> list[AlpacaEvalOutput]:
    """Read outputs that `write_alpaca_eval` or AlpacaEval wrote; other fields are ignored."""
    return [_alpaca_eval(row, where) for where, row in read_rows(path)]


def read_alpaca_eval_annotations(path: PathLike) -> list[Judgement]:
    """Read the ``annotations.json`` of AlpacaEval: its judge's verdicts, ties included.

    AlpacaEval puts the baseline first, and the model that is evaluated second: here that is
    `system_a`. Rows without a verdict (null) are left out.
    """
    judgements = []
    for where, row in read_rows(path):
        fields = ("instruction", "output_1", "output_2", "preference")
        instruction, first, second, value = required(row, fields, where)
        check_text(instruction, where, "instruction")
        check_text(first, where, "output_1", blank=True)
        check_text(second, where, "output_2", blank=True)
        verdict = optional_number(value, where, "preference")
        if verdict is None:
            continue
        if verdict != 0.0 and not 1.0 <= verdict <= 2.0:
            raise ValueError(
                f"{where}: 'preference' is {value}; expected 1 (the first output) to 2 (the "
                "second), or 0 for a tie"
            )
        preference = verdict - 1 if verdict else 0.5
        systems = [optional_name(row, (f"generator_{k}",), where) or "" for k in (2, 1)]
        judgements.append(Judgement(instruction, second, first, preference, None, *systems))
    if not judgements:
        raise ValueError(f"{os.fspath(path)}: every 'preference' is null; was the judge run?")
    return judgements


def _alpaca_eval(row: Row, where: str) -> AlpacaEvalOutput:
    instruction, output, generator = required(row, ("instruction", "output", "generator"), where)
    check_text(instruction, where, "instruction")
    check_text(output, where, "output", blank=True)
    check_text(generator, where, "generator")
    dataset = optional_name(row, ("dataset",), where) or ""
    return AlpacaEvalOutput(instruction, output, generator, dataset)
