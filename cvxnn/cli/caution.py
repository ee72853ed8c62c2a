"""Option of commands that score replies: rewards that are lower where the pairs say little."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from cvxnn.cli.inputs import reward_head
from cvxnn.cli.option_building import UsageError, option_from
from cvxnn.cli.option_types import real


def add_caution(parser: argparse.ArgumentParser) -> None:
    """Add the options.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of a command.
    """
    group = parser.add_argument_group("caution")
    caution = option_from("cvxnn.estimators._pair_curvature.PairCurved.cautious", "caution")
    group.add_argument(
        "--caution",
        **{**caution, "default": 0.0, "type": real(least=0)},
    )
    group.add_argument(
        "--fitted-to",
        action="append",
        metavar="FEATURES",
        help="Folder of cvxnn extract that the head was fitted to, which --caution needs; "
        "repeatable",
    )


def head_of(options: argparse.Namespace, file: str | Path) -> Any:
    """Load a preference head, with the caution that is asked for.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    file : str or Path
        File of the head.

    Returns
    -------
    COALAPreferenceHead, LinearPreferenceHead or CautiousHead
        The head.

    Raises
    ------
    UsageError
        If only one of the two options is given.
    ValueError
        If the head has no caution, no record of its pairs, or was fitted to others.
    """
    head = reward_head(file)
    if (options.caution > 0) != bool(options.fitted_to):
        raise UsageError(
            "--caution X and --fitted-to FEATURES belong together: give both, or neither"
        )
    if options.caution == 0:
        return head
    known, embedding = hasattr(head, "training_record_"), head.embedding
    if not (hasattr(head, "cautious") and known) or embedding is None:
        raise ValueError(
            f"{file} is a {type(head).__name__}"
            f"{' without a record of its pairs' if not known else ''}; --caution "
            "needs a COALA head of cvxnn fit"
        )
    import numpy as np

    from cvxnn.features.description import layers_of
    from cvxnn.features.pairs import join_pair_features, read_pair_features
    from cvxnn.features.training_record import is_recorded

    read = functools.partial(read_pair_features, progress=not options.quiet)
    features = join_pair_features([read(folder) for folder in options.fitted_to])
    features = features.take_layers(layers_of(embedding))
    fitted = features.take(
        np.flatnonzero(is_recorded(features.pairs, head.training_record_)).tolist()
    )
    rows = np.concatenate([np.asarray(fitted.chosen), np.asarray(fitted.rejected)])
    groups = np.tile(fitted.groups, 2) if len(set(fitted.groups)) > 1 else None
    try:
        return head.cautious(rows, np.repeat([1, 0], len(fitted)), options.caution, groups=groups)
    except ValueError as error:
        raise ValueError(
            f"{', '.join(options.fitted_to)}: these are not the features that {file} was fitted to "
            f"({error})"
        ) from error


def caution_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the result of a command depends on beside the head.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    """
    return {"caution": options.caution} if options.caution else {}
