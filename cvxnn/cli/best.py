"""Pick the best of several replies to each prompt.

REPLIES are JSON lines with "prompt" and "response", one row a reply; rows with "prompt" and a list
"responses"; or the file of "cvxnn generate". Each prompt gives one row: the reply that was picked,
its reward, its margin over the second best, and a verdict ("chosen", "tied", "abstained", "only").
With --also, further heads have a say: a reply counts by the head that likes it least. With
--caution, a reply of which the pairs of the fit say less than of the others to its prompt loses.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn.cli.caution import add_caution, caution_settings, head_of
from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, required
from cvxnn.cli.option_building import option_from
from cvxnn.cli.option_groups import BATCH, MODEL
from cvxnn.cli.option_types import real
from cvxnn.cli.prompts import read_candidates
from cvxnn.cli.scored_file import beside, write_scored
from cvxnn.files.digests import digest_of_file
from cvxnn.files.json_files import as_json

if TYPE_CHECKING:
    from cvxnn.preference.triplets import Prompt

HELP = "pick the best of several replies to each prompt"
EXAMPLE = "  cvxnn best head.safetensors candidates.jsonl --output best.jsonl --least-margin 0.5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument("head", nargs="?", metavar="HEAD", help="File of cvxnn fit")
    parser.add_argument("replies", nargs="?", metavar="REPLIES", help="File of prompts and replies")
    parser.add_argument(
        "--output", metavar="FILE", help="File for the replies, .jsonl; by default stdout"
    )
    parser.add_argument(
        "--also",
        action="append",
        metavar="HEAD",
        help="A further head, on the same embeddings, for a pessimistic choice; repeatable",
    )
    margin = option_from("cvxnn.preference.best_replies", "least_margin")
    parser.add_argument("--least-margin", **{**margin, "type": real(least=0)})
    for group in (MODEL, BATCH):
        group.add_to(parser)
    add_caution(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, head="HEAD", replies="REPLIES")
    candidates = read_candidates(options.replies)
    if options.output is None:
        console.kept = lambda: "nothing was kept; with --output, the same command would continue"
        rows = _pick(options, console, candidates, None)
        console.show(_text(rows), end="")
        console.progress(_summary(rows))
        return {"status": "done", "replies": rows}
    output = Path(options.output)
    settings = {
        "heads": [digest_of_file(file) for file in _heads(options)],
        "replies": digest_of_file(options.replies),
        "least_margin": options.least_margin,
        **caution_settings(options),
    }

    def pick(cache: Path) -> tuple[str, dict[str, Any]]:
        rows = _pick(options, console, candidates, cache)
        verdicts = dict(Counter(row["verdict"] for row in rows))
        return _text(rows), {"summary": _summary(rows), "verdicts": verdicts}

    found = write_scored(output, settings, console, pick, overwrite=options.overwrite)
    console.show(found["summary"])
    console.show(f"{'wrote' if found['status'] == 'done' else 'nothing to do:'} {output}")
    return found


def _heads(options: argparse.Namespace) -> list[str]:
    return [options.head, *(options.also or ())]


def _pick(
    options: argparse.Namespace,
    console: Console,
    candidates: list[tuple[Prompt, str, dict[str, Any]]],
    cache: Path | None,
) -> list[dict[str, Any]]:
    import numpy as np

    from cvxnn.features.description import differences
    from cvxnn.preference.selection import best_replies

    heads = [head_of(options, file) for file in _heads(options)]
    for file, head in zip(_heads(options), heads, strict=True):
        if differ := differences(heads[0].embedding or {}, head.embedding or {}):
            raise ValueError(
                f"{options.head} and {file} were fitted to other embeddings: {'; '.join(differ)}; "
                "fit both to the same features"
            )
    prompts = [prompt for prompt, _, _ in candidates]
    texts = [text for _, text, _ in candidates]
    keys = [as_json(prompt) for prompt in prompts]
    console.progress(
        f"data      {counted(len(texts), 'reply')} to {counted(len(set(keys)), 'prompt')}"
    )
    X = embedder_of(options, console, heads[0], cache).embed(prompts, texts, common_cut=True)
    among = {"prompts": keys} if options.caution else {}
    rewards = np.array([np.asarray(head.reward(X, **among), float) for head in heads])
    rows = []
    for best in best_replies(rewards, keys, texts, least_margin=options.least_margin):
        found = {
            "reward": float(rewards[0, best.row]),
            "verdict": best.verdict,
            "margin": best.margin if np.isfinite(best.margin) else None,
            "candidates": len(best.rows),
        }
        if len(heads) > 1:
            found["rewards"] = rewards[:, best.row].tolist()
        rows.append(beside(candidates[best.row][2], found))
    return rows


def _text(rows: list[dict[str, Any]]) -> str:
    return "".join(as_json(row) + "\n" for row in rows)


def _summary(rows: list[dict[str, Any]]) -> str:
    counts = Counter(row["verdict"] for row in rows)
    said = {
        "chosen": "chosen",
        "tied": "tied (the first of the best)",
        "abstained": "without a choice (the margin is too small; the first reply is kept)",
        "only": "with one reply",
    }
    parts = [f"{counts[name]} {text}" for name, text in said.items() if counts[name]]
    return f"{counted(len(rows), 'prompt')}: {', '.join(parts)}"
