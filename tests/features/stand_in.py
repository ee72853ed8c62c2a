"""Embedder without a model, for tests of how folders of features are filled."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from cvxnn._progress import Progress
from cvxnn.features import Description, FeatureWriter
from cvxnn.features.blocks import missing_blocks
from cvxnn.preference import PreferenceTriplet
from cvxnn.preference.triplets import Prompt

DESCRIPTION = Description(
    model="letters",
    fingerprint="1",
    fingerprint_float16="2",
    fingerprint_bfloat16="3",
    dtype="float32",
    layer=1,
    pooling="mean",
    max_length=16,
    context=0,
    date="2024-07-26",
    width=4,
)


class LettersEmbedder:
    """Its rows are how often a reply and its prompt have the letters a, b, c and d."""

    def __init__(self, **changed: object) -> None:
        self.description = Description(**{**DESCRIPTION, **changed})  # type: ignore[typeddict-item]
        self.computed: list[str] = []
        self.stop_after = 10**9

    def embed_to_file(
        self,
        path: str | os.PathLike[str],
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        common_cut: bool = False,
        rows: range | None = None,
    ) -> int:
        rows = rows or range(len(prompts))
        part = slice(rows.start, rows.stop)
        with (
            FeatureWriter(path, self.description) as file,
            Progress("embedding", None, "replies", show=False) as bar,
        ):
            for block in missing_blocks(file, prompts[part], responses[part], bar):
                if len(self.computed) >= self.stop_after:
                    raise KeyboardInterrupt
                self.computed += block.responses
                counted = [
                    [f"{prompt}{reply}".count(letter) for letter in "abcd"]
                    for prompt, reply in zip(block.prompts, block.responses, strict=True)
                ]
                file.append(np.array(counted, np.float32), block.identity)
            file.finish()
        return file.n_rows


def letter_pairs(n: int = 19) -> list[PreferenceTriplet]:
    """Pairs, of which two replies never have the same letters."""
    return [
        PreferenceTriplet("d" * (i % 7 + 1), "a" * (i + 1) + "b", "b" * (i + 2) + "c", f"g{i}")
        for i in range(n)
    ]
