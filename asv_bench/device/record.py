"""Take measurements under a limit and write each, at once, as a line of JSON."""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import os
import pstats
import re
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asv_bench.raw_results import append

Library = Literal["jax", "torch"]
# A function of `small` that returns the columns of its row, and its limit in seconds.
Measurement = tuple[Callable[[bool], dict[str, Any]], int]

GIB = 2**30
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["jax", "numpy", "scipy", "scikit-learn", "torch", "transformers", "peft", "accelerate"]


def run(part: str, measurements: Mapping[str, Measurement], library: Library) -> None:
    """Take those measurements of a part that the output folder does not have yet."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "device")
    parser.add_argument("--small", action="store_true", help="try everything on tiny shapes")
    parser.add_argument("--until", type=float, default=math.inf, help="end, seconds since 1970")
    parser.add_argument("--only", metavar="REGEX", default="", help="measurements by name")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(r["part"], r["name"], r["small"]) for r in rows if "error" not in r}
    signal.signal(signal.SIGALRM, _stop)
    for name, (function, limit) in measurements.items():
        if not re.fullmatch(options.only or ".*", name):
            continue
        left = options.until - time.time() - 2
        if (part, name, options.small) in done or left < 2:
            continue
        reset_peak(library)
        began = time.perf_counter()
        try:
            signal.alarm(int(min(limit, left)))
            row = function(options.small)
        except Exception as error:  # it belongs into the row; the others go on
            where_it_was = traceback.format_exc().replace(f"{ROOT}/", "")[-1500:]
            row = {"error": repr(error)[:500], "where": where_it_was}
        finally:
            signal.alarm(0)
        whole = time.perf_counter() - began
        about = {"part": part, "name": name, "small": options.small, "seconds_whole": whole}
        about |= {"peak_gib": peak_gib(library), **where(library)}
        row = plain(beside(row, about))
        append(file, row)
        print({k: v for k, v in row.items() if not isinstance(v, list | dict)}, flush=True)


def _stop(*_: Any) -> None:
    raise TimeoutError("the limit of this measurement is over")


def beside(row: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Columns about a measurement, then its own; one that has a name of those is kept as well."""
    return {**about, **{f"measured {k}" if k in about else k: v for k, v in row.items()}}


def where(library: Library) -> dict[str, Any]:
    """Device, machine and versions."""
    if library == "jax":
        import jax

        device = jax.devices()[0].device_kind
    else:
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    cores = len(os.sched_getaffinity(0))
    machine = f"{device}, {cores} cores"
    return {"device": device, "cores": cores, "machine": machine, "versions": versions}


def reset_peak(library: Library) -> None:
    """Begin a new peak, where the library can."""
    if library == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def peak_gib(library: Library) -> float | None:
    """Peak of device memory: with JAX since the process began, with torch since the reset."""
    if library == "jax":
        import jax

        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        return None if peak is None else peak / GIB
    import torch

    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None


def typical_seconds(function: Callable[[], Any], n_calls: int = 10) -> float:
    """Median over five batches of asynchronous JAX calls, after a warm-up."""
    import jax

    jax.block_until_ready(function())
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready([function() for _ in range(n_calls)])
        seconds.append((time.perf_counter() - began) / n_calls)
    return statistics.median(seconds)


def profiled(function: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of a call and where they went, also if its time runs out."""
    profile, status = cProfile.Profile(), "done"
    began = time.perf_counter()
    try:
        profile.runcall(function)
    except TimeoutError:
        status = "time ran out"
    seconds = time.perf_counter() - began
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    ours = {_name(key): row[3] for key, row in stats.items() if "cvxnn/" in key[0]}
    own = {_name(key): row[2] for key, row in stats.items()}
    return {
        "status": status,
        "seconds": seconds,
        "cumulative": dict(sorted(ours.items(), key=lambda item: -item[1])[:25]),
        "own": dict(sorted(own.items(), key=lambda item: -item[1])[:15]),
    }


def _name(key: tuple[str, int, str]) -> str:
    file, line, function = key
    return f"{'/'.join(Path(file).parts[-2:])}:{line} {function}"


def plain(value: Any) -> Any:
    """Plain data for JSON: five digits, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.integer | np.bool_) else value
