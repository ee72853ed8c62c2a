"""Does guidance steer, and what does it cost the text? Judged by what no head has seen.

    python asv_bench/preference/guided_replies.py --task imdb --data DIR --out FILE
    python asv_bench/preference/guided_replies.py --task tutoring --data DIR --out FILE
    python asv_bench/preference/guided_replies.py --out FILE

`DIR` holds `imdb_train.jsonl.gz` and `imdb_test.jsonl.gz` (`text`, `label` with 1 for positive), or
`mrbench_pairs_train.jsonl.gz` and `mrbench_pairs_test.jsonl.gz` (`prompt`, `chosen`, `rejected`,
`conversation_id`). The head is trained on a part of the training rows. Two judges are trained on
other reviews, or on pairs of other conversations: a head on embeddings of MiniLM, another model,
and a logistic regression on words. Replies are written to test prompts: of reviews, the first words
are given. All replies to a prompt are a line of `--out` at once, the first ones with their texts;
what is there is not written again. Without a task, the tables of `--out` are printed.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joint_features import minilm
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from asv_bench.raw_results import append, read
from cvxnn import COALAPreferenceHead
from cvxnn.comparison.reply_table import LEAST_DROP, LEAST_REPETITION, PLAIN, hacking_text
from cvxnn.features import read_features
from cvxnn.llm import Embedder, Guidance, LanguageModel, generate_guided, load_model
from cvxnn.llm.decoding.reply_measures import repetition
from cvxnn.llm.log_probabilities import score_items
from cvxnn.llm.packing import Item

PROMPT = "Write a review of a film."
N_WORDS = 8  # of a test review that a reply begins with
LENGTHS = 16, 64  # tokens of a training review's opening
EXCERPT = 40  # words of the other reviews that a judge sees: as many as replies have
OF_JUDGE = 1000  # reviews to train the judges on
TESTED = 600  # reviews, on which their accuracy is measured
PAIRS_EACH = 2  # of a conversation
MOST_PROMPT = 200  # tokens of a tutoring prompt

SETTINGS: dict[str, dict[str, Any]] = {
    PLAIN: {"mode": "token", "n_candidates": 1, "weight": 0.0},
    "prefix": {},
    "head": {"mode": "token", "likelihood": 0.0},  # the head alone, among the likeliest tokens
}
METHODS = "plain,prefix 0.25,prefix 0.5,prefix 1,prefix 16,head"
TEXTS = 8  # prompts of a task whose replies are kept as texts
MEASURES = "reward", "judge", "words", "log_probability", "repetition", "n_tokens"
# The rule for the default weight, stated before the replies were written: the smallest weight with
# this part of the largest gain in reward, if its loss of log-probability is below LEAST_DROP at the
# upper end of the 95 % interval.
ENOUGH = 0.75


class Task(NamedTuple):
    """A head, judges by name, prompts with the beginning of a reply, and held-out accuracies."""

    head: COALAPreferenceHead
    judges: dict[str, Callable[[list[str]], np.ndarray]]
    prompts: list[tuple[Any, str]]
    accuracies: dict[str, float]


Pairs = list[tuple[str, str]]  # the better text first


def rows_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def fit(
    lm: LanguageModel,
    path: Path,
    pairs: list[tuple[Any, str, str]],
    groups: list[Any] | None,
    length: int,
) -> tuple[COALAPreferenceHead, float]:
    """Fit the head to all pairs; its accuracy on the last fifth is that of a head without it."""
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
    accuracy = float((trial.reward_margin(won[n:], lost[n:]) > 0).mean())
    head = COALAPreferenceHead(**parameters).fit_pairs(won, lost, groups=groups)
    return head, accuracy


def embedded(texts: Sequence[str]) -> np.ndarray:
    """MiniLM's embeddings; each text is read once."""
    distinct, rows = np.unique(texts, return_inverse=True)
    return minilm(distinct.tolist())[rows]


def judges_of(
    train: Pairs, test: Pairs, groups: Sequence[Any] | None
) -> tuple[dict[str, Callable[[list[str]], np.ndarray]], dict[str, float]]:
    """Judges that are trained on pairs, and what part of the test pairs they rank right."""
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    words.fit([text for pair in train for text in pair])

    def difference(pairs: Pairs) -> Any:
        won, lost = (words.transform(texts) for texts in zip(*pairs, strict=True))
        return won - lost

    model = LogisticRegression(C=10.0, max_iter=1000, fit_intercept=False)
    signs = np.where(np.arange(len(train)) % 2, -1, 1)
    model.fit(difference(train).multiply(signs[:, None]).tocsr(), signs)
    won, lost = map(embedded, zip(*train, strict=True))
    head = COALAPreferenceHead(random_state=0).fit_pairs(won, lost, groups=groups)
    judges = {
        "judge": lambda texts: head.decision_function(embedded(texts)),
        "words": lambda texts: model.decision_function(words.transform(texts)),
    }
    accuracies = {}
    for name, judge in judges.items():
        won, lost = (judge(list(texts)) for texts in zip(*test, strict=True))
        accuracies[name] = float((won > lost).mean())
    return judges, accuracies


def imdb(lm: LanguageModel, options: argparse.Namespace) -> Task:
    """Reviews: pairs of a positive and a negative opening; excerpts of others for the judges."""
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
    head, accuracy = fit(lm, options.features, pairs, None, 1024)
    known = {row["text"] for row in of_head}

    def excerpts(rows: list[dict[str, Any]]) -> Pairs:
        texts: dict[int, list[str]] = {1: [], 0: []}
        for row in rows:
            words = row["text"].split()[N_WORDS : N_WORDS + EXCERPT]
            texts[row["label"]].append(" ".join(words))
        return list(zip(texts[1], texts[0], strict=False))

    of_judge = [row for row in train if row["text"] not in known][:OF_JUDGE]
    judges, accuracies = judges_of(excerpts(of_judge), excerpts(test[:TESTED]), None)
    prompts = [(PROMPT, " ".join(row["text"].split()[:N_WORDS])) for row in test]
    return Task(head, judges, prompts, {"head": accuracy, **accuracies})


def tutoring(lm: LanguageModel, options: argparse.Namespace) -> Task:
    """Replies of tutors: pairs of some conversations; those of the others for the judges."""
    train, test = (
        rows_of(options.data / f"mrbench_pairs_{part}.jsonl.gz") for part in ("train", "test")
    )
    names = list(dict.fromkeys(row["conversation_id"] for row in train))[: options.train // 2]
    by_name = {name: [row for row in train if row["conversation_id"] == name] for name in names}
    of_head = [row for rows in by_name.values() for row in rows[:PAIRS_EACH]]
    pairs = [(row["prompt"], row["chosen"], row["rejected"]) for row in of_head]
    groups = [row["conversation_id"] for row in of_head]
    head, accuracy = fit(lm, options.features, pairs, groups, 160)
    of_judge = [row for row in train if row["conversation_id"] not in by_name]
    judges, accuracies = judges_of(
        [(row["chosen"], row["rejected"]) for row in of_judge],
        [(row["chosen"], row["rejected"]) for row in test],
        [row["conversation_id"] for row in of_judge],
    )
    every = {json.dumps(row["prompt"]): row["prompt"] for row in test}.values()
    lengths = map(len, lm.encode_prompts(list(every)))
    prompts = [(p, "") for p, n in zip(every, lengths, strict=True) if n <= MOST_PROMPT]
    return Task(head, judges, prompts, {"head": accuracy, **accuracies})


TASKS = {"imdb": imdb, "tutoring": tutoring}


def write(
    lm: LanguageModel, head: COALAPreferenceHead, prompt: Any, start: str, guidance: Guidance
) -> tuple[str, dict[str, Any]]:
    """The text of a reply after its beginning, and its measures."""
    began = time.process_time()
    reply = generate_guided(lm, head, prompt, guidance, reply_start=start)
    seconds = time.process_time() - began
    [tokens] = lm.encode_prompts([prompt])
    new = reply.tokens[reply.n_given :]
    item = Item(np.array([*tokens, *reply.tokens]), len(tokens) + reply.n_given)
    [total], _ = score_items(lm, [item], share_prefixes=False)
    return reply.text[len(start) :], {
        "reward": round(float(reply.rewards[-1]), 4),
        "n_tokens": len(new),
        "log_probability": round(float(total) / max(len(new), 1), 4),
        "repetition": round(repetition(new), 4),
        "ending": reply.ending,
        "cpu_s": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", type=Path, help="default: beside --out")
    parser.add_argument("--model")
    parser.add_argument("--cache-dir", type=Path, help="for a converted copy of a GGUF model")
    parser.add_argument("--train", type=int, default=200, help="pairs for the head")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--methods", default=METHODS)
    options = parser.parse_args()
    if options.task:
        options.features = options.features or options.out.with_name(f"{options.task}.npy")
        run(options)
    report(read(options.out))


def run(options: argparse.Namespace) -> None:
    lm = load_model(options.model, cache_dir=options.cache_dir)
    task = TASKS[options.task](lm, options)
    records = [row for row in read(options.out) if row["task"] == options.task]
    if not records:
        append(options.out, {"task": options.task, "accuracies": task.accuracies})
    done = {row["prompt"]: row["replies"] for row in by_prompt(records)}
    for number, (prompt, start) in enumerate(task.prompts[: options.prompts]):
        texts, replies = [], {}
        names = [n for n in options.methods.split(",") if n not in done.get(number, {})]
        for name in names:
            method, *weight = name.split()
            settings = {"max_new_tokens": options.tokens, "seed": number, **SETTINGS[method]}
            if weight:
                settings["weight"] = float(weight[0])
            text, replies[name] = write(lm, task.head, prompt, start, Guidance(**settings))
            texts.append(text)
        if not names:
            continue
        for judge, judged in task.judges.items():
            for found, value in zip(replies.values(), judged(texts), strict=True):
                found[judge] = round(float(value), 4)
        if number < TEXTS:
            for found, text in zip(replies.values(), texts, strict=True):
                found["text"] = text
        append(options.out, {"task": options.task, "prompt": number, "replies": replies})


def by_prompt(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each prompt of a task, with all replies to it."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for record in records:
        if "replies" in record:
            of_prompt = rows.setdefault(
                (record["task"], record["prompt"]), {**record, "replies": {}}
            )
            of_prompt["replies"] |= record["replies"]
    return list(rows.values())


def report(records: list[dict[str, Any]]) -> None:
    """Print the tables: means over the prompts, and gains over plain replies."""
    rows = by_prompt(records)
    print("chosen on even prompts:", chosen([row for row in rows if row["prompt"] % 2 == 0]))
    for name in dict.fromkeys(row["task"] for row in rows):
        [known] = [r["accuracies"] for r in records if r["task"] == name and "accuracies" in r]
        print(f"\n{name}: {known}")
        for half, of_half in (("all", (0, 1)), ("even", (0,)), ("odd", (1,))):
            some = [row for row in rows if row["task"] == name and row["prompt"] % 2 in of_half]
            print(f"\n{half} prompts, {len(some)}\n")
            if len(some) > 1:  # standard errors need two
                table(some)


def table(rows: list[dict[str, Any]]) -> None:
    """Print a row for each way of writing."""
    cells = [*MEASURES[:4], "repetition", "n_tokens", "warned", "warning of all"]
    print("| replies | " + " | ".join(cells) + " |")
    print("| --- " * (len(cells) + 1) + "|")
    written = rows[0]["replies"]
    for name in [name for name in METHODS.split(",") if name in written]:
        texts = []
        for field in MEASURES:
            mean, gain, error = compared(rows, name, field)
            text = f"{100 * mean:.0f} %" if field == "repetition" else f"{mean:.2f}"
            if name != PLAIN and field in MEASURES[:4]:
                text += f" ({gain:+.2f} ± {error:.2f})"
            texts.append(text)
        both = [{"replies": {k: row["replies"][k] for k in {PLAIN, name}}} for row in rows]
        texts.append(f"{100 * np.mean([warned(row['replies'], name) for row in rows]):.0f} %")
        texts.append("yes" if hacking_text(both) else "no")
        print(f"| {name} | {' | '.join(texts)} |")


def compared(rows: list[dict[str, Any]], name: str, field: str) -> tuple[float, float, float]:
    """The mean of a measure, and its mean paired gain over plain replies with standard error."""
    values, plain = (np.array([r["replies"][k][field] for r in rows]) for k in (name, PLAIN))
    gains = values - plain
    return values.mean(), gains.mean(), gains.std(ddof=1) / len(gains) ** 0.5


def warned(replies: dict[str, dict[str, Any]], name: str) -> bool:
    """Whether the rule of `hacking_text`, which looks at means, would warn of this reply."""
    gain = {field: replies[name][field] - replies[PLAIN][field] for field in MEASURES}
    worse = gain["log_probability"] < -LEAST_DROP or gain["repetition"] > LEAST_REPETITION
    return gain["reward"] > 0 and worse


def chosen(rows: list[dict[str, Any]]) -> str:
    """The weight that the rule above takes, of those that all prompts have in prefix mode."""
    common = set.intersection(*(set(row["replies"]) for row in rows))
    names = [name for name in common if name.startswith("prefix")]
    names.sort(key=lambda name: float(name.split()[1]))
    gains = {name: compared(rows, name, "reward")[1] for name in names}
    for name in names:
        _, loss, error = compared(rows, name, "log_probability")
        if gains[name] >= ENOUGH * max(gains.values()) and loss - 1.96 * error > -LEAST_DROP:
            return name
    return "none"


if __name__ == "__main__":
    main()
