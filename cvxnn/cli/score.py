"""Score replies with a head: rewards as JSON lines, or as CSV where --output ends in .csv.

DATA is a folder of "cvxnn extract", preference pairs (then the accuracy is reported too), or JSON
lines with "prompt" and "response". The rewards are written beside the texts and all other fields of
the rows. Pairs that the head was trained on, or that share a conversation or a prompt with those,
are counted apart: what it reaches there says little about other pairs. The model has to be the one
that the head was fitted with. With --caution, rewards are lower where the pairs of the fit say
little.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn.cli.caution import add_caution, caution_settings, head_of
from cvxnn.cli.console import Console
from cvxnn.cli.embedding_options import check_same_embedding
from cvxnn.cli.inputs import embedder_of, pairs_of, required
from cvxnn.cli.option_groups import BATCH, DATA, MODEL
from cvxnn.cli.prompts import read_replies
from cvxnn.cli.scored_file import beside, write_scored
from cvxnn.files.digests import digest, digest_of_file
from cvxnn.files.json_files import as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cvxnn.cli.inputs import Head
    from cvxnn.preference.triplets import PreferenceTriplet

HELP = "score replies, with the accuracy on pairs"
EXAMPLE = "  cvxnn score head.safetensors pairs.jsonl --output rewards.csv"

_TEXTS = ("prompt", "chosen", "rejected", "group")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument("head", nargs="?", metavar="HEAD", help="File of cvxnn fit")
    parser.add_argument("data", nargs="?", metavar="DATA", help="Features, pairs or replies")
    parser.add_argument(
        "--output", metavar="FILE", help="File for the rewards, .jsonl or .csv; by default stdout"
    )
    for group in (DATA, MODEL, BATCH):
        group.add_to(parser)
    add_caution(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, head="HEAD", data="DATA")
    head = head_of(options, options.head)
    if options.output is None:
        console.kept = lambda: "nothing was kept; with --output, the same command would continue"
        result = _score(options, console, head)
        lines = result["rewards"]
        console.show(_text(lines, ".jsonl"), end="")
        for line in _summary(result, console):
            console.progress(line)
        return result
    output = Path(options.output)
    if output.suffix.lower() not in (".jsonl", ".csv"):
        raise ValueError(f"--output is {output}; expected a name that ends in .jsonl or .csv")
    settings = {
        "head": digest_of_file(options.head),
        "data": _identity(options),
        "format": options.format,
        "fields": options.fields,
        "split": options.split,
        "limit": options.limit,
        **caution_settings(options),
    }

    def score(cache: Path) -> tuple[str, dict[str, Any]]:
        result = _score(options, console, head, cache)
        return _text(result.pop("rewards"), output.suffix), result

    found = write_scored(output, settings, console, score, overwrite=options.overwrite)
    for line in _summary(found, console):
        console.show(line)
    console.show(f"{'wrote' if found['status'] == 'done' else 'nothing to do:'} {output}")
    return found


def _score(
    options: argparse.Namespace, console: Console, head: Head, cache: Path | None = None
) -> dict[str, Any]:
    import numpy as np

    from cvxnn.preference.metrics import reward_metrics

    replies = read_replies(options.data, options.limit)
    if replies is not None:
        console.progress(f"data      {counted(len(replies), 'reply')}")
        embedder = embedder_of(options, console, head, cache)
        X = embedder.embed([prompt for prompt, _, _ in replies], [text for _, text, _ in replies])
        rewards = np.asarray(head.reward(X), float)
        rows = [
            beside(row, {"reward": float(r)}) for (*_, row), r in zip(replies, rewards, strict=True)
        ]
        return {"status": "done", "rewards": rows}
    won, lost, pairs, fields = _pairs(options, console, head, cache)
    seen = np.zeros(len(pairs), bool)
    if hasattr(head, "training_record_"):
        from cvxnn.features.training_record import is_recorded

        seen = is_recorded(pairs, head.training_record_)
    parts = {"held_out": ~seen, "training": seen}
    return {
        "status": "done",
        "recorded": hasattr(head, "training_record_"),
        "rewards": [
            beside(
                row | {name: getattr(pair, name) for name in _TEXTS},
                {
                    "chosen_reward": float(w),
                    "rejected_reward": float(r),
                    "margin": float(w - r),
                    "trained_on": bool(known),
                },
            )
            for pair, row, w, r, known in zip(pairs, fields, won, lost, seen, strict=True)
        ],
        "pairs": len(pairs),
        **{
            name: _part([pairs[int(i)] for i in np.flatnonzero(part)], won[part] - lost[part])
            for name, part in parts.items()
        },
        "metrics": reward_metrics(won, lost),
    }


def _part(pairs: Sequence[PreferenceTriplet], margins: NDArray[np.floating]) -> dict[str, Any]:
    """Return the accuracy on some pairs, and that of the rule without a head."""
    from cvxnn.comparison.heads import LONGER, length_baseline
    from cvxnn.comparison.measures import accuracy_of

    groups = [pair.group for pair in pairs]
    if not pairs:
        return {"pairs": 0, "groups": 0}
    return {
        "pairs": len(pairs),
        "groups": len(set(groups)),
        **accuracy_of(margins, groups),
        "baselines": {LONGER: length_baseline(pairs)},
    }


def _pairs(
    options: argparse.Namespace, console: Console, head: Head, cache: Path | None
) -> tuple[
    NDArray[np.floating],
    NDArray[np.floating],
    Sequence[PreferenceTriplet],
    Sequence[dict[str, Any]],
]:
    """Return the rewards of chosen and of rejected replies, the pairs, and their rows in a file."""
    import numpy as np

    from cvxnn.features.description import layers_of
    from cvxnn.features.pairs import is_extracted, read_pair_features

    rows: list[dict[str, Any]] = []
    if is_extracted(options.data):
        features = read_pair_features(options.data, progress=not console.quiet)
        embedding = getattr(head, "embedding", None)
        if embedding is not None:
            check_same_embedding(features.embedding, embedding, options.data, options.head)
            features = features.take_layers(layers_of(embedding))
        chosen, rejected, pairs = features.chosen, features.rejected, features.pairs
    else:
        pairs = pairs_of(options, console, options.data, rows.append)
        console.progress(f"data      {counted(len(pairs), 'pair')}")
        chosen, rejected = embedder_of(options, console, head, cache).embed_pairs(pairs)
    won, lost = (np.asarray(head.reward(X), float) for X in (chosen, rejected))
    if len(rows) != len(pairs):  # extracted features, or pairs of conversations, have no rows
        rows = [{} for _ in pairs]
    return won, lost, pairs, [{**dict.fromkeys(_TEXTS), **row} for row in rows]


def _identity(options: argparse.Namespace) -> str:
    from cvxnn.features.pairs import is_extracted, read_pair_features

    if is_extracted(options.data):
        return read_pair_features(options.data, check=False).identity
    source = Path(options.data)
    if source.is_dir():
        files = sorted(file for file in source.rglob("*") if file.is_file())
        return digest([[str(file.relative_to(source)), digest_of_file(file)] for file in files])
    return digest_of_file(source) if source.is_file() else options.data


def _text(rewards: list[dict[str, Any]], suffix: str) -> str:
    if suffix.lower() == ".jsonl":
        return "".join(as_json(row) + "\n" for row in rewards)
    buffer = io.StringIO()
    names = list(dict.fromkeys(name for row in rewards for name in row))
    writer = csv.DictWriter(buffer, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    for row in rewards:  # a cell holds a text or a number; messages of a prompt become JSON
        nested = {k: as_json(v) for k, v in row.items() if isinstance(v, list | dict)}
        writer.writerow({**row, **nested})
    return buffer.getvalue()


def _summary(result: dict[str, Any], console: Console) -> list[str]:
    if "held_out" not in result:
        return []
    from cvxnn.comparison.measures import few_groups_text
    from cvxnn.comparison.texts import share_text
    from cvxnn.preference.metrics import reward_text

    lines = []
    unseen = "held-out pairs" if result["recorded"] else "pairs, perhaps those of the fit"
    for name, part in ((unseen, result["held_out"]), ("training pairs", result["training"])):
        if part["pairs"]:
            lines.append(f"{part['pairs']} {name}")
            for rule, share in {"this head": part, **part["baselines"]}.items():
                lines.append(f"  {share_text(share['accuracy'], share['interval'])}  {rule}")
    lines.append(reward_text(result["metrics"]))
    if result["training"]["pairs"]:
        console.complain(
            "warning",
            f"{result['training']['pairs']} of {result['pairs']} pairs share a conversation or a "
            "prompt with those that the head was trained on; what it reaches there says little "
            "about other pairs",
        )
    if not result["recorded"]:
        console.complain(
            "warning",
            "this head has no record of its training pairs, which cvxnn fit writes: if these are "
            "among them, the figures say little about other pairs",
        )
    if result["held_out"]["pairs"] and (text := few_groups_text(result["held_out"]["groups"])):
        console.complain("warning", text)
    return lines
