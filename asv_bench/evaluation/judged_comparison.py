"""A comparison whose models answer prompts and are judged, with and without fine-tuning first.

    python asv_bench/evaluation/judged_comparison.py --data DIR --folder FOLDER --out FILE

``DIR`` has ``mrbench_pairs_{train,test}.jsonl.gz``. Training and held-out pairs are 72 short ones
each (at most 700 characters with the prompt), the judge is a model of words, fitted to 600 pairs of
other conversations. The commands of cvxnn write into ``FOLDER`` and continue where they stopped;
SFT and DPO take about 5 minutes of processor time each, and less of fewer and shorter pairs
(``--pairs 24 --longest 300 --prompts 0``). Texts of the data set are in ``FOLDER`` only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from asv_bench.raw_results import append

N_JUDGED = 600
FIELDS = ("prompt", "chosen", "rejected", "conversation_id")
TRAINING = "--max-length 384 --epochs 2 --learning-rate 5e-4 --micro-batch 4 --accumulation 2"
ARMS = {
    "given model": ["coala,linear,sft,dpo"],
    "fine-tuned first": ["coala,linear,dpo", "--sft-first"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the files of the commands")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="as of cvxnn compare; SmolLM2-135M-Instruct by default")
    parser.add_argument("--arms", default=",".join(ARMS), help="what models methods start from")
    parser.add_argument("--pairs", type=int, default=72, help="training pairs, and held-out ones")
    parser.add_argument("--longest", type=int, default=700, help="characters of a pair")
    parser.add_argument("--prompts", type=int, default=12, help="answered and judged; 0: none")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    write_data(options)
    model = [] if options.model is None else ["--model", options.model]
    for arm in options.arms.split(","):
        methods, *extra = ARMS[arm]
        output = "mr_sft" if extra else "mr_raw"
        command = ["compare", "mr_train.jsonl", "--test", "mr_test.jsonl", "--methods", methods]
        command += [*extra, "--output", output, *TRAINING.split(), "--evaluate-every", "9"]
        found = run(options.folder, [*command, *model])
        longer = found["baselines"]["longer reply wins"]["accuracy"]
        for result in found["results"]:
            append(
                options.out, {"run": "compare", "start": arm, **of_method(result, found, longer)}
            )
    if "given model" not in options.arms or not options.prompts:
        return
    command = ["evaluate", "--comparison", "mr_raw", "--prompts", "mr_prompts.jsonl"]
    command += ["--max-new-tokens", "32", "--judge", "words:mr_others.jsonl"]
    command += ["--report", "mr_eval.html", "--output", "mr_eval.json"]
    found = run(options.folder, [*command, *model])
    answers = (options.folder / "mr_raw" / "answers.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line)["replies"] for line in answers]
    for name in rows[0]:
        judged = {"system": name, "judge": found["judge"], **found["systems"].get(name, {})}
        append(options.out, {"run": "evaluate", **judged, **means(rows, name)})


def write_data(options: argparse.Namespace) -> None:
    """Write the pairs, those of the judge, and the prompts, always the same ones."""
    data, folder = options.data, options.folder
    used = set()
    for part in ("train", "test"):
        rows = read(data / f"mrbench_pairs_{part}.jsonl.gz")
        random.Random(0).shuffle(rows)
        short = [row for row in rows if sum(map(len, texts(row))) < options.longest]
        short = short[: options.pairs]
        used |= {row["conversation_id"] for row in short}
        write(folder / f"mr_{part}.jsonl", [{name: row[name] for name in FIELDS} for row in short])
    prompts = list({json.dumps(row["prompt"]): row["prompt"] for row in short}.values())
    asked = [{"prompt": prompt} for prompt in prompts[: options.prompts]]
    write(folder / "mr_prompts.jsonl", asked)
    rows = read(data / "mrbench_pairs_train.jsonl.gz")
    random.Random(1).shuffle(rows)
    others = [row for row in rows if row["conversation_id"] not in used][:N_JUDGED]
    write(folder / "mr_others.jsonl", [{name: row[name] for name in FIELDS} for row in others])


def texts(row: dict[str, Any]) -> tuple[str, str, str]:
    prompt = row["prompt"]
    if not isinstance(prompt, str):
        prompt = " ".join(message["content"] for message in prompt)
    return prompt, row["chosen"], row["rejected"]


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def run(folder: Path, command: list[str]) -> dict[str, Any]:
    """Run a command of cvxnn in the folder; give what it says with --json."""
    call = [sys.executable, "-m", "cvxnn", *command, "--json"]
    found: dict[str, Any] = json.loads(subprocess.check_output(call, cwd=folder, text=True))
    return found


def of_method(result: dict[str, Any], found: dict[str, Any], longer: float) -> dict[str, Any]:
    return {
        "method": result["method"],
        **{name: result[name] for name in ("accuracy", "interval", "train_accuracy")},
        "margin": result["metrics"]["rewards/margins"],
        "longer_reply_wins": longer,
        "held_out_groups": found["data"]["held_out_groups"],
        "n_train": found["data"]["training_pairs"],
        "n_test": found["data"]["held_out_pairs"],
        "flops": result["flops"],
        "seconds": result["seconds"],
    }


def means(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Means of what is measured on each reply."""
    fields = ("reward", "n_tokens", "log_probability", "repetition")
    values = {field: [row[name][field] for row in rows] for field in fields}
    known = {field: [v for v in found if v is not None] for field, found in values.items()}
    return {f"mean_{field}": sum(found) / len(found) for field, found in known.items() if found}


if __name__ == "__main__":
    main()
