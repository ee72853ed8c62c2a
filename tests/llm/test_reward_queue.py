"""The queue of replies, with a model and a head that only count."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cvxnn.llm.packing import Item
from cvxnn.llm.reward_queue import RewardQueue

PATIENCE = 30.0


class Model:
    """It embeds a reply as its first token, when it is let; a token of -1 it cannot embed."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_run = threading.Event()
        self.began = threading.Event()

    def embed(self, items: list[Item], bar: Any) -> np.ndarray:
        first = [int(item.tokens[0]) for item in items]
        self.batches.append(first)
        self.began.set()
        assert self.may_run.wait(PATIENCE)
        if -1 in first:
            raise ValueError("an embedding is not finite")
        return np.array(first, float)[:, None]

    def reward(self, X: np.ndarray) -> np.ndarray:
        return 10 * X[:, 0]


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.may_run.set()


def opened(model: Any, **options: Any) -> RewardQueue:
    return RewardQueue(model, model, **{"max_batch": 4, "max_wait": 0, "max_waiting": 9, **options})


def submit(rewards: RewardQueue, *tokens: int) -> Future[list[float]]:
    return rewards.submit([Item(np.array([token]), 0) for token in tokens])


def busy(model: Model, **options: Any) -> tuple[RewardQueue, Future[list[float]]]:
    """A queue whose model works on the reply 0."""
    rewards = opened(model, **options)
    first = submit(rewards, 0)
    assert model.began.wait(PATIENCE)
    return rewards, first


def test_replies_that_wait_are_scored_together(model: Model) -> None:
    rewards, first = busy(model)
    rest = [submit(rewards, *tokens) for tokens in ([1, 2], [3], [4, 5], [6])]
    assert rewards.waiting == 6
    model.may_run.set()
    found = [future.result(PATIENCE) for future in (first, *rest)]
    assert found == [[0], [10, 20], [30], [40, 50], [60]]
    assert model.batches == [[0], [1, 2, 3], [4, 5, 6]]
    assert rewards.waiting == 0


def test_a_request_larger_than_a_batch_is_one_batch(model: Model) -> None:
    rewards, _ = busy(model)
    found = submit(rewards, *range(1, 7)), submit(rewards, 7)
    model.may_run.set()
    assert found[1].result(PATIENCE) == [70]
    assert model.batches == [[0], [1, 2, 3, 4, 5, 6], [7]]


def test_the_first_waits_for_others(model: Model) -> None:
    model.may_run.set()
    rewards = opened(model, max_wait=PATIENCE, max_batch=2)
    first = submit(rewards, 1)
    time.sleep(0.01)
    assert not model.batches
    submit(rewards, 2)  # the batch is full, so that the time does not matter
    assert first.result(PATIENCE) == [10]
    assert model.batches == [[1, 2]]


def test_what_cannot_be_scored_costs_its_own_request_only(model: Model) -> None:
    rewards, _ = busy(model)
    good, bad, other = (submit(rewards, token) for token in (1, -1, 2))
    model.may_run.set()
    assert (good.result(PATIENCE), other.result(PATIENCE)) == ([10], [20])
    with pytest.raises(ValueError, match="not finite"):
        bad.result(PATIENCE)
    assert submit(rewards, 3).result(PATIENCE) == [30]


def test_too_many_replies_are_refused_and_cancelled_ones_left_out(model: Model) -> None:
    rewards, _ = busy(model, max_waiting=3)
    gone, kept = submit(rewards, 1, 2), submit(rewards, 3)
    with pytest.raises(queue.Full):
        submit(rewards, 4)
    gone.cancel()
    model.may_run.set()
    assert kept.result(PATIENCE) == [30]
    assert model.batches == [[0], [3]]


def test_to_close_is_to_finish(model: Model) -> None:
    rewards, first = busy(model)
    second = submit(rewards, 1)
    closing = threading.Thread(target=rewards.close)
    closing.start()
    wait_until(lambda: _is_refused(rewards))
    model.may_run.set()
    closing.join(PATIENCE)
    assert (first.result(0), second.result(0)) == ([0], [10])


def _is_refused(rewards: RewardQueue) -> bool:
    try:
        submit(rewards, 1).cancel()
    except queue.Full:
        return True
    return False


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)
