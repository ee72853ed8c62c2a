"""GRPO of TRL with the reward of a head: does the reward rise, and what do other judges say?

    python asv_bench/preference/grpo.py --data DIR --out grpo.jsonl

`DIR` holds `mrbench_pairs_train.jsonl.gz` and `mrbench_pairs_test.jsonl.gz`. Head and judges
are those of the task "tutoring" of `guided_replies.py`; SmolLM2 is trained whole on prompts of the
head's conversations. Greedy replies to prompts of held-out tutors are measured before and after;
log-probabilities are those of the model before. A record for each step, and one for the replies.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import trl
from guided_replies import MOST_PROMPT, Task, rows_of, tutoring
from transformers import TrainerCallback

from asv_bench.raw_results import append
from cvxnn.llm import Embedder, LanguageModel, RewardFunction, load_model, measure_replies

LOGGED = "rewards/cvxnn_reward/mean", "rewards/cvxnn_reward/std", "kl", "entropy", "grad_norm"
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
    parser.add_argument("--features", type=Path, help="of the head's pairs; default: beside --out")
    parser.add_argument("--cache-dir", type=Path, help="for a converted copy of a GGUF model")
    parser.add_argument("--train", type=int, default=80, help="pairs for the head")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--group", type=int, default=4, help="completions of a prompt")
    parser.add_argument("--prompts", type=int, default=2, help="prompts of a step")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    options = parser.parse_args()
    options.features = options.features or options.out.with_name("tutoring.npy")
    torch.set_num_threads(1)
    frozen, policy = (load_model(None, cache_dir=options.cache_dir) for _ in range(2))
    task = tutoring(frozen, options)
    before = measures(frozen, task, frozen, options.tokens)
    train(policy, frozen, task, options)
    after = measures(policy, task, frozen, options.tokens)
    gains = {name: compared(before[name], after[name]) for name in before}
    print(json.dumps(gains, indent=1))
    append(options.out, {"prompts": len(task.prompts), **task.accuracies, "replies": gains})


def train(policy: LanguageModel, frozen: LanguageModel, task: Task, options: Any) -> None:
    """Train the policy to please the head, whose embeddings are those of the frozen model."""
    rows = rows_of(options.data / "mrbench_pairs_train.jsonl.gz")
    names = list(dict.fromkeys(row["conversation_id"] for row in rows))[: options.train // 2]
    asked = {row["prompt"] for row in rows if row["conversation_id"] in names}
    chats = [[{"role": "user", "content": text}] for text in sorted(asked)]
    lengths = map(len, frozen.encode_prompts(chats))
    chats = [chat for chat, n in zip(chats, lengths, strict=True) if n <= MOST_PROMPT]
    policy.tokenizer.pad_token = policy.tokenizer.pad_token or policy.tokenizer.eos_token
    with tempfile.TemporaryDirectory() as folder:
        config = trl.GRPOConfig(
            output_dir=folder,
            max_steps=options.steps,
            per_device_train_batch_size=options.group * options.prompts,
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
            seed=0,
        )
        trainer = trl.GRPOTrainer(
            model=policy.model.train().requires_grad_(True),
            reward_funcs=RewardFunction(
                task.head, Embedder.from_description(frozen, task.head.embedding)
            ),
            args=config,
            train_dataset=datasets.Dataset.from_list([{"prompt": chat} for chat in chats]),
            processing_class=policy.tokenizer,
            callbacks=[Written(options.out)],
        )
        trainer.train()
    policy.model.eval().requires_grad_(False)


def measures(
    policy: LanguageModel, task: Task, frozen: LanguageModel, n_tokens: int
) -> dict[str, np.ndarray]:
    """Measures of greedy replies to held-out prompts, by name."""
    prompts, replies = [prompt for prompt, _ in task.prompts], []
    for tokens in policy.encode_prompts(prompts):
        ids = torch.tensor([tokens])
        with torch.inference_mode():
            out = policy.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=n_tokens,
                pad_token_id=policy.tokenizer.eos_token_id,
            )
        replies.append(policy.tokenizer.decode(out[0, len(tokens) :], skip_special_tokens=True))
    embedder = Embedder.from_description(frozen, task.head.embedding)
    known = [measure_replies(frozen, p, [r])[0] for p, r in zip(prompts, replies, strict=True)]
    return {
        "reward": task.head.reward(embedder.embed(prompts, replies)),
        **{name: judge(replies) for name, judge in task.judges.items()},
        "log_probability": np.array([row.log_probability for row in known], float),
        "repetition": np.array([row.repetition for row in known]),
        "n_tokens": np.array([row.n_tokens for row in known]),
    }


def compared(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Means before and after, and the mean gain with its standard error."""
    gain = after - before
    error = gain.std(ddof=1) / len(gain) ** 0.5
    means = {"before": before.mean(), "after": after.mean(), "gain": gain.mean(), "error": error}
    return {name: round(float(value), 4) for name, value in means.items()}


if __name__ == "__main__":
    main()
