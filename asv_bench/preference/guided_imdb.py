"""Does guidance steer? Continuations of film reviews, judged by a classifier that knows no head.

    python asv_bench/preference/guided_imdb.py --data DIR --out results.jsonl

`DIR` holds `imdb_train.jsonl.gz` and `imdb_test.jsonl.gz`: a JSON object a line with `text` and
`label` (1 positive). The head is trained on openings of some training reviews, the judge (TF-IDF
and logistic regression) on all the others. Replies begin with the first words of test reviews.
Every reply is a line of the `--out` file at once; what is there already is not written again.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead
from cvxnn.features import read_features
from cvxnn.llm import Embedder, Guidance, LanguageModel, generate_guided, load_model

PROMPT = "Write a review of a film."
N_WORDS = 8  # of a test review that a reply begins with
LENGTHS = 16, 64  # tokens of a training review's opening
EXCERPT = 40  # words; the judge's accuracy is measured on excerpts as long as the replies

PLAIN = {"n_candidates": 1, "weight": 0.0}
WHOLE = {"segment": 10**6}  # as many candidates, judged once, at their end
TOKEN = {"mode": "token", "tau": 1.0}  # drawn: the best token each time runs in circles


def reviews(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        row["text"] = " ".join(row["text"].replace("<br />", " ").split())
    return rows


def openings(lm: LanguageModel, rows: list[dict[str, Any]]) -> Iterator[str]:
    rng = np.random.default_rng(0)
    for row in rows:
        [tokens] = lm.encode_responses([row["text"]])
        yield lm.tokenizer.decode(tokens[: rng.integers(LENGTHS[0], LENGTHS[1] + 1)])


def fit_head(lm: LanguageModel, rows: list[dict[str, Any]], path: Path) -> COALAPreferenceHead:
    """Pairs of a positive and a negative review, which alternate in `rows`."""
    if not path.exists():
        embedder = Embedder(lm, progress=True)
        embedder.embed_to_file(path, itertools.repeat(PROMPT, len(rows)), openings(lm, rows))
    X, description = read_features(path)
    n = len(rows) * 4 // 5 // 2 * 2
    parameters: dict[str, Any] = {"embedding": description, "random_state": 0}
    trial = COALAPreferenceHead(**parameters).fit_pairs(X[:n:2], X[1:n:2])
    accuracy = (trial.reward_margin(X[n::2], X[n + 1 :: 2]) > 0).mean()
    print(f"head: {accuracy:.3f} of {(len(X) - n) // 2} held-out pairs", flush=True)
    return COALAPreferenceHead(**parameters).fit_pairs(X[::2], X[1::2])


def fit_judge(rows: list[dict[str, Any]], test: list[dict[str, Any]]) -> Any:
    judge = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    judge.fit([row["text"] for row in rows], [row["label"] for row in rows])
    labels = [row["label"] for row in test]
    excerpts = [" ".join(row["text"].split()[N_WORDS : N_WORDS + EXCERPT]) for row in test]
    whole = judge.score([row["text"] for row in test], labels)
    print(f"judge: {whole:.3f} of test reviews, {judge.score(excerpts, labels):.3f} of excerpts")
    return judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", type=Path, help="default: beside --out")
    parser.add_argument("--model")
    parser.add_argument("--cache-dir", type=Path, help="for a converted copy of a GGUF model")
    parser.add_argument("--train", type=int, default=600, help="reviews a class for the head")
    parser.add_argument("--first", type=int, default=10, help="number of the first test review")
    parser.add_argument("--prefixes", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--methods", default="plain,whole,prefix,token")
    parser.add_argument("--weights", default="1", help="of the head, with commas between")
    options = parser.parse_args()

    lm = load_model(options.model, cache_dir=options.cache_dir)
    train = reviews(options.data / "imdb_train.jsonl.gz")
    test = reviews(options.data / "imdb_test.jsonl.gz")
    classes = [[row for row in train if row["label"] == label] for label in (1, 0)]
    of_head = [row for pair in zip(*classes, strict=True) for row in pair][: 2 * options.train]
    known = {row["text"] for row in of_head}
    features = options.features or options.out.with_suffix(".npy")
    head = fit_head(lm, of_head, features)
    judge = fit_judge([row for row in train if row["text"] not in known], test)

    done: dict[str, dict[str, Any]] = {}
    if options.out.exists():
        rows = map(json.loads, options.out.read_text("utf-8").splitlines())
        done = {row["key"]: row for row in rows}
    shares: dict[str, list[float]] = {}
    for row in range(options.first, options.first + options.prefixes):
        start = " ".join(test[row]["text"].split()[:N_WORDS])
        for method in options.methods.split(","):
            for weight in ["0"] if method == "plain" else options.weights.split(","):
                name = f"{method} {weight}"
                key = f"{name} {options.tokens} {row}"
                if key not in done:
                    done[key] = {"key": key} | write(lm, head, start, name, options.tokens, row)
                    append(options.out, done[key])
                positive = judge.predict_proba([done[key]["continuation"]])[0, 1]
                shares.setdefault(name, []).append(float(positive > 0.5))
    report(shares, done, options)


def write(
    lm: LanguageModel, head: COALAPreferenceHead, start: str, name: str, n: int, seed: int
) -> dict[str, Any]:
    method, weight = name.split()
    settings: dict[str, Any] = {"weight": float(weight), "max_new_tokens": n, "seed": seed}
    settings |= {"plain": PLAIN, "whole": WHOLE, "token": TOKEN}.get(method, {})
    guidance = Guidance(**settings)
    began = time.process_time()
    reply = generate_guided(lm, head, PROMPT, guidance, reply_start=start)
    return {
        "continuation": reply.text[len(start) :],
        "reward": float(reply.rewards[-1]),
        "n_tokens": len(reply.tokens) - reply.n_given,
        "seconds": round(time.process_time() - began, 2),
    }


def report(
    shares: dict[str, list[float]], done: dict[str, dict[str, Any]], options: argparse.Namespace
) -> None:
    print("| method, weight | called positive | less plain | CPU s a token |")
    print("| --- | --- | --- | --- |")
    plain = np.array(shares.get("plain 0", []))
    for name, values in shares.items():
        share = np.array(values)
        error = share.std(ddof=1) / len(share) ** 0.5
        gain = ""
        if len(plain) and name != "plain 0":
            paired = share - plain
            gain = f"{paired.mean():+.2f} ± {paired.std(ddof=1) / len(paired) ** 0.5:.2f}"
        rows = [row for key, row in done.items() if key.startswith(f"{name} {options.tokens} ")]
        seconds = sum(row["seconds"] for row in rows) / sum(row["n_tokens"] for row in rows)
        print(f"| {name} | {share.mean():.2f} ± {error:.2f} | {gain} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
