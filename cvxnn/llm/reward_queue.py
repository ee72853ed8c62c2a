"""Queue of replies to score: those of several requests go through the model together."""

from __future__ import annotations

import queue
import threading
from collections import deque
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from cvxnn._progress import Progress
from cvxnn.llm.decoding.scoring import RewardHead
from cvxnn.llm.packing import Item
from cvxnn.llm.token_embeddings import TokenEmbedder


class _Job(NamedTuple):
    items: list[Item]
    rewards: Future[list[float]]


class RewardQueue:
    """Queue of replies whose rewards one thread computes, as many at once as wait.

    Parameters
    ----------
    head : RewardHead
        Fitted head.
    embedder : TokenEmbedder
        Makes the embeddings that the head was fitted to.
    max_batch : int
        Most replies that are scored together, unless one request has more.
    max_wait : float
        Seconds that the first reply waits for others.
    max_waiting : int
        Most replies that wait.
    """

    def __init__(
        self,
        head: RewardHead,
        embedder: TokenEmbedder,
        *,
        max_batch: int,
        max_wait: float,
        max_waiting: int,
    ) -> None:
        self._head = head
        self._embedder = embedder
        self._max_batch, self._max_wait, self._max_waiting = max_batch, max_wait, max_waiting
        self._jobs: deque[_Job] = deque()
        self._waiting = 0  # replies
        self._is_open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of replies that wait."""
        return self._waiting

    def submit(self, items: list[Item]) -> Future[list[float]]:
        """Let replies wait for their turn.

        Parameters
        ----------
        items : list of Item
            Tokens of the prompts and the replies.

        Returns
        -------
        Future
            It will have the reward of each reply. A future that is cancelled takes no time.

        Raises
        ------
        queue.Full
            If too many replies wait, or the queue is closed; try again later.
        """
        job = _Job(items, Future())
        with self._changed:
            if not self._is_open or self._waiting + len(items) > self._max_waiting:
                raise queue.Full
            self._jobs.append(job)
            self._waiting += len(items)
            self._changed.notify_all()
        return job.rewards

    def close(self) -> None:
        """Score what waits, and end."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        progress = Progress("embedding", None, "replies", show=False)
        while jobs := self._next():
            running = [job for job in jobs if job.rewards.set_running_or_notify_cancel()]
            if running:
                self._score(running, progress)

    def _next(self) -> list[_Job]:
        """Return the jobs of the next batch; none if the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or not self._is_open)
            self._changed.wait_for(
                lambda: self._waiting >= self._max_batch or not self._is_open, self._max_wait
            )
            taken: list[_Job] = []
            n = 0
            while self._jobs and (not taken or n + len(self._jobs[0].items) <= self._max_batch):
                taken.append(self._jobs.popleft())
                n += len(taken[-1].items)
            self._waiting -= n
            return taken

    def _score(self, jobs: list[_Job], progress: Progress) -> None:
        try:
            X = self._embedder.embed([item for job in jobs for item in job.items], progress)
            rewards = np.asarray(self._head.reward(X), float).tolist()
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].rewards.set_exception(error)
                return
            for job in jobs:  # one of them is at fault: the others are answered
                self._score([job], progress)
            return
        for job in jobs:
            job.rewards.set_result(rewards[: len(job.items)])
            del rewards[: len(job.items)]
