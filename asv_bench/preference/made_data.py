"""Preference data that a small model makes: ``python made_data.py --data DIR --folder FOLDER ...``.

Both kinds of `cvxnn make` with SmolLM2-135M-Instruct: dialogues of a student and a tutor, and pairs
of sampled replies that a head ranks, which is fitted to short pairs of mrbench first. The commands
of cvxnn write into ``FOLDER`` and continue where they stopped; a line of the ``--out`` file has
what became of the dialogues or of the prompts, and the processor seconds of the command.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from asv_bench.evaluation.judged_comparison import FIELDS, read, texts, write
from asv_bench.raw_results import append

LONGEST = 500  # characters of a pair of the head
N_PAIRS, N_TOKENS = 24, 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the files of the commands")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="as of cvxnn make; SmolLM2-135M-Instruct by default")
    parser.add_argument("--dialogues", type=int, default=6, help="that are begun; 0: none")
    parser.add_argument("--prompts", type=int, default=6, help="of five replies each; 0: none")
    parser.add_argument("--tokens", type=int, default=48, help="of a message, or of a reply")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = [] if options.model is None else ["--model", options.model]
    longest = ["--max-new-tokens", str(options.tokens)]
    if options.dialogues:
        command = ["make", "dialogues", "--number", str(options.dialogues), *longest]
        found = run(options.folder, [*command, "--output", "dialogues.jsonl", *model])
        append(options.out, {"made": "dialogues", "begun": options.dialogues, **found})
    if options.prompts:
        write_data(options)
        command = ["extract", "pairs.jsonl", "--layer", "16", "--max-length", str(N_TOKENS)]
        run(options.folder, [*command, "--output", "features", *model])
        run(options.folder, ["fit", "features", "--output", "head.safetensors"])
        command = ["make", "pairs", "--prompts", "prompts.jsonl", "--head", "head.safetensors"]
        found = run(options.folder, [*command, *longest, "--output", "made.jsonl", *model])
        append(options.out, {"made": "pairs", "prompts": options.prompts, **found})


def write_data(options: argparse.Namespace) -> None:
    """Write the pairs of the head, and prompts of other conversations."""
    parts = []
    for part in ("train", "test"):
        rows = read(options.data / f"mrbench_pairs_{part}.jsonl.gz")
        parts.append([row for row in rows if sum(map(len, texts(row))) < LONGEST])
    pairs = [{name: row[name] for name in FIELDS} for row in parts[0][::10][:N_PAIRS]]
    write(options.folder / "pairs.jsonl", pairs)
    prompts = list({json.dumps(row["prompt"]): row["prompt"] for row in parts[1]}.values())
    write(
        options.folder / "prompts.jsonl",
        [{"prompt": prompt} for prompt in prompts[: options.prompts]],
    )


def run(folder: Path, command: list[str]) -> dict[str, Any]:
    """Run a command of cvxnn in the folder; give what it says with --json, and its time."""
    call = [sys.executable, "-m", "cvxnn", *command, "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = json.loads(subprocess.check_output(call, cwd=folder, text=True))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(getattr(after, k) - getattr(before, k) for k in ("ru_utime", "ru_stime"))
    return {**found, "cpu_seconds": round(spent, 1)}


if __name__ == "__main__":
    main()
