"""Peak memory of a fit: ``python asv_bench/tables/memory.py --help``.

Rows are those of ``growth.py``, in float32. Each fit has a process of its own, with one thread,
where a fit of 200 rows came before, which imports and compiles (other shapes). The peak is what the
system counts (``VmHWM``), less what the process held before the fit, the data among it. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import time
import warnings
from pathlib import Path
from typing import Any

from asv_bench.raw_results import Record, append, read

FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "relu": {"formulation": "relu"},
    "neuron": {"penalty": "neuron", "n_patterns": 64},
}
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 20000])
    parser.add_argument("--features", type=int, nargs="+", default=[100, 784])
    parser.add_argument("--out", type=Path, default=Path("memory.jsonl"), help="resumed if there")
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    done = {(r["form"], r["n"], r["d"]) for r in read(arguments.out)}
    for form in arguments.forms:
        for d in arguments.features:
            for n in arguments.rows:
                if (form, n, d) not in done:
                    with mp.get_context("spawn").Pool(1) as pool:
                        append(arguments.out, pool.apply(measure, (form, n, d)))


def measure(form: str, n: int, d: int) -> Record:
    """Fit once and compare the peak with the sizes of data and masks."""
    from asv_bench.tables.growth import draw
    from cvxnn import ConvexReLUClassifier, convex

    warnings.simplefilter("ignore")
    X, y, *_ = draw(n, d)
    few, labels, *_ = draw(200, d)
    compiled = {"relu": convex.Cronos(max_iter=10), "neuron": convex.ProximalGradient(max_iter=10)}
    first = FORMS[form] | ({"solver": compiled[form]} if form in compiled else {})
    ConvexReLUClassifier(**first, random_state=0).fit(few, labels)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here on
    before, began = _kib("VmRSS"), time.process_time()
    model = ConvexReLUClassifier(**FORMS[form], random_state=0).fit(X, y)
    peak = (_kib("VmHWM") - before) / 1024
    data, masks = X.nbytes / MIB, n * model.n_patterns_ / MIB
    return {
        "form": form,
        "n": n,
        "d": d,
        "n_patterns": model.n_patterns_,
        "cpu_s": time.process_time() - began,
        "data_mib": data,
        "masks_mib": masks,
        "peak_mib": peak,
        "times_data_beyond_masks": (peak - masks) / data,
        "n_iter": model.n_iter_,
        "gap": model.gap_,
    }


def _kib(name: str) -> int:
    """Return a number of kilobytes from the status of this process."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name)))


if __name__ == "__main__":
    main()
