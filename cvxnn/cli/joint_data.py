"""What both kinds of ``cvxnn joint`` share: data to hold out, options of several values, report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn.cli.console import Console
from cvxnn.files.writing import write_text

if TYPE_CHECKING:
    from cvxnn.preference.demonstrations import Demonstration
    from cvxnn.preference.triplets import PreferenceTriplet


def several(value: Any) -> tuple[Any, ...]:
    """Return what was typed, or the default of the library, which is one value.

    Parameters
    ----------
    value : object
        Value of an option.

    Returns
    -------
    tuple
        One value or several.
    """
    return value if isinstance(value, tuple) else (value,)


def split_demonstrations(
    demonstrations: list[Demonstration],
    train: Sequence[PreferenceTriplet],
    test: Sequence[PreferenceTriplet],
    test_size: float,
    seed: int,
) -> tuple[list[Demonstration], list[Demonstration]]:
    """Hold out a share of the demonstrations; no prompt is on both sides, also not of pairs.

    Parameters
    ----------
    demonstrations : list of Demonstration
        All demonstrations.
    train, test : sequence of PreferenceTriplet
        Pairs to learn from, and held-out pairs.
    test_size : float
        Share of the prompts that is held out.
    seed : int
        Seed of the draw.

    Returns
    -------
    learnt, kept : list of Demonstration
        Demonstrations to learn from, and held-out ones.

    Raises
    ------
    ValueError
        If one side has fewer than 2; give more, or another share.
    """
    import numpy as np

    from cvxnn.preference.triplets import prompt_key

    known = [{prompt_key(pair.prompt) for pair in part} for part in (train, test)]
    keys = [prompt_key(each.prompt) for each in demonstrations]
    names = list(dict.fromkeys(keys))
    drawn = np.random.default_rng(seed).permutation(len(names))[: round(test_size * len(names))]
    out = {names[k] for k in drawn} - known[0] | (known[1] & set(names))
    parts: tuple[list[Demonstration], list[Demonstration]] = ([], [])
    for key, each in zip(keys, demonstrations, strict=True):
        parts[key in out].append(each)
    if min(map(len, parts)) < 2:
        raise ValueError(
            f"{len(parts[0])} demonstrations to learn from and {len(parts[1])} held out; expected "
            "at least 2 of each. Give more, or another --test-size"
        )
    return parts


def write_report(result: dict[str, Any], options: argparse.Namespace, console: Console) -> None:
    """Write the page of a result, if ``--report`` asks for one.

    Parameters
    ----------
    result : dict
        Result of the command.
    options : argparse.Namespace
        Parsed arguments.
    console : Console
        Where to write that it was made.
    """
    if options.report is not None:
        from cvxnn.comparison.report.joint_page import render_joint_report

        write_text(Path(options.report), render_joint_report(result))
        console.show(f"wrote {options.report}")
