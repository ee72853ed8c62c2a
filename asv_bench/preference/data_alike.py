"""How alike are preferences and demonstrations? ``python data_alike.py --data DIR --out FILE``.

Figure 7 of "Understanding Forgetting": for the prompts of pairs that are nearest to a prompt of the
demonstrations, the cosine similarity of both prompts, of the demonstrated reply with the chosen and
with the rejected one, and of these two. Texts are counts of words.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from joint_features import PAIRINGS, demonstrations_of, draw, read_rows
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from asv_bench.raw_results import append


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000, help="pairs, and demonstrations")
    parser.add_argument("--nearest", type=int, default=200, help="pairs that are described")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for name, (preferences, demonstrations) in PAIRINGS.items():
        rng = np.random.default_rng(0)
        pairs = draw(read_rows(options.data / f"{preferences}.jsonl.gz"), options.rows, rng)
        wanted = demonstrations_of(read_rows(options.data / f"{demonstrations}.jsonl.gz"))
        wanted = draw(wanted, options.rows, rng)
        found = alike(pairs, wanted, options.nearest)
        append(
            options.out, {"pairing": name, "pairs": len(pairs), "nearest": options.nearest, **found}
        )
        print(name, found)


def alike(pairs: list[dict], wanted: list[dict], nearest: int) -> dict[str, list[float]]:
    """Quartiles of the similarities, over the pairs with the nearest prompts."""
    texts = [row[key] for row in pairs for key in ("prompt", "chosen", "rejected")]
    texts += [row[key] for row in wanted for key in ("prompt", "response")]
    rows = normalize(CountVectorizer().fit_transform(texts))
    n = 3 * len(pairs)
    prompt, chosen, rejected = (rows[k:n:3] for k in range(3))
    asked, answer = rows[n::2], rows[n + 1 :: 2]
    similarity = (prompt @ asked.T).toarray()
    partner = similarity.argmax(axis=1)
    best = similarity[np.arange(len(pairs)), partner]
    kept = np.argsort(-best)[:nearest]

    def quartiles(a, b):
        values = np.asarray(a.multiply(b).sum(axis=1)).ravel()
        return [round(float(q), 3) for q in np.quantile(values, (0.25, 0.5, 0.75))]

    return {
        "prompts": quartiles(prompt[kept], asked[partner[kept]]),
        "chosen_and_demonstrated": quartiles(chosen[kept], answer[partner[kept]]),
        "rejected_and_demonstrated": quartiles(rejected[kept], answer[partner[kept]]),
        "chosen_and_rejected": quartiles(chosen[kept], rejected[kept]),
        "all_prompts": [round(float(q), 3) for q in np.quantile(best, (0.25, 0.5, 0.75))],
    }


if __name__ == "__main__":
    main()
