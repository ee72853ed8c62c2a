"""Two first days with cvxnn, as README and guide tell them, in fresh folders: commands and seconds.

    python asv_bench/processes/journeys.py JOURNEY --data DIR --folder FOLDER --out journeys.jsonl

``DIR`` has ``hh_rlhf_train.jsonl.gz``, ``hh_rlhf_test.jsonl.gz`` and ``sft.jsonl.gz``. The journey
"pairs" goes from a file of pairs to a head that serves, and from there to policies of preferences
and demonstrations, to judges and to a sheet for people; "tables" goes through the recipes for
tables. Each begins in a new folder and is run whole. Each step is a process of its own with one
thread, on sizes that are as small as they can be. A step that fails is a record, and ends the run.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from asv_bench.raw_results import append

ROOT = Path(__file__).parents[2]
N_PAIRS, N_OTHERS, PORT = 40, 8, 8123
CACHED = "--model-cache models"
SMALL = f"--layer 16 --max-length 160 {CACHED}"
TUNED = f"{SMALL} --limit 12 --steps 1 --accumulation 2"
WRITTEN = f"--plain --best-of 2 --max-new-tokens 24 {CACHED} --output replies.jsonl"
PAIRS = {
    "plan": f"extract pairs.jsonl --output features {SMALL} --plan-only",
    "extract, converting the model": f"extract pairs.jsonl --output features {SMALL}",
    "extract, with nothing to do": f"extract pairs.jsonl --output features {SMALL}",
    "fit": "fit features --output head.safetensors",
    "score other pairs": f"score head.safetensors other_pairs.jsonl {CACHED}",
    "compare heads": "compare features --methods coala,linear --output heads",
    "compare with a step of DPO, 12 pairs": f"compare pairs.jsonl --methods coala,dpo {TUNED}",
    "report": "report comparison",
    "generate, three ways, 24 tokens": f"generate head.safetensors --prompt Why? {WRITTEN}",
    "evaluate by another head": f"evaluate replies.jsonl --judge heads/linear.safetensors {CACHED}",
    "best": f"best head.safetensors replies.jsonl --output best.jsonl {CACHED}",
    "serve, one request, Ctrl-C": f"serve head.safetensors --port {PORT} {CACHED}",
    "push, the card alone": "push head.safetensors you/head --card-only card.md",
}
JOINED = f"--lam 0.5 --strategy exact,alright --n-steps 500 --candidates 3 --limit 24 {CACHED}"
JOINT = {
    "joint": f"joint features sft.jsonl {JOINED} --output joint --report joint.html",
    "generate with a policy, 16 tokens": "generate joint/exact-0.5.safetensors --prompts "
    f"prompts.txt --plain --max-new-tokens 16 --output written.jsonl {CACHED}",
    "judge its file by the head": "evaluate written.jsonl --judge "
    f"head.safetensors --output by_head.json {CACHED}",
    "judge its file by words": "evaluate written.jsonl --judge words:pairs.jsonl --output w.json",
    "make a sheet of its file": "study written.jsonl --output study",
    "count the answers": "study --output study --answers answers.csv",
    "score with a policy": f"score joint/exact-0.5.safetensors other_pairs.jsonl {CACHED}",
}
TEN_LINES = ("alternating_population(load_tutoring())", 'read_preferences("pairs.jsonl")')
"""What the README's example reads, and what its comment says to read instead."""
TABLES = {
    "README, the first example": ("README.md", "For three people"),
    "the page on tables, all recipes": ("docs/user_guide/tables.md", "## Without Python"),
    "saving, ONNX of a pipeline": ("docs/user_guide/persistence.md", "## torch"),
}
"""Page, and the text at which its code ends."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("journey", choices=("pairs", "tables"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="a new one")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    if options.journey == "tables":
        for name, (page, end) in TABLES.items():
            take(options, name, [sys.executable, "-c", code_of(page, end)], {"page": page})
        return
    write_data(options)
    for name, words in {**PAIRS, **JOINT}.items():
        if "--answers" in words:
            answer(options.folder)
        take(options, name, [sys.executable, "-m", "cvxnn", *words.split()], {"cvxnn": words})
    text = code_of("README.md", "## How it works").partition("from cvxnn import COALA")
    code = "".join(text[1:])
    assert TEN_LINES[0] in code
    name = "README, preferences in ten lines, on these pairs"
    take(options, name, [sys.executable, "-c", code.replace(*TEN_LINES)], {"page": "README.md"})


def write_data(options: argparse.Namespace) -> None:
    """Write the files that a user has."""
    for name, n, part in (("pairs", N_PAIRS, "train"), ("other_pairs", N_OTHERS, "test")):
        with gzip.open(options.data / f"hh_rlhf_{part}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line, _ in zip(file, range(n), strict=False)]
        lines = [json.dumps({k: row[k] for k in ("prompt", "chosen", "rejected")}) for row in rows]
        (options.folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    with gzip.open(options.data / "sft.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [line for line, _ in zip(file, range(24), strict=False)]
    (options.folder / "sft.jsonl").write_text("".join(lines), "utf-8")
    (options.folder / "prompts.txt").write_text("Why?\nHow do plants eat?\n", "utf-8")


def take(options: argparse.Namespace, name: str, command: list[str], ran: dict[str, str]) -> None:
    """Run a step, write its record, and end if it failed."""
    record = measure(command, options.folder)
    append(options.out, {"journey": options.journey, "step": name, **ran, **record})
    if record["exit_code"] != 0:
        sys.exit("\n".join([f"{name} failed", *record["last_lines"]]))


def code_of(page: str, end: str) -> str:
    """Return the code of a page that can run anywhere, as far as a text."""
    text = (ROOT / page).read_text("utf-8").partition(end)[0]
    return "\n".join(re.findall(r"(?<!-->\n)```python\n(.*?)```", text, re.DOTALL))


def measure(command: list[str], folder: Path) -> dict[str, Any]:
    """Run a process, and return what it took and said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    began, load = time.monotonic(), os.getloadavg()[0]
    with (folder / "said.txt").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        if "serve" in command:
            ask(folder / "said.txt")
            process.send_signal(signal.SIGINT)
        _, status, used = os.wait4(process.pid, 0)
        said.seek(0)
        lines = said.read().splitlines()
    code = os.waitstatus_to_exitcode(status)
    print(
        f"{used.ru_utime + used.ru_stime:6.1f} s  {code}  {' '.join(command[3:])[:90]}", flush=True
    )
    return {
        "exit_code": code,
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "wall_s": round(time.monotonic() - began, 1),
        "load": round(load, 1),
        "peak_bytes": used.ru_maxrss * 1024,
        "warnings": [line for line in lines if re.match(r"warning:|.*Warning:", line)],
        "last_lines": [] if code == 0 else lines[-8:],
    }


def answer(folder: Path) -> None:
    """Fill the table of a study as a spreadsheet does: the first reply is always better."""
    with (folder / "study" / "sheet.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {"participant": "P1", "consent": "yes", "choice": "A"}
    with (folder / "answers.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def ask(said: Path) -> None:
    """Wait until the server says that it serves, and ask for two rewards."""
    while "serving" not in said.read_text("utf-8"):
        time.sleep(0.2)
    body = json.dumps({"prompt": "Why?", "responses": ["Because.", "No."]}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/rank", body) as answer:
        assert sorted(json.load(answer)["order"]) == [0, 1]


if __name__ == "__main__":
    main()
