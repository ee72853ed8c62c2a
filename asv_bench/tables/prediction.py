"""Time of predictions: ``python asv_bench/tables/prediction.py --help``.

Networks fitted to rows of ``growth.py``, of the default form and of the ReLU formulation, in
float32 and with one thread. One row: the median of many calls in a warm process, and the mean of
its processor time. Many rows: processor seconds beside those of the bare matrix products that the
outputs need, by blocks of rows: the rows with the gates, and the open gates with their linear
models; or the rows with the neurons.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asv_bench.raw_results import Record, append

BLOCK = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-rows", type=int, default=7000)
    parser.add_argument("--features", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("prediction.jsonl"))
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    import numpy as np

    from asv_bench.tables.growth import draw
    from cvxnn import ConvexReLUClassifier

    X, y, X_test, y_test = draw(arguments.train_rows, arguments.features)
    rng = np.random.default_rng(1)
    many = rng.standard_normal((arguments.rows, arguments.features), np.float32)
    for form, options in {"default": {}, "relu": {"formulation": "relu"}}.items():
        model = ConvexReLUClassifier(**options, random_state=0).fit(X, y)
        scored = {"accuracy": model.score(X_test, y_test)}
        append(arguments.out, {"form": form, **scored, **measure(model, many, arguments.calls)})


def measure(model: Any, many: Any, calls: int) -> Record:
    """Time predictions of one row and of many, and the products of many."""
    import numpy as np

    network, row, d = model.network_, many[:1], many.shape[1]
    if network.gate_bias is None:
        layers = [np.ascontiguousarray(network.hidden_weights.T)]
    else:
        gates = np.ascontiguousarray(network.gate_weights.reshape(-1, d).T)
        layers = [gates, np.ones((len(network.gate_bias), d + 1), np.float32)]
    record: Record = {
        "d": d,
        "n_neurons": network.n_neurons,
        "predict_us": _median_us(lambda: model.predict(row), calls),
        "predict_cpu_us": _seconds(lambda: [model.predict(row) for _ in range(calls)])
        / calls
        * 1e6,
        "forward_us": _median_us(lambda: network.forward(row), calls),
        "n": len(many),
        "n_gates": layers[0].shape[1],
    }
    for k in range(2):  # alternately, twice: the machine does other work
        record[f"products_s_{k}"] = _seconds(lambda: _products(many, layers))
        record[f"forward_s_{k}"] = _seconds(lambda: network.forward(many))
        record[f"predict_s_{k}"] = _seconds(lambda: model.predict(many))
    for name in ("forward", "predict"):
        times = [record[f"{name}_s_{k}"] / record[f"products_s_{k}"] for k in range(2)]
        record[f"{name}_by_products"] = min(times)
    return record


def _products(X: Any, layers: list[Any]) -> None:
    """Multiply rows with a layer; of two, numbers of the first's shape with the second."""
    for first in range(0, len(X), BLOCK):
        block = X[first : first + BLOCK] @ layers[0]
        if len(layers) == 2:
            block @ layers[1]


def _seconds(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def _median_us(call: Callable[[], Any], n: int) -> float:
    times = []
    for _ in range(n):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return sorted(times)[n // 2] * 1e6


if __name__ == "__main__":
    main()
