"""Texts for people: names of methods, estimates, counts, durations and certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_NAMES = {
    "coala": "COALA",
    "linear": "linear head",
    "sft": "SFT",
    "dpo": "DPO",
    "r_dpo": "R-DPO",
    "orpo": "ORPO",
    "simpo": "SimPO",
    "rrhf": "RRHF",
}


def name_of(method: str) -> str:
    """Return the name of a method as its authors write it.

    Parameters
    ----------
    method : str
        Name of the method in the program, such as ``"simpo"``.

    Returns
    -------
    str
        Name for people, such as "SimPO"; what is no method of `compare` is as given.
    """
    return _NAMES.get(method, method)


def share_text(value: float, interval: Sequence[float]) -> str:
    """Return the text of a share with its confidence interval, such as "0.712 [0.651, 0.767]".

    Parameters
    ----------
    value : float
        Share between 0 and 1.
    interval : sequence of float, length 2
        Ends of the interval.

    Returns
    -------
    str
        Three decimals of each number.
    """
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def difference_text(value: float, error: float | None) -> str:
    """Return the text of a difference with its standard error, such as "+0.012 ± 0.031".

    Parameters
    ----------
    value : float
        Difference of two shares.
    error : float or None
        Standard error; left out of the text if it is None or not finite.

    Returns
    -------
    str
        Three decimals of each number.
    """
    known = error is not None and np.isfinite(error)
    return f"{value:+.3f} ± {error:.3f}" if known else f"{value:+.3f}"


def certificate_text(certificate: Mapping[str, float]) -> str:
    """Return the text of a certificate of optimality.

    Parameters
    ----------
    certificate : mapping of str to float
        ``objective``, ``dual_bound`` and ``gap`` of a convex program.

    Returns
    -------
    str
        The text; empty if the gap is not known.
    """
    if "gap" not in certificate:
        return ""
    objective, bound = certificate["objective"], certificate["dual_bound"]
    digits = ".5f" if abs(objective) >= 1e-3 else ".3g"
    return (
        f"objective {objective:{digits}}, lower bound {bound:{digits}}, "
        f"gap {100 * certificate['gap']:.2g} %"
    )


def count_text(value: float | None) -> str:
    """Return the text of a large number with a metric prefix, such as "1.23 T" for 1.23e12.

    Parameters
    ----------
    value : float or None
        Number of at least 0; None stands for an unknown one.

    Returns
    -------
    str
        Three digits and the prefix; a dash for None and 0.
    """
    if not value:
        return "–"
    power = min(max(int(np.log10(abs(value)) // 3), 0), 6)
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}".rstrip()


def ratio_text(value: float | None) -> str:
    """Return the text of a ratio with three digits, such as "0.033", "1" or "2,050".

    Parameters
    ----------
    value : float or None
        Ratio of at least 0; None stands for an unknown one.

    Returns
    -------
    str
        The text; a dash for None.
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def bytes_text(value: float | None) -> str:
    """Return the text of a number of bytes, in KiB, MiB or GiB.

    Parameters
    ----------
    value : float or None
        Number of bytes; None stands for an unknown one.

    Returns
    -------
    str
        The text; a dash for None.
    """
    if value is None:
        return "–"
    if value < 2**20:
        return f"{value / 2**10:.0f} KiB"
    return f"{value / 2**20:.0f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"
