"""Score replies with a head: rewards as JSON lines, or as CSV where --output ends in .csv.

DATA is a folder of "cvxnn extract", preference pairs (then the accuracy is reported too), or JSON
lines with "prompt" and "response". The model has to be the one that the head was fitted with.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._digests import digest_of_file
from cvxnn._files import write_text
from cvxnn._json import as_json, earlier_result, write_json
from cvxnn._locks import locked
from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, pairs_of, read_replies, required
from cvxnn.cli.option_groups import BATCH, DATA, MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cvxnn.cli.inputs import Head
    from cvxnn.preference.triplets import PreferenceTriplet

HELP = "score replies, with the accuracy on pairs"
EXAMPLE = "  cvxnn score head.safetensors pairs.jsonl --output rewards.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of the command.
    """
    parser.add_argument("head", nargs="?", metavar="HEAD", help="File of cvxnn fit")
    parser.add_argument("data", nargs="?", metavar="DATA", help="Features, pairs or replies")
    parser.add_argument(
        "--output", metavar="FILE", help="File for the rewards, .jsonl or .csv; by default stdout"
    )
    for group in (DATA, MODEL, BATCH):
        group.add_to(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    console : Console
        Where to write.

    Returns
    -------
    dict
        What the command did, for ``--json``.
    """
    required(options, head="HEAD", data="DATA")
    from cvxnn.persistence import load

    head = load(options.head)
    if not hasattr(head, "reward"):
        raise ValueError(f"{options.head} is a {type(head).__name__}; expected a preference head")
    if options.output is None:
        result = _score(options, console, head)
        lines = result["rewards"]
        console.show(_text(lines, ".jsonl"), end="")
        for line in _summary(result):
            console.progress(line)
        return result
    output = Path(options.output)
    if output.suffix.lower() not in (".jsonl", ".csv"):
        raise ValueError(f"--output is {output}; expected a name that ends in .jsonl or .csv")
    note = output.with_name(f"{output.name}.json")
    settings = {
        "head": digest_of_file(options.head),
        "data": _identity(options),
        "format": options.format,
        "split": options.split,
        "limit": options.limit,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output):
        found = earlier_result(note, settings, overwrite=options.overwrite)
        if found is not None and output.exists():
            found["status"] = "nothing to do"
        else:
            # Embeddings are kept until all is done, so that a second call can continue.
            cache = output.with_name(f".{output.name}.embeddings.sqlite")
            result = _score(options, console, head, cache)
            rewards = result.pop("rewards")
            note.unlink(missing_ok=True)  # if this is interrupted, it must not describe the rewards
            write_text(output, _text(rewards, output.suffix))
            found = {**result, "output": str(output), "settings": settings}
            write_json(note, found)
            cache.unlink(missing_ok=True)
    for line in _summary(found):
        console.show(line)
    console.show(f"{'wrote' if found['status'] == 'done' else 'nothing to do:'} {output}")
    return found


def _score(
    options: argparse.Namespace, console: Console, head: Head, cache: Path | None = None
) -> dict[str, Any]:
    import numpy as np

    from cvxnn.comparison.heads import LONGER, length_baseline
    from cvxnn.comparison.measures import accuracy_and_error
    from cvxnn.preference.metrics import reward_metrics

    replies = read_replies(options.data, options.limit)
    if replies is not None:
        console.progress(f"data      {len(replies)} replies")
        embedder = embedder_of(options, console, head, cache)
        X = embedder.embed([prompt for prompt, _ in replies], [text for _, text in replies])
        rewards = np.asarray(head.reward(X), float)
        return {"status": "done", "rewards": [{"reward": float(r)} for r in rewards]}
    won, lost, pairs = _pairs(options, console, head, cache)
    accuracy, error = accuracy_and_error(won - lost, [pair.group for pair in pairs])
    return {
        "status": "done",
        "rewards": [
            {"chosen": float(w), "rejected": float(r), "margin": float(w - r)}
            for w, r in zip(won, lost, strict=True)
        ],
        "pairs": len(pairs),
        "accuracy": accuracy,
        "standard_error": error,
        "metrics": reward_metrics(won, lost),
        "baselines": {LONGER: length_baseline(pairs)},
    }


def _pairs(
    options: argparse.Namespace, console: Console, head: Head, cache: Path | None
) -> tuple[NDArray[np.floating], NDArray[np.floating], Sequence[PreferenceTriplet]]:
    """Return the rewards of chosen and of rejected replies, and the pairs."""
    import numpy as np

    from cvxnn.features.pairs import is_extracted, read_pair_features

    if is_extracted(options.data):
        features = read_pair_features(options.data)
        if getattr(head, "embedding", None) not in (None, features.embedding):
            raise ValueError(
                f"{options.data} was embedded with {features.embedding}, but the head expects "
                f"{head.embedding}; extract it with the settings of the head"
            )
        chosen, rejected, pairs = features.chosen, features.rejected, features.pairs
    else:
        pairs = pairs_of(options, options.data)
        console.progress(f"data      {len(pairs)} pairs")
        rows = embedder_of(options, console, head, cache).embed(
            [pair.prompt for pair in pairs for _ in range(2)],
            [reply for pair in pairs for reply in (pair.chosen, pair.rejected)],
        )
        chosen, rejected = rows[0::2], rows[1::2]
    won, lost = (np.asarray(head.reward(np.asarray(X)), float) for X in (chosen, rejected))
    return won, lost, pairs


def _identity(options: argparse.Namespace) -> str:
    from cvxnn.features.pairs import is_extracted, read_pair_features

    if is_extracted(options.data):
        return read_pair_features(options.data, check=False).identity
    return digest_of_file(options.data) if Path(options.data).is_file() else options.data


def _text(rewards: list[dict[str, float]], suffix: str) -> str:
    if suffix.lower() == ".jsonl":
        return "".join(as_json(row) + "\n" for row in rewards)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rewards[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rewards)
    return buffer.getvalue()


def _summary(result: dict[str, Any]) -> list[str]:
    if "accuracy" not in result:
        return []
    from cvxnn.comparison.texts import estimate_text

    shares = {"pair accuracy": result, **result["baselines"]}
    lines = [
        f"{name}: {estimate_text(share['accuracy'], share['standard_error'])}"
        for name, share in shares.items()
    ]
    lines.append(", ".join(f"{k} {v:.3f}" for k, v in result["metrics"].items()))
    return lines
