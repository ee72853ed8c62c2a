"""GRPO of TRL with the reward of a head: does it rise, and what does another judge say?

    python asv_bench/preference/grpo.py --data DIR --out grpo.jsonl

`DIR` holds `imdb_train.jsonl.gz` and `imdb_test.jsonl.gz` (`text`, `label` with 1 for positive). A
head is fitted to pairs of openings of reviews, and SmolLM2 is trained whole to write reviews that
please it. The judge is a logistic regression on words of other reviews. Drawn replies are measured
before and after; log-probabilities are those of the model before. A record for each step, and one
for the replies.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import trl
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import TrainerCallback

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead
from cvxnn.llm import Embedder, LanguageModel, RewardFunction, load_model, measure_replies

PROMPT = "Write a review of a film."
N_WORDS = 25  # of a review that the head and the judge read
OF_JUDGE, TESTED = 1500, 600  # reviews
LOGGED = "rewards/cvxnn_reward/mean", "rewards/cvxnn_reward/std", "entropy", "grad_norm"
LOGGED += "completions/mean_length", "completions/clipped_ratio"


class Written(TrainerCallback):
    """Append what TRL logs after each step."""

    def __init__(self, out: Path) -> None:
        self.out, self.began = out, time.process_time()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        found = {name: round(float(logs[name]), 5) for name in LOGGED if name in logs}
        if found:
            spent = round(time.process_time() - self.began, 1)
            append(self.out, {"step": state.global_step, **found, "cpu_s": spent})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, help="for a converted copy of a GGUF model")
    parser.add_argument("--pairs", type=int, default=100, help="for the head")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--group", type=int, default=8, help="completions of a step")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--replies", type=int, default=32, help="drawn before and after")
    options = parser.parse_args()
    torch.set_num_threads(1)
    frozen, policy = (load_model(cache_dir=options.cache_dir) for _ in range(2))
    embedder = Embedder(frozen, layer=16)
    train, test = (reviews(options.data / f"imdb_{part}.jsonl.gz") for part in ("train", "test"))
    judge = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    others = train[options.pairs :][: OF_JUDGE // 2]
    judge.fit([text for pair in others for text in pair], [1, 0] * len(others))
    head = COALAPreferenceHead(embedding=embedder.description, random_state=0)
    n, rows = options.pairs, [*train[: options.pairs], *test[:40]]
    won, lost = (embedder.embed([PROMPT] * len(rows), side) for side in zip(*rows, strict=True))
    head.fit_pairs(won[:n], lost[:n])
    seen = test[: TESTED // 2]
    sides = [judge.decision_function(list(side)) for side in zip(*seen, strict=True)]
    accuracies = {
        "head": float((head.reward_margin(won[n:], lost[n:]) > 0).mean()),
        "judge": float((sides[0] > sides[1]).mean()),
    }
    before = measures(policy, embedder, head, judge, options)
    learn(policy, RewardFunction(head, embedder), options)
    after = measures(policy, embedder, head, judge, options)
    gains = {name: compared(before[name], after[name]) for name in before if name != "text"}
    print(json.dumps([accuracies, gains], indent=1))
    texts = {"before": before["text"][:4], "after": after["text"][:4]}
    append(options.out, {"accuracies": accuracies, "replies": gains, "texts": texts})


def reviews(path: Path) -> list[tuple[str, str]]:
    """Openings of reviews, a positive and a negative one at a time."""
    texts: dict[int, list[str]] = {1: [], 0: []}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            words = row["text"].replace("<br />", " ").split()
            texts[row["label"]].append(" ".join(words[:N_WORDS]))
    return list(zip(texts[1], texts[0], strict=False))


def learn(policy: LanguageModel, reward: RewardFunction, options: argparse.Namespace) -> None:
    """Train the policy to please the head, whose embeddings are those of a frozen model."""
    policy.tokenizer.pad_token = policy.tokenizer.pad_token or policy.tokenizer.eos_token
    rows = [{"prompt": [{"role": "user", "content": PROMPT}]}] * options.group
    with tempfile.TemporaryDirectory() as folder:
        config = trl.GRPOConfig(
            output_dir=folder,
            max_steps=options.steps,
            per_device_train_batch_size=options.group,
            num_generations=options.group,
            max_completion_length=options.tokens,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            disable_tqdm=True,
            seed=0,
        )
        trainer = trl.GRPOTrainer(
            model=policy.model.train().requires_grad_(True),
            reward_funcs=reward,
            args=config,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=policy.tokenizer,
            callbacks=[Written(options.out)],
        )
        trainer.train()
    policy.model.eval().requires_grad_(False)


def measures(
    policy: LanguageModel,
    embedder: Embedder,
    head: COALAPreferenceHead,
    judge: Any,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Replies that the policy draws, and their measures by name."""
    [tokens] = policy.encode_prompts([PROMPT])
    ids = torch.tensor([tokens] * options.replies)
    torch.manual_seed(0)
    with torch.inference_mode():
        out = policy.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            max_new_tokens=options.tokens,
            pad_token_id=policy.tokenizer.eos_token_id,
        )
    texts = policy.tokenizer.batch_decode(out[:, len(tokens) :], skip_special_tokens=True)
    texts = [text for text in texts if text.strip()]
    known = measure_replies(embedder.lm, PROMPT, texts)
    return {
        "text": texts,
        "reward": head.reward(embedder.embed([PROMPT] * len(texts), texts)),
        "judge": judge.decision_function(texts),
        "log_probability": np.array([row.log_probability for row in known]),
        "repetition": np.array([row.repetition for row in known]),
        "n_tokens": np.array([row.n_tokens for row in known]),
    }


def compared(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Means before and after, and the gain with its standard error."""
    error = np.sqrt(sum(part.var(ddof=1) / len(part) for part in (before, after)))
    means = {"before": before.mean(), "after": after.mean(), "error": error}
    return {name: round(float(value), 4) for name, value in means.items()}


if __name__ == "__main__":
    main()
