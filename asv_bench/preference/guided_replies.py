"""Does guidance steer, and what does it cost the text? Judged by words that no head has seen.

    python asv_bench/preference/guided_replies.py --task imdb --data DIR --out guided_replies.jsonl
    python asv_bench/preference/guided_replies.py --task tutoring --data DIR --out FILE

`DIR` holds `imdb_train.jsonl.gz` and `imdb_test.jsonl.gz` (`text`, `label` with 1 for positive), or
`mrbench_pairs_train.jsonl.gz` and `mrbench_pairs_test.jsonl.gz` (`prompt`, `chosen`, `rejected`,
`conversation_id`). The head is trained on a part of the training rows, the judge (TF-IDF and
logistic regression) on other reviews, or on pairs of other conversations. Replies are written to
test prompts: of reviews, the first words are given. Each reply is a line of `--out` at once; what
is there is not written again.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead
from cvxnn.features import read_features
from cvxnn.llm import Embedder, Guidance, LanguageModel, generate_guided, load_model
from cvxnn.llm.decoding.reply_measures import repetition
from cvxnn.llm.log_probabilities import score_items
from cvxnn.llm.packing import Item

PROMPT = "Write a review of a film."
N_WORDS = 8  # of a test review that a reply begins with
LENGTHS = 16, 64  # tokens of a training review's opening
EXCERPT = 40  # words; the judge's accuracy is measured on excerpts as long as the replies

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"mode": "token", "n_candidates": 1, "weight": 0.0},
    "sampled": {"n_candidates": 1, "weight": 0.0},
    "prefix": {},
    "whole": {"segment": 10**6},  # as many candidates, judged once, at their end
    "token": {"mode": "token", "tau": 1.0},
    "best": {"mode": "token"},  # the best token each time
    "head": {"mode": "token", "likelihood": 0.0},  # the head alone, among the likeliest tokens
}

Judge = Callable[[str], float]
Test = list[tuple[Any, str]]


def rows_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def fit(
    lm: LanguageModel,
    path: Path,
    pairs: list[tuple[Any, str, str]],
    groups: list[Any] | None,
    length: int,
) -> COALAPreferenceHead:
    """Fit the head to all pairs, once its accuracy on the last fifth is printed."""
    if not path.exists():
        prompts = [prompt for prompt, _, _ in pairs for _ in range(2)]
        replies = [reply for _, *both in pairs for reply in both]
        embedder = Embedder(lm, max_length=length, progress=True)
        embedder.embed_to_file(path, prompts, replies, common_cut=True)
    X, description = read_features(path)
    won, lost, n = X[::2], X[1::2], len(pairs) * 4 // 5
    parameters: dict[str, Any] = {"embedding": description, "random_state": 0}
    trial = COALAPreferenceHead(**parameters)
    trial.fit_pairs(won[:n], lost[:n], groups=groups and groups[:n])
    accuracy = (trial.reward_margin(won[n:], lost[n:]) > 0).mean()
    print(f"head: {accuracy:.3f} of {len(pairs) - n} held-out pairs", flush=True)
    return COALAPreferenceHead(**parameters).fit_pairs(won, lost, groups=groups)


def imdb(lm: LanguageModel, options: argparse.Namespace) -> tuple[COALAPreferenceHead, Judge, Test]:
    """Reviews: pairs of a positive and a negative opening, and a judge of whole reviews."""
    train, test = (rows_of(options.data / f"imdb_{part}.jsonl.gz") for part in ("train", "test"))
    for row in (*train, *test):
        row["text"] = " ".join(row["text"].replace("<br />", " ").split())
    classes = [[row for row in train if row["label"] == label] for label in (1, 0)]
    of_head = [row for pair in zip(*classes, strict=True) for row in pair][: 2 * options.train]
    rng, openings = np.random.default_rng(0), []
    for row in of_head:
        [tokens] = lm.encode_responses([row["text"]])
        openings.append(lm.tokenizer.decode(tokens[: rng.integers(LENGTHS[0], LENGTHS[1] + 1)]))
    pairs = list(zip(itertools.repeat(PROMPT), openings[::2], openings[1::2], strict=False))
    head = fit(lm, options.features, pairs, None, 1024)
    known = {row["text"] for row in of_head}
    of_judge = [row for row in train if row["text"] not in known]
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    model = LogisticRegression(C=10.0, max_iter=1000)
    model.fit(
        words.fit_transform([row["text"] for row in of_judge]), [row["label"] for row in of_judge]
    )
    excerpts = [" ".join(row["text"].split()[N_WORDS : N_WORDS + EXCERPT]) for row in test]
    accuracy = model.score(words.transform(excerpts), [row["label"] for row in test])
    print(f"judge: {accuracy:.3f} of {len(test)} excerpts", flush=True)
    prompts = [(PROMPT, " ".join(row["text"].split()[:N_WORDS])) for row in test]
    return head, lambda text: float(model.decision_function(words.transform([text]))[0]), prompts


def tutoring(
    lm: LanguageModel, options: argparse.Namespace
) -> tuple[COALAPreferenceHead, Judge, Test]:
    """Replies of tutors: pairs of some conversations, and a judge of pairs of the others."""
    train, test = (
        rows_of(options.data / f"mrbench_pairs_{part}.jsonl.gz") for part in ("train", "test")
    )
    names = list(dict.fromkeys(row["conversation_id"] for row in train))
    ours = set(names[: options.train])
    of_head = [row for row in train if row["conversation_id"] in ours]
    pairs = [(row["prompt"], row["chosen"], row["rejected"]) for row in of_head]
    head = fit(lm, options.features, pairs, [r["conversation_id"] for r in of_head], 160)
    of_judge = [row for row in train if row["conversation_id"] not in ours]
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    words.fit([row[side] for row in of_judge for side in ("chosen", "rejected")])

    def difference(rows: list[dict[str, Any]]) -> Any:
        won, lost = (
            words.transform([row[side] for row in rows]) for side in ("chosen", "rejected")
        )
        return won - lost

    model = LogisticRegression(C=10.0, max_iter=1000, fit_intercept=False)
    signs = np.where(np.arange(len(of_judge)) % 2, -1, 1)
    model.fit(difference(of_judge).multiply(signs[:, None]).tocsr(), signs)
    accuracy = (model.decision_function(difference(test)) > 0).mean()
    print(f"judge: {accuracy:.3f} of {len(test)} pairs", flush=True)
    prompts = list({json.dumps(row["prompt"]): (row["prompt"], "") for row in test}.values())
    return head, lambda text: float(model.decision_function(words.transform([text]))[0]), prompts


TASKS = {"imdb": imdb, "tutoring": tutoring}


def write(
    lm: LanguageModel,
    head: COALAPreferenceHead,
    judge: Judge,
    prompt: Any,
    start: str,
    guidance: Guidance,
) -> dict[str, Any]:
    began = time.process_time()
    reply = generate_guided(lm, head, prompt, guidance, reply_start=start)
    seconds = time.process_time() - began
    [tokens] = lm.encode_prompts([prompt])
    new = reply.tokens[reply.n_given :]
    item = Item(np.array([*tokens, *reply.tokens]), len(tokens) + reply.n_given)
    [total], _ = score_items(lm, [item], share_prefixes=False)
    return {
        "reward": round(float(reply.rewards[-1]), 4),
        "judge": round(judge(reply.text[len(start) :]), 4),
        "n_tokens": len(new),
        "log_probability": round(float(total) / len(new), 4),
        "repetition": round(repetition(new), 4),
        "ending": reply.ending,
        "seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", type=Path, help="default: beside --out")
    parser.add_argument("--model")
    parser.add_argument("--cache-dir", type=Path, help="for a converted copy of a GGUF model")
    parser.add_argument("--train", type=int, default=300, help="reviews a class, or conversations")
    parser.add_argument("--first", type=int, default=10, help="number of the first test prompt")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--methods", default="greedy,sampled,prefix 1,prefix 4,prefix 16")
    options = parser.parse_args()
    options.features = options.features or options.out.with_name(f"{options.task}.npy")

    lm = load_model(options.model, cache_dir=options.cache_dir)
    head, judge, prompts = TASKS[options.task](lm, options)
    done: dict[str, dict[str, Any]] = {}
    if options.out.exists():
        rows = map(json.loads, options.out.read_text("utf-8").splitlines())
        done = {row["key"]: row for row in rows}
    for number in range(options.first, options.first + options.prompts):
        prompt, start = prompts[number]
        for name in options.methods.split(","):
            key = f"{options.task} {name} {options.tokens} {number}"
            if key not in done:
                method, *weight = name.split()
                settings = {"max_new_tokens": options.tokens, "seed": number, **SETTINGS[method]}
                if weight:
                    settings["weight"] = float(weight[0])
                found = write(lm, head, judge, prompt, start, Guidance(**settings))
                done[key] = {"key": key, "task": options.task, "method": name, **found}
                append(options.out, done[key])
    report([row for row in done.values() if row["task"] == options.task])


def report(rows: list[dict[str, Any]]) -> None:
    """Print means over the prompts, and gains over sampled replies with standard errors."""
    print("| method | reward | judge | gain | log-prob. a token | gain | repeated |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], {})[row["key"].rpartition(" ")[2]] = row
    base = by_method.get("sampled", {})
    for name, found in by_method.items():
        texts = [f"{np.mean([r['reward'] for r in found.values()]):.2f}"]
        for field in ("judge", "log_probability"):
            texts.append(f"{np.mean([r[field] for r in found.values()]):.2f}")
            paired = np.array([found[k][field] - base[k][field] for k in found if k in base])
            error = paired.std(ddof=1) / len(paired) ** 0.5 if len(paired) > 1 else np.nan
            texts.append(f"{paired.mean():+.2f} ± {error:.2f}" if len(paired) else "")
        texts.append(f"{100 * np.mean([r['repetition'] for r in found.values()]):.0f} %")
        print(f"| {name} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
