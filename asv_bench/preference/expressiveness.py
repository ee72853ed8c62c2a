"""What a head on frozen features can rank: the style of a solution, or whether it is right?

``python asv_bench/preference/expressiveness.py --data DIR --out FILE [--encoder smollm2]``

Section 6.4 of the COALA paper says that a frozen model suits correctness and not style. Solutions
of GSM8K (``sft.jsonl.gz``) are the chosen replies; the rejected ones are the same solutions with
one change: ``answer``, where the numbers of the last line are wrong; ``case``, where capitals are
gone; ``manner``, where a chatty sentence comes first and another one last. Half of the problems are
learnt from. Encoders: MiniLM, which ignores case, or SmolLM2-135M, whose mean hidden states over
the reply are the features. Beside the heads, a model of words and of characters says how much of
each change the text itself shows.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import numpy as np
from joint_features import minilm
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead, LinearPreferenceHead
from cvxnn.preference.row_files import read_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", choices=("minilm", "smollm2"), default="minilm")
    parser.add_argument("--problems", type=int, default=400, help="half of them are held out")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows = [row for _, row in read_rows(options.data / "sft.jsonl.gz") if "####" in row["response"]]
    rows = [row for row in rows if len(row["response"]) < 400][: options.problems]
    chosen = [row["response"] for row in rows]
    prompts = [row["prompt"] for row in rows]
    changes = {
        "answer": [wrong(text, k) for k, text in enumerate(chosen)],
        "case": [text.lower() for text in chosen],
        "manner": [f"Sure, happy to help! {text} Hope that makes sense!" for text in chosen],
    }
    began = time.process_time()
    X = embed(options.encoder, prompts, [chosen, *changes.values()])
    cpu_s = time.process_time() - began
    for (change, rejected), Z in zip(changes.items(), X[1:], strict=True):
        for seed in range(options.seeds):
            order = np.random.default_rng(seed).permutation(len(rows))
            train, test = np.array_split(order, 2)
            common = {
                "encoder": options.encoder,
                "change": change,
                "seed": seed,
                "pairs": len(train),
                "n_test": len(test),
                "embedding_cpu_s": cpu_s,
            }
            for head in (COALAPreferenceHead(random_state=seed), LinearPreferenceHead()):
                head.fit_pairs(X[0][train], Z[train])
                margins = head.reward(X[0][test]) - head.reward(Z[test])
                name = type(head).__name__
                append(options.out, {**common, "method": name, "accuracy": share(margins)})
            for name, settings in {
                "words": {"ngram_range": (1, 2), "lowercase": False},
                "characters": {"analyzer": "char", "ngram_range": (1, 3), "lowercase": False},
            }.items():
                margins = text_margins(settings, chosen, rejected, train, test)
                append(options.out, {**common, "method": name, "accuracy": share(margins)})


def wrong(text: str, seed: int) -> str:
    """The solution with other numbers in its last step and its answer."""
    shift = 1 + seed % 7
    lines = text.rsplit("\n", 2)
    changed = [re.sub(r"\d+", lambda m: str(int(m[0]) + shift), line) for line in lines[1:]]
    return "\n".join([lines[0], *changed])


def embed(encoder: str, prompts: list[str], parts: list[list[str]]) -> list[np.ndarray]:
    if encoder == "minilm":
        return list(minilm([text for part in parts for text in part]).reshape(len(parts), -1, 384))
    from cvxnn.llm import Embedder, load_model

    embedder = Embedder(load_model())
    return [np.asarray(embedder.embed(prompts, part)) for part in parts]


def text_margins(
    settings: dict[str, object],
    chosen: list[str],
    rejected: list[str],
    train: np.ndarray,
    test: np.ndarray,
) -> np.ndarray:
    counts = TfidfVectorizer(**settings).fit([*chosen, *rejected])
    D = counts.transform(chosen) - counts.transform(rejected)
    signs = np.where(np.arange(len(train)) % 2, 1, -1)
    model = LogisticRegression(C=100.0, fit_intercept=False, max_iter=1000)
    model.fit(D[train].multiply(signs[:, None]).tocsr(), signs)
    return np.asarray(model.decision_function(D[test]))


def share(margins: np.ndarray) -> float:
    return float(np.mean((margins > 0) + (margins == 0) / 2))


if __name__ == "__main__":
    main()
