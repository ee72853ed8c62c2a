"""Processes of one machine that embed the shards of one folder at the same time."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._progress import Progress
from cvxnn.cli.console import Console

if TYPE_CHECKING:
    from cvxnn.features.shards import Shard

_SECONDS = 1.0  # between two looks at what the workers have finished


def run_workers(
    work: Callable[[argparse.Namespace, Console], Any],
    options: argparse.Namespace,
    console: Console,
    path: Path,
    n_rows: int,
    n_workers: int,
) -> None:
    """Run a command once for each shard, in processes of their own, and wait for all.

    Each process gets its part of the cores, or its GPU where there are several, unless the
    environment says otherwise (``OMP_NUM_THREADS``). A worker that fails stops no other one.

    Parameters
    ----------
    work : callable
        Function of a module: it embeds the shard ``options.shard``.
    options : argparse.Namespace
        Parsed arguments of the command.
    console : Console
        Where to write.
    path : pathlib.Path
        File that all shards together will be.
    n_rows : int
        Number of its rows.
    n_workers : int
        Number of processes, which is that of the shards.

    Raises
    ------
    OSError
        If workers failed; the message names their shards, and the same command continues.
    """
    from cvxnn.features.shards import all_shards

    context = multiprocessing.get_context("spawn")
    shards = all_shards(n_workers)
    settings = {**vars(options), "workers": None, "overwrite": False, "quiet": True, "json": False}
    processes = {
        shard: context.Process(
            target=_run_one, args=(work, settings, shard, environment), daemon=True
        )
        for shard, environment in zip(shards, _environments(n_workers), strict=True)
    }
    for process in processes.values():
        process.start()
    with Progress("embedding", n_rows, "replies", show=not console.quiet) as bar:
        done = 0
        while running := [p.sentinel for p in processes.values() if p.exitcode is None]:
            wait(running, timeout=_SECONDS)
            now = sum(_rows_of(path, shard, n_rows) for shard in shards)
            bar.update(now - done, skipped=not done)
            done = now
    failed = [f"{shard} ({p.exitcode})" for shard, p in processes.items() if p.exitcode != 0]
    if failed:
        raise OSError(
            f"{len(failed)} of {n_workers} workers failed, those of the shards (and their exit "
            f"codes) {', '.join(failed)}; what is finished is kept, and the same command continues"
        )


def _run_one(
    work: Callable[[argparse.Namespace, Console], Any],
    settings: dict[str, Any],
    shard: Shard,
    environment: dict[str, str],
) -> None:
    """Do the work of one process; torch is imported after this, and reads the environment."""
    os.environ.update(environment)
    console = Console(quiet=True)
    try:
        with console.guard():
            work(argparse.Namespace(**{**settings, "shard": shard}), console)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        console.complain("error", f"shard {shard}: {error or type(error).__name__}")
        sys.exit(1)


def _rows_of(path: Path, shard: Shard, n_rows: int) -> int:
    """Return how many rows of a shard are finished."""
    from cvxnn.features.store import unfinished_rows

    if path.exists() or shard.path(path).exists():
        return len(shard.rows(n_rows))
    return unfinished_rows(shard.path(path))


def _environments(n_workers: int) -> list[dict[str, str]]:
    """Return what each worker has in its environment: threads, and one GPU where there are some."""
    threads = max((os.cpu_count() or 1) // n_workers, 1)
    common = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)}
    devices = _gpus()
    own = [
        {"CUDA_VISIBLE_DEVICES": devices[k % len(devices)]} if devices else {}
        for k in range(n_workers)
    ]
    return [{**common, **entry} for entry in own]


def _gpus() -> list[str]:
    """Return the names of the GPUs that this process may use."""
    import torch

    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name for name in allowed.split(",") if name]
    return [str(number) for number in range(torch.cuda.device_count())]
