"""`ConvexReLUClassifier()` as it comes, on all cores of the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import planted
import record


def fit(small: bool) -> dict[str, Any]:
    from cvxnn import ConvexReLUClassifier

    n, d = (500, 10) if small else (50_000, 100)
    rng = np.random.default_rng(0)
    X = planted.rows(2 * n, d, rng)
    y = planted.teach(X, rng) + 0.3 * rng.standard_normal(2 * n) > 0
    model = ConvexReLUClassifier(random_state=0)
    row = {"shape": [n, d], **record.profiled(lambda: model.fit(X[:n], y[:n]))}
    return {**row, "test_accuracy": model.score(X[n:], y[n:]), "gap": model.gap_}


MEASUREMENTS: dict[str, record.Measurement] = {"fit": (fit, 35), "fit again": (fit, 35)}

if __name__ == "__main__":
    record.run("default", MEASUREMENTS, "jax")
