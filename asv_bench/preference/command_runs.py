"""What commands take, and what their plans said: processor seconds, memory and disk.

    python asv_bench/preference/command_runs.py --data DIR --folder FOLDER --out command_runs.jsonl

``DIR`` has ``hh_rlhf_train.jsonl.gz`` and ``sft.jsonl.gz``. Each command runs in a process of its
own with one thread; those named "threads" take one, two, or as many as the command chooses. Runs
whose names are in the file are skipped: remove their lines to measure them again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from asv_bench.raw_results import append, read

PAIRS = ["--limit", "48", "--max-length", "128"]
KEPT = ("status", "fits", "tokens", "seconds", "loading_seconds", "disk", "rows", "pairs", "layers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the files of the commands")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", help="names of runs, with commas between them; all by default")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    done = {record["run"] for record in read(options.out)}
    for name, arguments in commands(options.data, options.folder).items():
        if name not in done and (options.runs is None or name in options.runs.split(",")):
            append(options.out, {"run": name, **measure(name, arguments, options)})


def commands(data: Path, folder: Path) -> dict[str, list[Any]]:
    pairs, sft = data / "hh_rlhf_train.jsonl.gz", data / "sft.jsonl.gz"
    model = ["--model-cache", folder / "models"]
    prompts = folder / "prompts.txt"
    prompts.write_text("What is the capital of France?\nHow do I boil an egg?\n", "utf-8")
    extract = ["extract", pairs, *PAIRS, *model, "--layer"]
    layers = [*extract, "10,16,20", "--output", folder / "layers"]
    fit = ["fit", folder / "layers", "--output", folder / "head.safetensors"]
    compare = ["compare", folder / "layers", *model, "--methods", "coala,linear"]
    compare += ["--output", folder / "compared"]
    generate = ["generate", folder / "head.safetensors", "--prompts", prompts, "--plain", *model]
    generate += ["--max-new-tokens", "24", "--output", folder / "replies.jsonl"]
    joint = ["joint", folder / "layers", sft, "--limit", "48", "--candidates", "4", *model]
    joint += ["--lam", "0.25,0.5,0.75", "--strategy", "exact,sequential,alright"]
    joint += ["--output", folder / "joint"]
    few = [*extract[:2], "--limit", "8", "--max-length", "128", *model, "--layer", "10"]
    threads = {
        f"threads {which} run {k}": [*few, "--output", folder / f"threads-{which}-{k}"]
        for k in (1, 2)
        for which in ("1", "2", "chosen")
    }
    small = ["--plan-only", "--memory", "0.5"]
    return {
        "extract plan": [*extract, "20", "--output", folder / "one", "--plan-only"],
        "extract one layer and convert the model": [*extract, "20", "--output", folder / "one"],
        "extract with nothing to do": [*extract, "20", "--output", folder / "one"],
        "extract three layers": layers,
        "fit auto": fit,
        "compare": compare,
        "compare with nothing to do": compare,
        "generate plan": [*generate, "--plan-only"],
        "generate": generate,
        "joint": joint,
        **threads,
        "extract plan that does not fit": [*layers[:-2], *small],
        "generate plan that does not fit": [*generate, *small],
        "compare plan that does not fit": [*compare, "--methods", "dpo", *small],
    }


def measure(name: str, arguments: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """Run a command, and return what it took and said."""
    texts = [*map(str, arguments), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if name.startswith("threads"):
        which = name.split()[1]
        environment["OMP_NUM_THREADS"] = which
        if which == "chosen":
            del environment["OMP_NUM_THREADS"]
    began, load = time.monotonic(), os.getloadavg()[0]
    process = subprocess.Popen(
        [sys.executable, "-m", "cvxnn", *texts], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    result = json.loads(said)
    if "error" in result:
        sys.exit(f"{name}: {result['error']}")
    places = {str(options.data): "DIR", str(options.folder): "FOLDER"}
    line = " ".join(texts)
    for place, short in places.items():
        line = line.replace(place, short)
    found = {
        "arguments": line,
        "exit_code": os.waitstatus_to_exitcode(status),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "load": round(load, 1),
        "wall_s": round(time.monotonic() - began, 1),
        "peak_bytes": used.ru_maxrss * 1024,
        **{key: result[key] for key in KEPT if key in result and not isinstance(result[key], list)},
    }
    if "memory" in result:
        found["planned_bytes"] = [plan.get("process", plan["total"]) for plan in result["memory"]]
    if "costs" in result:
        found["embedding"] = {key: result["costs"][key] for key in ("seconds", "cpu_seconds")}
    if name == "joint":
        found["policies"] = result["rows"] if "rows" in result else result["policies"]
    if name.startswith("extract") and "plan" not in name:
        folder = Path(arguments[arguments.index("--output") + 1])
        found["disk_bytes"] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return found


if __name__ == "__main__":
    main()
