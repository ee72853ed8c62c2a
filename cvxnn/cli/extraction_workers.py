"""Workers of "cvxnn extract": processes of one machine, or actors of Ray, that embed shards."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._extras import require
from cvxnn._progress import Progress
from cvxnn.cli.console import Console
from cvxnn.cli.extraction_engines import embedder_from, is_endpoint
from cvxnn.cli.inputs import pairs_of

if TYPE_CHECKING:
    from cvxnn.features.extraction import PairEmbedder
    from cvxnn.features.shards import Shard

_SECONDS = 1.0  # between two looks at what the workers have finished
_SHARDS_OF_ACTOR = 4  # so that a slow machine of a cluster does less than a fast one


class ShardWorker:
    """Worker that embeds one shard after another, and loads the model once.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments of the command.
    console : Console
        Where to write.
    """

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options = options
        self.console = console
        self.pairs = pairs_of(options, console, options.data)
        self.embedder: PairEmbedder | None = None

    def embed(self, shard: Shard) -> int:
        """Embed a shard, or what is missing of it.

        Parameters
        ----------
        shard : Shard
            The shard.

        Returns
        -------
        int
            Number of its embeddings.
        """
        from cvxnn.features.extraction import extract_shard
        from cvxnn.features.pairs import ROWS

        rows = shard.rows(2 * len(self.pairs))
        if self.embedder is None:
            self.embedder = embedder_from(self.options, self.console)
        folder = Path(self.options.output)
        path, embedder = shard.path(folder / ROWS), self.embedder
        self.console.kept = lambda: kept_of(path, embedder, len(rows))
        return extract_shard(embedder, self.pairs, folder, shard)


def kept_of(path: Path, embedder: PairEmbedder, n_rows: int) -> str:
    """Say what an interruption has left of a file.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    embedder : PairEmbedder
        What computed its embeddings.
    n_rows : int
        Number of rows that it will have.

    Returns
    -------
    str
        A sentence without its end.
    """
    from cvxnn.features.writer import unfinished_rows

    rows = unfinished_rows(path)
    if path.with_name(f"{path.name}.part.block").exists():
        from cvxnn.llm.block_journal import kept_rows

        rows = kept_rows(path, embedder.description["width"])
    if not rows:
        return "nothing was kept; the same command begins again"
    return f"{rows} of {n_rows} embeddings are kept; the same command continues"


def run_processes(
    options: argparse.Namespace,
    console: Console,
    path: Path,
    n_rows: int,
    shards: Sequence[Shard],
) -> None:
    """Embed shards in processes of this machine, and wait for all.

    Each process gets its part of the cores, or its GPU where there are several, unless the
    environment says otherwise (``OMP_NUM_THREADS``). A worker that fails stops no other one.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments of the command, with ``workers``.
    console : Console
        Where to write.
    path : pathlib.Path
        File that all shards together will be.
    n_rows : int
        Number of its rows.
    shards : sequence of Shard
        All shards.

    Raises
    ------
    OSError
        If workers failed; the message has their exit codes, and the same command continues.
    """
    n_workers = min(options.workers, len(shards))
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(
            target=_run_process, args=(vars(options), shards[k::n_workers], own), daemon=True
        )
        for k, own in enumerate(_environments(options, n_workers))
    ]
    for process in processes:
        process.start()
    with Progress("embedding", n_rows, "replies", show=not console.quiet) as bar:
        done = 0
        while running := [p.sentinel for p in processes if p.exitcode is None]:
            wait(running, timeout=_SECONDS)
            now = sum(_rows_of(path, shard, n_rows) for shard in shards)
            bar.update(now - done, skipped=not done)
            done = now
    failed = [p.exitcode for p in processes if p.exitcode != 0]
    if failed:
        raise OSError(
            f"{len(failed)} of {n_workers} workers failed (exit codes {failed}); what is finished "
            "is kept, and the same command continues"
        )


def run_on_ray(options: argparse.Namespace, console: Console, shards: Sequence[Shard]) -> None:
    """Embed shards in a pool of actors of Ray Data, on all machines of a cluster.

    Each actor takes a GPU where the cluster has as many. Ray gives the shard of an actor that dies
    to another one, which continues it.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments of the command, with ``workers``; its folder is common to all machines.
    console : Console
        Where to write.
    shards : sequence of Shard
        All shards.

    Raises
    ------
    ImportError
        If Ray is missing; the message names the extra.
    """
    ray, data = require("ray", extra="ray"), require("ray.data", extra="ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=not console.quiet)
    n_workers = min(options.workers, len(shards))
    gpus = ray.cluster_resources().get("GPU", 0) >= n_workers and not is_endpoint(options)
    items = [{"number": shard.number} for shard in shards]
    # One block for each: to repartition them, Ray would need a CPU that no actor has taken.
    done = data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Actor,
        fn_constructor_args=(vars(options), shards[0].total),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=n_workers),
        num_gpus=1 if gpus else 0,
        num_cpus=0 if gpus else 1,
    )
    for row in done.iter_rows():
        console.progress(f"shard     {row['number']}/{shards[0].total}, {row['rows']} embeddings")


def n_shards_for(options: argparse.Namespace, n_blocks: int) -> int:
    """Return into how many shards the work of several workers is cut.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    n_blocks : int
        Number of blocks of all embeddings.

    Returns
    -------
    int
        Their number, at least 1.
    """
    n_workers = (options.workers or 1) * (_SHARDS_OF_ACTOR if options.ray else 1)
    return min(n_workers, n_blocks)


class _Actor:
    """Worker in an actor of Ray Data."""

    def __init__(self, settings: dict[str, Any], total: int) -> None:
        self._worker = ShardWorker(argparse.Namespace(**settings), Console(quiet=True))
        self._total = total

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        from cvxnn.features.shards import Shard

        numbers = [int(number) for number in batch["number"]]
        rows = [self._worker.embed(Shard(number, self._total)) for number in numbers]
        return {"number": numbers, "rows": rows}


def _run_process(
    settings: dict[str, Any], shards: Sequence[Shard], environment: dict[str, str]
) -> None:
    """Do the work of one process; torch is imported after this, and reads the environment."""
    os.environ.update(environment)
    console = Console(quiet=True)
    try:
        with console.guard():
            worker = ShardWorker(argparse.Namespace(**settings), console)
            for shard in shards:
                worker.embed(shard)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        console.complain("error", f"worker of shard {shards[0]}: {error or type(error).__name__}")
        sys.exit(1)


def _rows_of(path: Path, shard: Shard, n_rows: int) -> int:
    """Return how many rows of a shard are finished."""
    from cvxnn.features.writer import unfinished_rows

    if path.exists() or shard.path(path).exists():
        return len(shard.rows(n_rows))
    return unfinished_rows(shard.path(path))


def _environments(options: argparse.Namespace, n_workers: int) -> list[dict[str, str]]:
    """Return what each worker has in its environment: threads, and one GPU where there are some."""
    threads = max((os.cpu_count() or 1) // n_workers, 1)
    common = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)}
    gpus = [] if is_endpoint(options) else _gpus()
    own = [{"CUDA_VISIBLE_DEVICES": gpus[k % len(gpus)]} if gpus else {} for k in range(n_workers)]
    return [{**common, **entry} for entry in own]


def _gpus() -> list[str]:
    """Return the names of the GPUs that this process may use."""
    import torch

    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name for name in allowed.split(",") if name]
    return [str(number) for number in range(torch.cuda.device_count())]
