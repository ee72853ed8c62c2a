"""Several seeds of one comparison: means, their spread, and paired tests over held-out pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from cvxnn.comparison.measures import correct, mean_and_error
from cvxnn.comparison.results import Comparison
from cvxnn.comparison.texts import difference_text, name_of


def summarise_seeds(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return what several seeds of one comparison say of each method.

    Parameters
    ----------
    comparisons : sequence of Comparison
        Comparisons of equal methods on equal pairs, one for each seed.

    Returns
    -------
    list of dict
        For each method: ``accuracies`` by seed, their ``mean`` and ``spread`` (standard deviation
        over seeds; None for one seed). For all but the first one also ``difference``: how much more
        the first method ranks correctly, averaged over seeds pair by pair; its
        ``standard_error`` over groups of pairs; and ``p``, the two-sided p-value of a t-test of
        these groups (None where the error is not known, or 0).

    Raises
    ------
    ValueError
        If methods or held-out pairs differ.
    """
    first = comparisons[0]
    for other in comparisons[1:]:
        if other.methods != first.methods or list(other.groups) != list(first.groups):
            raise ValueError(
                f"methods {other.methods} on {len(other.groups)} pairs, and {first.methods} on "
                f"{len(first.groups)}; expected the same methods and pairs for each seed"
            )
    rows: list[dict[str, Any]] = []
    hits: list[Any] = []
    for i, method in enumerate(first.methods):
        results = [comparison.results[i] for comparison in comparisons]
        accuracies = [result.accuracy for result in results]
        hits.append(np.mean([correct(result.margins) for result in results], axis=0))
        row: dict[str, Any] = {
            "method": method,
            "accuracies": accuracies,
            "mean": float(np.mean(accuracies)),
            "spread": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        }
        if i > 0:
            value, error = mean_and_error(hits[0] - hits[i], first.groups)
            freedom = len(set(first.groups)) - 1
            known = bool(error > 0)
            row["difference"] = value
            row["standard_error"] = error if known else None
            row["p"] = float(2 * stats.t.sf(abs(value) / error, freedom)) if known else None
        rows.append(row)
    return rows


def seeds_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows of `summarise_seeds` as a table in plain text.

    Parameters
    ----------
    rows : sequence of dict
        As `summarise_seeds` returns them.

    Returns
    -------
    str
        A line for each method.
    """
    lines = []
    for row in rows:
        spread = "" if row["spread"] is None else f" ± {row['spread']:.3f}"
        by_seed = ", ".join(f"{value:.3f}" for value in row["accuracies"])
        line = f"{name_of(row['method']):<12} {row['mean']:.3f}{spread} ({by_seed})"
        if "difference" in row:
            gain = difference_text(row["difference"], row["standard_error"])
            p = "" if row["p"] is None else f", p = {row['p']:.2g}"
            line += f"; {name_of(rows[0]['method'])} has {gain}{p}"
        lines.append(line)
    return "\n".join(lines)
