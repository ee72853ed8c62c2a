"""Files for ``heads.py`` by a causal language model, on a GPU where there is one.

    python asv_bench/preference/lm_embeddings.py mrbench imdb --layers 10,20,30 --data DIR --out DIR

All rows of the sets of ``embeddings.py``. Of each layer, the mean hidden state of the response,
given its prompt, and that of its last token; of the prompt likewise; and the ``tokens`` of whole
responses. Beside the file of a set, ``NAME.json`` has the numbers of tokens and seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from embeddings import Arrays, numbered

from cvxnn.llm import LanguageModel, load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder")
    parser.add_argument("--model", help="folder or GGUF file; SmolLM2-135M-Instruct by default")
    parser.add_argument("--cache", type=Path, help="keeps the converted model")
    parser.add_argument("--layers", default="10,16,20,25,30", help="outputs of these blocks")
    parser.add_argument("--max-length", type=int, default=768, help="tokens of prompt and reply")
    parser.add_argument("--batch-tokens", type=int, default=32_768)
    options = parser.parse_args()
    lm = load_model(options.model, cache_dir=options.cache)
    layers = [int(number) for number in options.layers.split(",")]
    for name in options.sets:
        began = time.perf_counter()
        prompts, responses, arrays = numbered(options.data, name)
        rows = tokens(lm, prompts, responses, arrays["response_prompt"], options.max_length)
        arrays |= pooled(lm, rows, arrays["response_prompt"], layers, options.batch_tokens)
        arrays["tokens"] = np.array([len(ids) for ids in lm.encode_responses(responses)])
        np.savez(options.out / f"{name}.npz", **arrays, layers=np.array(layers))
        found = {
            "set": name,
            "n_tokens": sum(len(prompt) + len(reply) for prompt, reply in rows),
            "seconds": round(time.perf_counter() - began, 2),
            "max_length": options.max_length,
            "dtype": str(lm.dtype),
            "device": str(lm.device),
        }
        (options.out / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
        print(found, flush=True)


def tokens(
    lm: LanguageModel,
    prompts: list[str],
    responses: list[str],
    prompt_of: np.ndarray,
    limit: int,
) -> list[tuple[list[int], list[int]]]:
    """Tokens of prompt and reply; of what is too long, the beginning and the end are cut."""
    encoded = lm.encode_prompts(prompts)
    replies = lm.encode_responses([text if text.strip() else "(empty)" for text in responses])
    found = []
    for number, reply in zip(prompt_of, replies, strict=True):
        kept = reply[: limit // 2] if len(reply) + len(encoded[number]) > limit else reply
        found.append((encoded[number][-(limit - len(kept)) :], kept))
    return found


@torch.inference_mode()
def pooled(
    lm: LanguageModel,
    rows: list[tuple[list[int], list[int]]],
    prompt_of: np.ndarray,
    layers: list[int],
    batch_tokens: int,
) -> Arrays:
    """States of shape ``(n, n_layers, 2, width)``: the mean, then the last token."""
    shape = len(layers), 2, lm.model.config.hidden_size
    responses = np.empty((len(rows), *shape), np.float16)
    prompts = np.empty((prompt_of.max() + 1, *shape), np.float16)
    lengths = np.array([len(prompt) + len(reply) for prompt, reply in rows])
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        width = lengths[order[start]]
        batch = order[start : start + max(batch_tokens // width, 1)]
        start += len(batch)
        ids = torch.zeros((len(batch), int(width)), dtype=torch.long)
        of_prompt = torch.zeros_like(ids, dtype=torch.bool)
        of_reply = torch.zeros_like(of_prompt)
        for k, row in enumerate(batch):
            prompt, reply = rows[row]
            end = len(prompt) + len(reply)
            ids[k, :end] = torch.tensor([*prompt, *reply])
            of_prompt[k, : len(prompt)] = True
            of_reply[k, len(prompt) : end] = True
        ids, of_prompt, of_reply = (part.to(lm.device) for part in (ids, of_prompt, of_reply))
        # Padding comes last, where causal attention does not see it.
        states = lm.model.base_model(input_ids=ids, output_hidden_states=True).hidden_states
        found = torch.stack([states[layer] for layer in layers])
        responses[batch] = mean_and_last(found, of_reply)
        prompts[prompt_of[batch]] = mean_and_last(found, of_prompt)
    return {"prompts": prompts, "responses": responses}


def mean_and_last(states: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """Pool states of shape ``(n_layers, n, n_tokens, width)`` over the tokens of a mask."""
    weights = mask / mask.sum(dim=1, keepdim=True)
    mean = torch.einsum("lntd,nt->nld", states.float(), weights)
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = states[:, torch.arange(len(mask)), (positions * mask).argmax(dim=1)].transpose(0, 1)
    return torch.stack([mean, last.float()], dim=2).cpu().numpy().astype(np.float16)


if __name__ == "__main__":
    main()
