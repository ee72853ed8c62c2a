"""Win rates at equal length on published judgements, and how often a judge of words is right.

    python asv_bench/evaluation/alpaca_eval.py --data DIR --out alpaca_eval.jsonl

``DIR`` holds ``alpaca_eval_pairs_{train,test}.jsonl.gz``: a JSON object a line with ``prompt``,
``chosen``, ``rejected``, ``chosen_model`` and ``rejected_model``, from the annotations that are
published with AlpacaEval (GPT-4 as the judge, systems against text-davinci-003, without ties). A
record for each system, one for all of them, and one for the judge, which is fitted to the training
rows and asked about the test rows, whose prompts it has not seen.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from asv_bench.raw_results import append
from cvxnn.evaluation import (
    length_controlled_win_rate,
    length_controlled_win_rates,
    text_judge,
)
from cvxnn.preference import PreferenceTriplet

BASELINE = "text_davinci_003"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    train, test = (
        read_rows(options.data / f"alpaca_eval_pairs_{part}.jsonl.gz") for part in ("train", "test")
    )
    for record in [*systems(train + test), judge(train, test)]:
        append(options.out, record)
        print(record)


def read_rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def systems(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """Win rates of each system with and without length control, and their relation to length."""
    # A system that is annotated twice on a prompt counts once.
    models = ("prompt", "chosen_model", "rejected_model")
    rows = list(
        {(row[models[0]], *sorted(row[m] for m in models[1:])): row for row in rows}.values()
    )
    won = np.array([row["rejected_model"] == BASELINE for row in rows])
    longer = np.array([len(row["chosen"]) - len(row["rejected"]) for row in rows])
    longer = np.where(won, longer, -longer)
    names = np.array(
        [
            row["chosen_model" if win else "rejected_model"]
            for row, win in zip(rows, won, strict=True)
        ]
    )
    preferences = won.astype(float)
    prompts = [row["prompt"] for row in rows]
    joint = length_controlled_win_rates(preferences, longer, names)
    with_prompts = length_controlled_win_rates(preferences, longer, names, prompts=prompts)
    found: list[dict[str, object]] = []
    for name in sorted(joint):
        mine = names == name
        alone = length_controlled_win_rate(preferences[mine], longer[mine])
        found.append(
            {
                "system": name,
                "n": int(mine.sum()),
                "characters_more": float(longer[mine].mean()),
                "overlap": alone.overlap,
                "win_rate": alone.raw.rate,
                "alone": [alone.rate, alone.standard_error],
                "jointly": [joint[name].rate, joint[name].standard_error],
                "jointly_with_prompts": [
                    with_prompts[name].rate,
                    with_prompts[name].standard_error,
                ],
            }
        )
    length = [record["characters_more"] for record in found]
    rates = {
        "win_rate": [record["win_rate"] for record in found],
        **{
            key: [record[key][0] for record in found]  # type: ignore[index]
            for key in ("alone", "jointly", "jointly_with_prompts")
        },
    }
    correlations = {key: float(spearmanr(length, values)[0]) for key, values in rates.items()}
    about = {"system": "all", "n": len(rows), "n_systems": len(found)}
    return [*found, {**about, "rank_correlation_with_length": correlations}]


def judge(train: list[dict[str, str]], test: list[dict[str, str]]) -> dict[str, object]:
    """Accuracy of ``text_judge`` on new prompts, and on pairs in which the shorter reply won."""
    fields = ("prompt", "chosen", "rejected")
    fitted = text_judge(PreferenceTriplet(*(row[field] for field in fields)) for row in train)
    right = np.array([fitted(*(row[field] for field in fields)) for row in test])
    longer = np.array([len(row["chosen"]) - len(row["rejected"]) for row in test])
    return {
        "judge": "text_judge",
        "n_train": len(train),
        "n_test": len(test),
        "accuracy": float(right.mean()),
        "longer_reply_wins": float(((longer > 0) + (longer == 0) / 2).mean()),
        "n_shorter_won": int((longer < 0).sum()),
        "accuracy_where_shorter_won": float(right[longer < 0].mean()),
    }


if __name__ == "__main__":
    main()
