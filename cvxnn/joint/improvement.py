"""Comparison of runs by percentages of a baseline."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cvxnn.joint.candidates import as_vector


def percentage_increase(value: float, baseline: float) -> float:
    """Increase in per cent, of a runtime or of memory (Appendix B.5)."""
    if not baseline > 0:
        raise ValueError(f"baseline={baseline!r}; expected a number above 0.")
    return 100 * (value - baseline) / baseline


def delta_m(
    scores: Mapping[str, float],
    baseline: Mapping[str, float],
    lower_is_better: frozenset[str] | set[str] = frozenset(),
) -> float:
    r""":math:`\Delta m \%`, equation (52): mean improvement over a baseline in per cent.

    Parameters
    ----------
    scores, baseline : mapping of str to float
        The same metrics of both; those of the baseline not 0.
    lower_is_better : set of str
        Metrics of which less is better.
    """
    if not scores or scores.keys() != baseline.keys() or not lower_is_better <= scores.keys():
        raise ValueError(
            f"scores has {sorted(scores)}, baseline {sorted(baseline)} and lower_is_better "
            f"{sorted(lower_is_better)}; expected the same metrics."
        )
    if any(value == 0 for value in baseline.values()):
        raise ValueError("a metric of the baseline is 0; leave it out: nothing is relative to it.")
    signs = {name: -1.0 if name in lower_is_better else 1.0 for name in scores}
    names = list(scores)
    old = as_vector("baseline", [baseline[name] for name in names], len(names))
    new = as_vector("scores", [scores[name] for name in names], len(names))
    return float(100 * np.mean([signs[name] for name in names] * (new - old) / old))
