"""Improvement of a run over a baseline, in per cent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cvxnn.joint.candidates import as_vector


def percentage_increase(value: float, baseline: float) -> float:
    """Return the increase of a runtime or of memory over a baseline, in per cent (Appendix B.5).

    Parameters
    ----------
    value : float
        Value to compare.
    baseline : float
        Value of the baseline, above 0.

    Returns
    -------
    float
        Increase in per cent.

    Raises
    ------
    ValueError
        If the baseline is not above 0.
    """
    if not baseline > 0:
        raise ValueError(f"baseline={baseline!r}; expected a number above 0.")
    return 100 * (value - baseline) / baseline


def delta_m(
    scores: Mapping[str, float],
    baseline: Mapping[str, float],
    lower_is_better: frozenset[str] | set[str] = frozenset(),
) -> float:
    r"""Return :math:`\Delta m \%` (equation 52), the mean improvement over a baseline in per cent.

    Parameters
    ----------
    scores, baseline : mapping of str to float
        Values of the same metrics; those of the baseline are not 0.
    lower_is_better : set of str, default=frozenset()
        Names of the metrics of which lower values are better.

    Returns
    -------
    float
        Mean improvement in per cent.

    Raises
    ------
    ValueError
        If the metrics differ, are not finite, or one of the baseline is 0.
    """
    if not scores or scores.keys() != baseline.keys() or not lower_is_better <= scores.keys():
        raise ValueError(
            f"scores has {sorted(scores)}, baseline {sorted(baseline)} and lower_is_better "
            f"{sorted(lower_is_better)}; expected the same metrics."
        )
    if any(value == 0 for value in baseline.values()):
        raise ValueError(
            "a metric of the baseline is 0; leave the metric out, as no ratio to it exists."
        )
    signs = {name: -1.0 if name in lower_is_better else 1.0 for name in scores}
    names = list(scores)
    old = as_vector("baseline", [baseline[name] for name in names], len(names))
    new = as_vector("scores", [scores[name] for name in names], len(names))
    return float(100 * np.mean([signs[name] for name in names] * (new - old) / old))
