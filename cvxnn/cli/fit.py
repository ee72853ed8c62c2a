"""Fit a preference head to extracted features and measure it on held-out pairs.

The head is written as numbers and JSON (no pickle), with a JSON file of measurements beside it:
certificate, accuracy, reward margins and cost, compared with a linear head and with the rule "the
longer reply wins". Without --test, a part of the groups is held out; no group and no prompt is on
both sides. --refit then fits the head that is written to all pairs; --test-size 0 does so without
measuring. Of features of several layers, --layers auto takes the one with which a linear head ranks
most pairs of left-out thirds of the training pairs correctly; layers that are named are used side
by side.
"""

from __future__ import annotations

import argparse
import functools
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn._progress import Phases
from cvxnn.cli.console import Console
from cvxnn.cli.embedding_options import check_layers_of_features, check_same_embedding
from cvxnn.cli.inputs import required
from cvxnn.cli.option_building import UsageError
from cvxnn.cli.option_groups import HEAD, add_held_out, check_head
from cvxnn.cli.option_types import layers_among
from cvxnn.files.json_files import made_once
from cvxnn.files.locks import check_file

if TYPE_CHECKING:
    from cvxnn.cli.inputs import Head
    from cvxnn.features.pairs import PairFeatures

HELP = "fit a head to features, with its certificate"
EXAMPLE = "  cvxnn fit features --output head.safetensors --test held_out_features"
# Phases of the command, for its progress, and how long fits take in proportion to each other.
_RIVAL, _ALL = "linear head, to compare with", "all pairs"
_SHARES = {"coala": 3.0, "linear": 1.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument(
        "features", nargs="*", metavar="FEATURES", help="Folders of cvxnn extract, equal settings"
    )
    parser.add_argument(
        "--output", default="head.safetensors", metavar="FILE", help="File for the head"
    )
    parser.add_argument(
        "--head", default="coala", choices=("coala", "linear"), help="Kind of the head"
    )
    none = "; 0 fits the head to all pairs and measures nothing"
    add_held_out(parser, "FOLDER", "Features of held-out pairs", none)
    parser.add_argument(
        "--refit",
        action="store_true",
        help="Fit the head that is written to the held-out pairs too, once it is measured",
    )
    parser.add_argument(
        "--layers",
        type=layers_among("auto", "all"),
        default="auto",
        metavar="N,...|all|auto",
        help="Layers to use, of features that have several",
    )
    HEAD.add_to(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, features="FEATURES")
    from cvxnn.comparison.layers import choose_layers
    from cvxnn.features.description import describe_layers
    from cvxnn.features.pairs import join_pair_features, read_pair_features

    if options.test is not None and options.test_size == 0:
        raise UsageError("--test names held-out pairs, and --test-size 0 asks for none; leave one")
    read = functools.partial(read_pair_features, progress=not console.quiet)
    parts = {folder: read(folder) for folder in options.features}
    if len({part.identity for part in parts.values()}) < len(options.features):
        raise UsageError(
            f"FEATURES are {', '.join(options.features)}, of which two hold the same pairs; name "
            "each once"
        )
    features = join_pair_features(list(parts.values()))
    held_out = None if options.test is None else read(options.test)
    parameters = HEAD.values(options)
    if options.head != "coala":
        given = sorted(HEAD.changed(options))
        if given:
            raise ValueError(
                f"{given} are parameters of COALA, and --head is {options.head!r}; leave them out, "
                "or choose --head coala"
            )
        parameters = {}
    else:
        check_head(options)
    named = options.features[0]
    check_layers_of_features(options.layers, features.layers, named, "--layers")
    if held_out is not None:
        wanted = choose_layers(features, "all" if options.layers == "auto" else options.layers)
        expected = describe_layers(features.embedding, wanted.layers)
        check_same_embedding(held_out.embedding, expected, options.test, named)
    settings = {
        "head": options.head,
        "features": features.identity,
        "test": None if held_out is None else held_out.identity,
        "test_size": options.test_size if held_out is None else None,
        "parameters": parameters,
        "seed": options.seed,
        **({"refit": True} if options.refit else {}),
        **({"layers": options.layers} if len(features.layers) > 1 else {}),
    }
    output = Path(options.output)
    console.made += check_file(output)
    note = output.with_suffix(".json")
    console.kept = lambda: "no head was written; the same command begins again"
    fit = partial(_fit, options, console, parameters, features, held_out)
    result = made_once(output, settings, fit, note=note, overwrite=options.overwrite)
    _show(result, console)
    return result


def _fit(
    options: argparse.Namespace,
    console: Console,
    parameters: dict[str, Any],
    features: PairFeatures,
    held_out: PairFeatures | None,
) -> dict[str, Any]:
    from dataclasses import asdict

    from cvxnn.comparison.heads import certificate_of, train_head
    from cvxnn.comparison.layers import choose_layers
    from cvxnn.comparison.texts import name_of
    from cvxnn.features.pairs import join_pair_features
    from cvxnn.persistence import save

    kind = options.head
    result: dict[str, Any] = {"measured": None, "baselines": {}, "held_out_pairs": 0}
    everything = features if held_out is None else join_pair_features([features, held_out])
    train, test = features, held_out
    if held_out is None and options.test_size > 0:
        train, test = features.split(options.test_size, options.seed)
    show = not console.quiet
    choice = choose_layers(train, options.layers, seed=options.seed, progress=show)
    train, everything = train.take_layers(choice.layers), everything.take_layers(choice.layers)
    phases = {} if test is None else {name_of(kind): _SHARES[kind], _RIVAL: _SHARES["linear"]}
    if test is not None and kind == "linear":
        del phases[_RIVAL]
    if options.refit or test is None:
        phases[_ALL] = _SHARES[kind] * len(everything) / len(train)
    with Phases("fit", phases, show=show) as bar:
        if test is None:
            console.progress(f"data      {counted(len(train), 'training pair')}, none held out")
            result["training_pairs"] = len(train)
        else:
            test = test.take_layers(choice.layers)
            head, result = _measure(kind, train, test, parameters, options.seed, console, bar)
        if options.refit or test is None:
            console.progress(f"fit       to all {counted(len(everything), 'pair')}")
            bar.enter(_ALL)
            head, cost = train_head(kind, everything, parameters, seed=options.seed)
            result["fit_to_all"] = {
                "pairs": len(everything),
                "seconds": cost.seconds,
                "certificate": certificate_of(head),
            }
    save(head, options.output)
    return {
        "converged": getattr(head, "status_", "converged") in ("converged", "stopped"),
        **result,
        **({"layers": choice._asdict()} if len(features.layers) > 1 else {}),
        "embedding": everything.embedding,
        "extraction": asdict(features.costs),
    }


def _measure(
    kind: str,
    train: PairFeatures,
    test: PairFeatures,
    parameters: dict[str, Any],
    seed: int,
    console: Console,
    bar: Phases,
) -> tuple[Head, dict[str, Any]]:
    """Return a head that is fitted to the training pairs, and what the held-out pairs say of it."""
    from dataclasses import asdict

    from cvxnn.comparison.heads import LONGER, fit_head, length_baseline
    from cvxnn.comparison.texts import name_of
    from cvxnn.preference.metrics import length_bias

    of_test = counted(len(test), "held-out pair")
    console.progress(f"data      {counted(len(train), 'training pair')}, {of_test}")
    console.progress(f"fit       {name_of(kind)}")
    head, measured = fit_head(kind, train, test, parameters, seed=seed)
    baselines = {LONGER: length_baseline(test.pairs)}
    if kind != "linear":
        console.progress(f"fit       {_RIVAL}")
        bar.enter(_RIVAL)
        probe = fit_head("linear", train, test, seed=seed)[1]
        keys = ("accuracy", "standard_error", "interval")
        baselines[name_of("linear")] = {key: getattr(probe, key) for key in keys}
    texts = [pair.chosen for pair in test.pairs], [pair.rejected for pair in test.pairs]
    return head, {
        "training_pairs": len(train),
        "held_out_pairs": len(test),
        "held_out_groups": len(set(test.groups)),
        "measured": asdict(measured),
        "baselines": baselines,
        "length_bias": asdict(length_bias(*texts, measured.margins)),
    }


def _show(result: dict[str, Any], console: Console) -> None:
    from cvxnn._progress import seconds_text
    from cvxnn.comparison.layers import LayerChoice
    from cvxnn.comparison.measures import few_groups_text
    from cvxnn.comparison.results import MethodResult
    from cvxnn.comparison.texts import count_text, name_of, share_text
    from cvxnn.preference.metrics import reward_text

    if "layers" in result:
        console.show(str(LayerChoice(**result["layers"])))
    if result["measured"] is not None:
        row = MethodResult.from_dict(result["measured"])
        for line in _bounds(row.certificate):
            console.show(line)
        for line in _phases(row.settings, row.certificate):
            console.show(f"          {line}")
        cost = f"{seconds_text(sum(row.seconds.values()))}, {count_text(row.total_flops)}FLOPs"
        console.show(f"cost      {cost}")
        console.show(f"held out  pair accuracy over {counted(result['held_out_pairs'], 'pair')}")
        lines = {name_of(row.method): {"accuracy": row.accuracy, "interval": row.interval}}
        for name, value in {**lines, **result["baselines"]}.items():
            share = share_text(value["accuracy"], value["interval"])
            console.show(f"          {share}  {name}")
        console.show(f"          {reward_text(row.metrics)}")
        bias = result["length_bias"]
        if bias["correlation"] is not None:
            console.show(f"          margin and length: correlation {bias['correlation']:.2f}")
        if caution := few_groups_text(result["held_out_groups"]):
            console.complain("warning", caution)
    if "fit_to_all" in result:
        final = result["fit_to_all"]
        pairs = counted(final["pairs"], "pair")
        console.show(f"all       fit to {pairs} in {seconds_text(final['seconds'])}")
        for line in _bounds(final["certificate"]):
            console.show(line)
        unseen = "no pairs were held out: how well it ranks others was not measured"
        if result["measured"] is not None:
            unseen = "the accuracy is that of the head without the held-out pairs"
        console.show(f"          {unseen}")
    done = "wrote" if result["status"] == "done" else "nothing to do:"
    console.show(f"{done} {result['output']}")


def _phases(settings: dict[str, Any], certificate: dict[str, Any]) -> list[str]:
    """Return what the phases are, and what a gap is."""
    lines = []
    if "phase II" in certificate:
        gated = settings.get("formulation", "gated") == "gated"
        second = "the scale of its reward" if gated else "its last layer"
        lines.append(f"phase I fits the network to the pairs, phase II {second}")
    if any("gap" in bounds for bounds in certificate.values()):
        lines.append("gap: the most that a better network could gain, as a share of the objective")
    return lines


def _bounds(certificate: dict[str, dict[str, float]]) -> list[str]:
    from cvxnn.comparison.texts import certificate_text

    return [
        f"{phase:<9} {certificate_text(bounds)}"
        for phase, bounds in certificate.items()
        if "gap" in bounds
    ]
