"""Run many cases of a campaign, again from where it stopped, and keep what came of them.

``python tests/stress/campaign.py {bounds,fits} FIRST LAST`` runs the cases FIRST to LAST - 1 in
blocks, shows those that break a promise, and appends a line for each block to ``bounds.jsonl`` or
``fits.jsonl``. Blocks that are there already, from the present commit, are left out.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from asv_bench.raw_results import commit  # noqa: E402

BLOCK = 40  # as many as share what is compiled in test_bounds.py


def main(name: str, first: int, last: int) -> None:
    """Run the blocks that are missing."""
    jax.config.update("jax_disable_most_optimizations", True)
    # Shapes are few: what is compiled outlasts the blocks, in a folder of this process.
    compiled = tempfile.TemporaryDirectory()
    jax.config.update("jax_compilation_cache_dir", compiled.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    campaign = importlib.import_module(f"test_{name}")
    path = HERE / f"{name}.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for start in range(first, last, BLOCK):
        stop, here = min(start + BLOCK, last), commit()
        place = {"commit": here, "first": start, "last": stop}
        if any(place.items() <= record.items() for record in records):
            continue
        began, found = time.process_time(), Counter[str]()
        broken = []
        for number in range(start, stop):
            outcome = campaign.run(number)
            result = "broken promise" if outcome.broken else outcome.error or "right"
            found[f"{outcome.name}: {result}"] += 1
            if outcome.broken:
                print(*outcome, flush=True)
                broken.append(number)
        seconds = round(time.process_time() - began, 1)
        outcomes = dict(sorted(found.items()))
        record = {**place, "cpu_seconds": seconds, "outcomes": outcomes, "broken": broken}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if start // BLOCK % 5 == 4:  # compiled programs fill the memory
            jax.clear_caches()
            gc.collect()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
