"""The rival: the same two-layer ReLU network, trained by torch's AdamW."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LOSSES = ("squared", "logistic")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


class Run(NamedTuple):
    """One training.

    ``scores`` and ``last_scores`` are logits of the test rows at the epoch of the best validation
    accuracy and at the last one; ``seconds`` leave out the evaluations of test rows.
    """

    scores: NDArray[np.float32]
    last_scores: NDArray[np.float32]
    validation: float
    epoch: int
    cpu_s: float
    wall_s: float


def train(
    X: NDArray[np.float32],
    y: NDArray[np.integer],
    X_test: NDArray[np.float32],
    held_out: NDArray[np.bool_],
    *,
    n_neurons: int,
    loss: str,
    rate: float,
    epochs: int,
    seed: int,
    batch: int = 128,
) -> Run:
    """Train on rows that are not ``held_out``, which choose the epoch; weight decay as by default.

    Where none is held out, the last epoch is taken.

    Features are standardised as cvxnn does it. ``y`` is 0 or 1; ``"squared"`` is the squared loss
    on -1 and 1.
    """
    import torch

    torch.manual_seed(seed)
    wall, cpu = time.perf_counter(), time.process_time()
    mean, scale = X[~held_out].mean(axis=0), X[~held_out].std(axis=0)
    scale = np.where(scale > 0, scale, 1)
    signs = torch.from_numpy(np.where(y == 1, 1, -1).astype(np.float32))
    rows, test = (torch.from_numpy((part - mean) / scale) for part in (X, X_test))
    seen, unseen = (torch.from_numpy(np.flatnonzero(part)) for part in (~held_out, held_out))
    network = torch.nn.Sequential(
        torch.nn.Linear(X.shape[1], n_neurons), torch.nn.ReLU(), torch.nn.Linear(n_neurons, 1)
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    best, chosen, epoch_of_best = -1.0, None, 0
    spent_on_tests = np.zeros(2)
    for epoch in range(1, epochs + 1):
        for part in seen[torch.randperm(len(seen))].split(batch):
            logits, target = network(rows[part])[:, 0], signs[part]
            optimiser.zero_grad()
            value: Any
            if loss == "squared":
                value = torch.nn.functional.mse_loss(logits, target)
            else:
                value = torch.nn.functional.softplus(-target * logits).mean()
            value.backward()
            optimiser.step()
        with torch.no_grad():
            right = (network(rows[unseen])[:, 0] > 0) == (signs[unseen] > 0)
            accuracy = float(right.float().mean()) if len(unseen) else float(epoch == epochs)
            if accuracy > best and (len(unseen) or epoch == epochs):
                best, epoch_of_best = accuracy, epoch
                before = np.array([time.perf_counter(), time.process_time()])
                chosen = network(test)[:, 0].numpy()
                spent_on_tests += np.array([time.perf_counter(), time.process_time()]) - before
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    with torch.no_grad():
        last = network(test)[:, 0].numpy()
    assert chosen is not None
    return Run(chosen, last, best, epoch_of_best, cpu - spent_on_tests[1], wall - spent_on_tests[0])
