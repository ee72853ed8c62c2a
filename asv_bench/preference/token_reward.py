"""A rival of ``heads.py`` that reads every token of a response.

``python asv_bench/preference/token_reward.py mrbench --data DIR --out heads.jsonl``

One linear layer on the hidden states of a token, several layers side by side, gives the token's
reward and the logit of its gate; the reward of a response is the mean over its tokens with the
gates as weights (the form of SWIFT, Wang et al., 2025). The Bradley-Terry loss is minimised by
AdamW; learning rate and epoch are chosen in the folds of the other methods. Tokens are the first
126 of a response, in MiniLM.
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
from numpy.typing import NDArray

from asv_bench.raw_results import append

LAYERS = [0, 3, 6]  # 0 is what goes into the first layer
EPOCHS = 12


class Tokens(NamedTuple):
    """States of all tokens, shape ``(n_tokens, d)``, and where those of each response begin."""

    states: torch.Tensor
    start: NDArray[np.intp]

    def of(self, responses: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor]:
        """States of the tokens of responses, and the place of each token's response."""
        spans = [np.arange(self.start[k], self.start[k + 1]) for k in responses]
        place = np.repeat(np.arange(len(spans)), [len(span) for span in spans])
        rows = torch.from_numpy(np.concatenate(spans))
        return self.states[rows].float(), torch.from_numpy(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", help="names of pairs, as of embeddings.py")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("heads.jsonl"))
    parser.add_argument(
        "--folds", type=int, default=0, help="test all rows in so many folds of whole groups"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.sets:
        _, texts, arrays = numbered(arguments.data, name)
        columns = [rows_of_part(arrays, part) for part in ("train", "test")]
        n = len(columns[0][0])
        chosen, rejected, prompt, groups = map(np.concatenate, zip(*columns, strict=True))
        group = np.unique(groups, return_inverse=True)[1]
        pairs = Pairs(chosen, rejected, prompt, group, 0)
        parts = parts_of(group, n, arguments.folds)
        method = partial(token_reward, read_tokens(texts))
        found = measure(method, pairs, parts)
        n_test = sum(len(test) for _, test in parts)
        common = {"set": name, "n": len(parts[0][0]), "n_test": n_test}
        append(arguments.out, {**common, "method": "token_reward", **found})


def read_tokens(texts: list[str]) -> Tokens:
    """Standardised states of all texts, in half precision."""
    found: list[Any] = [None] * len(texts)
    for k, states in hidden_states(texts, None, LAYERS, slice(N_TOKENS)):
        found[k] = states.reshape(len(states), -1).astype(np.float16)
    start = np.concatenate([[0], np.cumsum([len(states) for states in found])])
    every = np.concatenate(found)
    mean, scale = every.mean(axis=0, dtype=np.float32), every.std(axis=0, dtype=np.float32)
    scale[scale == 0] = 1
    for part in np.array_split(every, 100):
        part[:] = (part - mean) / scale
    return Tokens(torch.from_numpy(every), start)


def token_reward(tokens: Tokens, train: Pairs, test: Pairs) -> Found:
    return tuned(partial(fit, tokens), {"rate": (3e-4, 3e-3)}, train, test)


def fit(
    tokens: Tokens, setting: Setting, seen: Pairs, unseen: Pairs
) -> dict[int, NDArray[np.floating]]:
    """Margins of the second pairs after each epoch."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(tokens.states.shape[1], 2)
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
            scores = np.concatenate([reward(layer, tokens, part).numpy() for part in parts])
            margins[epoch] = -np.diff(scores[place.reshape(2, -1)], axis=0)[0]
    return margins


def reward(layer: torch.nn.Module, tokens: Tokens, responses: NDArray[np.intp]) -> torch.Tensor:
    """Mean of the tokens' rewards, weighted by their gates."""
    states, place = tokens.of(responses)
    value, logit = layer(states).T
    gate = torch.sigmoid(logit)
    zeros = torch.zeros(len(responses))
    total = zeros.index_add(0, place, gate * value)
    return total / zeros.index_add(0, place, gate)


if __name__ == "__main__":
    main()
