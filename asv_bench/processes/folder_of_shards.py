"""A preference head fitted to a folder of shards that nobody has merged: seconds and memory.

``python asv_bench/processes/folder_of_shards.py --cache DIR`` fills DIR with planted pairs of 4,096
numbers once, as ``cvxnn extract --shard`` would, and fits a head of 64 gates to them to a gap of
1e-2, in a process of its own. It appends to ``folder_of_shards.jsonl`` beside it. ``--make`` only
fills the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from asv_bench import raw_results
from asv_bench.processes.larger_than_memory import FACTORS, WIDTH, high_water
from cvxnn._progress import Progress
from cvxnn.features import Description, FeatureWriter, Shard, extract_shard, read_pair_features
from cvxnn.features.blocks import missing_blocks
from cvxnn.preference import PreferenceTriplet

RESULTS = Path(__file__).with_suffix(".jsonl")
N_HELD_OUT = 1024
DESCRIPTION = Description(
    model="planted", fingerprint="1", fingerprint_float16="2", fingerprint_bfloat16="3",
    dtype="float32", layer=1, pooling="mean", max_length=16, context=0, date="2026-11-27",
    width=WIDTH,
)  # fmt: skip


class PlantedEmbedder:
    """Correlated rows, of which a planted network with noise prefers the first of each pair."""

    description = DESCRIPTION

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.loadings = rng.standard_normal((FACTORS, WIDTH), np.float32)
        self.loadings /= np.float32(FACTORS**0.5)
        self.teacher = rng.standard_normal((WIDTH, 8), np.float32) * np.float32(WIDTH**-0.5)

    def embed_to_file(
        self,
        path: str | os.PathLike[str],
        prompts: list[str],
        responses: list[str],
        *,
        common_cut: bool = False,
        rows: range | None = None,
    ) -> int:
        part = slice(None) if rows is None else slice(rows.start, rows.stop)
        with (
            FeatureWriter(path, self.description) as file,
            Progress("planting", None, "replies", show=False) as bar,
        ):
            for block in missing_blocks(file, prompts[part], responses[part], bar):
                first = int(block.responses[0].split()[0])
                file.append(self.planted(first, len(block.responses)), block.identity)
            file.finish()
        return file.n_rows

    def planted(self, first: int, n_rows: int) -> np.ndarray:
        rng = np.random.default_rng([1, first])
        X = rng.standard_normal((n_rows, FACTORS), np.float32) @ self.loadings
        X += rng.standard_normal((n_rows, WIDTH), np.float32)
        reward = 3 * np.maximum(X @ self.teacher, 0) @ np.array([1, -1] * 4, np.float32)
        swap = reward[0::2] - reward[1::2] + rng.logistic(size=n_rows // 2) < 0
        X = X.reshape(-1, 2, WIDTH)
        X[swap] = X[swap][:, ::-1]
        return X.reshape(n_rows, WIDTH)


def make(folder: Path, n_pairs: int, n_shards: int) -> None:
    numbers = range(n_pairs + N_HELD_OUT)
    pairs = [PreferenceTriplet(f"prompt {i}", f"{i} won", f"{i} lost") for i in numbers]
    embedder = PlantedEmbedder()
    for number in range(1, n_shards + 1):
        extract_shard(embedder, pairs, folder, Shard(number, n_shards))


def fit(folder: Path, n_patterns: int) -> dict:
    import cvxnn

    began = time.perf_counter()
    features = read_pair_features(folder)  # compares all checksums and texts
    reading = time.perf_counter() - began
    train = features.take(range(len(features) - N_HELD_OUT))
    test = features.take(range(len(train), len(features)))
    head = cvxnn.COALAPreferenceHead(n_patterns=n_patterns, tol=1e-2, random_state=0)
    began, own = time.perf_counter(), time.process_time()
    head.fit_pairs(train.chosen, train.rejected)
    wall, cpu = time.perf_counter() - began, time.process_time() - own
    return {
        "shape": [2 * len(train), WIDTH],
        "shards": len(list(folder.glob("features.npy.*-of-*.json"))),
        "stored_rows": type(train.chosen).__name__ == "StoredRows",
        "n_patterns": n_patterns,
        "seconds_to_verify": round(reading, 1),
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "phase1_seconds": round(float(head.history_["time"][-1]), 1),
        "phase2_seconds": round(float(head.phase2_history_["time"][-1]), 2),
        "most_gib": round(high_water(), 3),
        "gap": head.gap_,
        "phase2_gap": head.phase2_gap_,
        "n_iter": head.n_iter_,
        "objective": head.objective_,
        "flops": head.flops_,
        "accuracy": float((head.reward_margin(test.chosen[:], test.rejected[:]) > 0).mean()),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_before": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=65_536)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--patterns", type=int, default=64)
    parser.add_argument("--make", action="store_true", help="only fill the folder")
    parser.add_argument("--fit", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        found = fit(options.cache, options.patterns)
        raw_results.append(RESULTS, found)
        print(json.dumps(found), flush=True)
        return
    make(options.cache, options.pairs, options.shards)
    if not options.make:
        subprocess.run([sys.executable, *sys.argv, "--fit"], check=True)


if __name__ == "__main__":
    main()
