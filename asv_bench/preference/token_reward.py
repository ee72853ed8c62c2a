"""A rival of ``heads.py`` that reads every token of a response.

``python asv_bench/preference/token_reward.py mrbench --data DIR --out heads.jsonl``

One linear layer on the hidden states of a token, several layers side by side, gives the token's
reward and the logit of its gate; the reward of a response is the mean over its tokens with the
gates as weights (the form of SWIFT, Wang et al., 2025). The Bradley-Terry loss is minimised by
AdamW; learning rate and epoch are chosen in the folds of the other methods. Tokens are the first
126 of a response, in three layers of MiniLM or, with ``--model``, in all layers of a causal model
that has read the prompt as well; on a GPU where there is one.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from embeddings import N_TOKENS, hidden_states, numbered
from head_rivals import Found, Pairs, Setting, tuned
from heads import measure, parts_of, rows_of_part
from lm_embeddings import tokens as tokens_of
from numpy.typing import NDArray

from asv_bench.raw_results import append
from cvxnn.llm import LanguageModel, load_model

LAYERS = [0, 3, 6]  # 0 is what goes into the first layer
EPOCHS = 12
RATES = 3e-4, 3e-3
LANGUAGE_MODEL_RATES = 1e-5, 3e-5, 1e-4, 3e-4  # of some 15 times as many columns
MAX_LENGTH = 768  # tokens of prompt and response
BATCH_TOKENS = 16_384
LARGEST = 60_000.0  # that half precision holds


class Tokens(NamedTuple):
    """States of all tokens, shape ``(n_tokens, d)``, and where those of each response begin."""

    states: torch.Tensor
    start: NDArray[np.intp]

    def of(self, responses: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor]:
        """States of the tokens of responses, and the place of each token's response."""
        spans = [np.arange(self.start[k], self.start[k + 1]) for k in responses]
        place = np.repeat(np.arange(len(spans)), [len(span) for span in spans])
        rows = torch.from_numpy(np.concatenate(spans)).to(self.states.device)
        return self.states[rows].float(), torch.from_numpy(place).to(self.states.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", help="names of pairs, as of embeddings.py")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("heads.jsonl"))
    parser.add_argument("--model", help="a causal language model, as load_model takes it")
    parser.add_argument(
        "--folds", type=int, default=0, help="test all rows in so many folds of whole groups"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lm = None if arguments.model is None else load_model(arguments.model)
    rates = RATES if lm is None else LANGUAGE_MODEL_RATES
    for name in arguments.sets:
        prompts, texts, arrays = numbered(arguments.data, name)
        columns = [rows_of_part(arrays, part) for part in ("train", "test")]
        n = len(columns[0][0])
        chosen, rejected, prompt, groups = map(np.concatenate, zip(*columns, strict=True))
        group = np.unique(groups, return_inverse=True)[1]
        pairs = Pairs(chosen, rejected, prompt, group, 0)
        parts = parts_of(group, n, arguments.folds)
        if lm is None:
            tokens = read_tokens(texts)
        else:
            rows = tokens_of(lm, prompts, texts, arrays["response_prompt"], MAX_LENGTH)
            tokens = read_language_model(lm, rows)
        found = measure(partial(token_reward, tokens, rates), pairs, parts)
        n_test = sum(len(test) for _, test in parts)
        common = {"set": name, "n": len(parts[0][0]), "n_test": n_test}
        append(arguments.out, {**common, "method": "token_reward", **found})


def read_tokens(texts: list[str]) -> Tokens:
    """Standardised states of all texts in MiniLM, in half precision."""
    found: list[Any] = [None] * len(texts)
    for k, states in hidden_states(texts, None, LAYERS, slice(N_TOKENS)):
        found[k] = states.reshape(len(states), -1).astype(np.float16)
    start = np.concatenate([[0], np.cumsum([len(states) for states in found])])
    return Tokens(standardised(torch.from_numpy(np.concatenate(found))), start)


@torch.inference_mode()
def read_language_model(lm: LanguageModel, rows: list[tuple[list[int], list[int]]]) -> Tokens:
    """Standardised states of the responses in all layers, given their prompts."""
    rows = [(prompt, reply[:N_TOKENS]) for prompt, reply in rows]
    start = np.concatenate([[0], np.cumsum([len(reply) for _, reply in rows])])
    config = lm.model.config
    width = (config.num_hidden_layers + 1) * config.hidden_size
    every = torch.empty((int(start[-1]), width), dtype=torch.float16, device=lm.device)
    order = np.argsort([-len(prompt) - len(reply) for prompt, reply in rows], kind="stable")
    n_texts = max(BATCH_TOKENS // MAX_LENGTH, 1)
    for batch in np.array_split(order, -(-len(order) // n_texts)):
        texts = [torch.tensor([*rows[k][0], *rows[k][1]]) for k in batch]
        # Padding comes last, where causal attention does not see it.
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True).to(lm.device)
        states = lm.model.base_model(input_ids=ids, output_hidden_states=True).hidden_states
        for place, k in enumerate(batch):
            end = len(texts[place])
            kept = [layer[place, end - len(rows[k][1]) : end] for layer in states]
            of_text = torch.cat(kept, dim=1).clamp(-LARGEST, LARGEST)
            every[int(start[k]) : int(start[k + 1])] = of_text.to(torch.float16)
    return Tokens(standardised(every), start)


def standardised(every: torch.Tensor) -> torch.Tensor:
    """Columns with mean 0 and variance 1, in place and by blocks of rows."""
    blocks = every.split(20_000)
    mean = sum(block.sum(dim=0, dtype=torch.float32) for block in blocks) / len(every)
    variance = sum((block.float() - mean).square().sum(dim=0) for block in blocks) / len(every)
    scale = variance.sqrt()
    scale[scale == 0] = 1
    for block in blocks:
        block.copy_((block.float() - mean) / scale)
    return every


def token_reward(tokens: Tokens, rates: tuple[float, ...], train: Pairs, test: Pairs) -> Found:
    return tuned(partial(fit, tokens), {"rate": rates}, train, test)


def fit(
    tokens: Tokens, setting: Setting, seen: Pairs, unseen: Pairs
) -> dict[int, NDArray[np.floating]]:
    """Margins of the second pairs after each epoch."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(tokens.states.shape[1], 2).to(tokens.states.device)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=setting["rate"], weight_decay=1.0)
    margins = {}
    for epoch in range(1, setting.get("step", EPOCHS) + 1):
        for batch in torch.randperm(len(seen.chosen)).split(64):
            rows = batch.numpy()
            won, lost = (reward(layer, tokens, part[rows]) for part in seen[:2])
            optimiser.zero_grad()
            torch.nn.functional.softplus(lost - won).mean().backward()
            optimiser.step()
        with torch.inference_mode():
            unique, place = np.unique([unseen.chosen, unseen.rejected], return_inverse=True)
            parts = np.array_split(unique, max(len(unique) // 64, 1))
            scores = np.concatenate([reward(layer, tokens, part).cpu().numpy() for part in parts])
            margins[epoch] = -np.diff(scores[place.reshape(2, -1)], axis=0)[0]
    return margins


def reward(layer: torch.nn.Module, tokens: Tokens, responses: NDArray[np.intp]) -> torch.Tensor:
    """Mean of the tokens' rewards, weighted by their gates."""
    states, place = tokens.of(responses)
    value, logit = layer(states).T
    gate = torch.sigmoid(logit)
    zeros = torch.zeros(len(responses), device=place.device)
    total = zeros.index_add(0, place, gate * value)
    return total / zeros.index_add(0, place, gate)


if __name__ == "__main__":
    main()
