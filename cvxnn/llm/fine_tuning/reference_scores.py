"""Log-probabilities under the reference of a run, and what they cost, kept until they are used."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cvxnn.costs.meter import CostMeter
from cvxnn.files.digests import digest
from cvxnn.files.json_files import read_json, write_json
from cvxnn.files.writing import MALFORMED
from cvxnn.llm.log_probabilities import score_items
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item

_SCORES, _COSTS = "reference.sqlite", "reference.json"
_SECONDS = 1.0  # between two notes of the costs, at least: a killed process loses so much


def reference_scores(
    lm: LanguageModel,
    items: Sequence[Item],
    phase: str,
    *,
    folder: Path | None,
    autocast: torch.dtype | None,
    fresh: bool,
    writes: bool,
) -> tuple[np.ndarray, int, CostMeter]:
    """Return the scores of items, and what they cost.

    Parameters
    ----------
    lm : LanguageModel
        The reference.
    items : sequence of Item
        What is scored, at least one.
    phase : str
        Phase of the costs.
    folder : pathlib.Path or None
        Folder that keeps the scores batch by batch, and their costs: a later call computes the
        scores that are missing.
    autocast : torch.dtype or None
        As for `score_items`.
    fresh : bool
        Whether the run has no checkpoint: one has the costs of earlier calls already.
    writes : bool
        Whether this process keeps the costs.

    Returns
    -------
    scores : ndarray of shape (n,), float64
        Log-probability of the reply of each item.
    n_tokens : int
        Number of tokens that were run through the model; in a fresh run, those of interrupted calls
        included.
    costs : CostMeter
        The costs, in a fresh run with those of interrupted calls.
    """
    if folder is None:
        meter = CostMeter()
        with meter.phase(phase):
            scores, n_tokens = score_items(lm, items, autocast=autocast)
        return scores, n_tokens, meter
    file = folder / _COSTS
    of = digest(phase, lm.fingerprint, str(autocast or lm.dtype), *(item.key for item in items))
    known = _known(file) if fresh and (folder / _SCORES).is_file() else {}
    before, meter = 0, CostMeter()
    if of in known:
        before, meter = known[of]
    n_tokens, written = 0, time.monotonic()

    def keep() -> None:
        if fresh and writes and n_tokens:
            entry = {"tokens_evaluated": before + n_tokens, "costs": meter.to_dict()}
            entries = {
                key: {"tokens_evaluated": n, "costs": m.to_dict()} for key, (n, m) in known.items()
            }
            write_json(file, {"scores": {**entries, of: entry}})

    def count(n: int) -> None:
        nonlocal n_tokens, written
        n_tokens = n
        if time.monotonic() - written >= _SECONDS:
            with meter.phase(phase):  # charges what ran until now
                pass
            keep()
            written = time.monotonic()

    try:
        with meter.phase(phase):
            scores, n_tokens = score_items(
                lm, items, cache=folder / _SCORES, autocast=autocast, count=count
            )
    finally:
        keep()
    return scores, before + n_tokens, meter


def _known(file: Path) -> dict[str, tuple[int, CostMeter]]:
    """Read what earlier calls cost, each entry by what was scored; nothing of a damaged file."""
    if not file.is_file():
        return {}
    try:
        found = read_json(file)["scores"].items()
        return {
            of: (int(e["tokens_evaluated"]), CostMeter.from_dict(e["costs"])) for of, e in found
        }
    except MALFORMED:
        return {}
