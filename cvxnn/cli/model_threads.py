"""Threads of a command that runs a language model."""

from __future__ import annotations

import os
from pathlib import Path

from cvxnn.cli.console import Console


def choose_threads(console: Console) -> None:
    """Leave busy cores to other programs, since threads that wait for each other are slow.

    Parameters
    ----------
    console : Console
        Where to say how many threads are left.
    """
    import torch

    if "OMP_NUM_THREADS" in os.environ or not hasattr(os, "getloadavg"):
        return
    most, allowed = torch.get_num_threads(), cores_allowed()
    free = round((os.cpu_count() or 1) - os.getloadavg()[0])
    n_threads = max(min(most, allowed, free), 1)
    if n_threads < most:
        torch.set_num_threads(n_threads)
        reason = "this container may use no more cores"
        if free < allowed:
            reason = "other programs keep cores busy"
        console.progress(
            f"threads   {n_threads} of {most}, since {reason} (OMP_NUM_THREADS decides)"
        )


def cores_allowed(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use.

    Parameters
    ----------
    limit : pathlib.Path, default=/sys/fs/cgroup/cpu.max
        File with the limit of a container: microseconds of processor time in a period, or ``max``.

    Returns
    -------
    int
        At least 1: the cores that the process may run on, or fewer by the limit.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = limit.read_text("ascii").split()
        return min(cores, max(round(int(quota) / int(period)), 1))
    except (OSError, ValueError):  # no limit
        return cores
