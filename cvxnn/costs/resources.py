"""Time, memory and operations that a process uses, read while a phase runs."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvxnn._messages import warn

_SAMPLE_EVERY = 0.01  # seconds between two readings of the resident memory
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Cost:
    """Cost of a phase, or of a part of one.

    Attributes
    ----------
    flops : int, default=0
        Floating-point operations.
    seconds : float, default=0.0
        Time on the clock.
    cpu_seconds : float, default=0.0
        Processor time of all threads of this process together.
    peak_bytes : int, default=0
        Largest resident memory of the process, libraries included.
    added_bytes : int, default=0
        Largest growth of the resident memory while the phase ran, from where it began.
    device_peak_bytes : int, default=0
        Largest memory of tensors on the GPUs; 0 without one.
    """

    flops: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    added_bytes: int = 0
    device_peak_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of both, one after the other: amounts add up, the larger peak counts.

        Parameters
        ----------
        other : Cost
            The cost to add.

        Returns
        -------
        Cost
            The cost of both.
        """
        return Cost(
            self.flops + other.flops,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_bytes, other.peak_bytes),
            max(self.added_bytes, other.added_bytes),
            max(self.device_peak_bytes, other.device_peak_bytes),
        )


class ResourceWatch(AbstractContextManager["ResourceWatch"]):
    """Context in which the resources of the process are watched.

    Operations of torch are counted if torch has been imported when the context is entered: cvxnn
    itself does not import it, as many methods run without it.
    """

    def __enter__(self) -> ResourceWatch:
        """Begin to watch."""
        self._counter: Any = None
        if sys.modules.get("torch") is not None:
            from cvxnn.costs.operations import OperationCounter

            self._counter = OperationCounter()
            self._counter.__enter__()
        self._memory = _PeakMemory()
        self._read()
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop watching.

        Parameters
        ----------
        *error : object
            Type, value and traceback of an exception; all None without one.
        """
        self._memory.close()
        if self._counter is not None:
            self._counter.__exit__(*error)
        elif sys.modules.get("torch") is not None and error[0] is None:
            warn(
                "torch was imported while a phase was running, so the operations of torch in this "
                "phase were not counted; import torch (or load the model) before the phase begins",
            )

    def take(self) -> Cost:
        """Return the cost since the last call, or since the start.

        Returns
        -------
        Cost
            Amounts since then, and peaks since then.
        """
        before, start = self._before, self._resident
        peak, device = self._memory.take(), _device_peak()
        self._read()
        flops, seconds, cpu = (new - old for new, old in zip(self._before, before, strict=True))
        return Cost(int(flops), seconds, cpu, peak, max(peak - start, 0), device)

    def _read(self) -> None:
        flops = self._counter.flops if self._counter is not None else 0
        _device_reset()
        self._resident = _resident()
        self._before = (flops, time.perf_counter(), time.process_time())


class _PeakMemory:
    """Largest resident memory, read every ten milliseconds.

    A peak between two readings is seen only if it is the largest in the life of the process, which
    the operating system records.
    """

    def __init__(self) -> None:
        self._peak, self._ever = 0, _largest_ever()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="cvxnn-memory")
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY):
            self._peak = max(self._peak, _resident())

    def take(self) -> int:
        """Return the largest resident memory since the last call, in bytes."""
        ever = _largest_ever()
        peak = max(self._peak, _resident(), ever if ever > self._ever else 0)
        self._peak, self._ever = 0, ever
        return peak

    def close(self) -> None:
        """End the thread that reads the memory."""
        self._over.set()
        self._thread.join()


def _resident() -> int:
    """Return the resident memory in bytes, or the largest ever where only that is known."""
    if _STATM.exists():
        import resource

        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    return _largest_ever()


def _largest_ever() -> int:
    if importlib.util.find_spec("resource") is None:  # Windows
        return 0
    import resource

    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _cuda() -> Any:
    """Return ``torch.cuda`` where it is in use, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _device_peak() -> int:
    cuda = _cuda()
    if cuda is None:
        return 0
    cuda.synchronize()
    return sum(cuda.max_memory_allocated(i) for i in range(cuda.device_count()))


def _device_reset() -> None:
    cuda = _cuda()
    for i in range(cuda.device_count() if cuda is not None else 0):
        cuda.reset_peak_memory_stats(i)
