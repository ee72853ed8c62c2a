"""One counter for every method: floating-point operations, memory and time, phase by phase.

A multiplication and an addition count as two operations. Products of matrices, convolutions and
attention are counted, forward and backward; elementwise work, which is small beside them, is not.
Attention counts all its scores, masked or not.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cvxnn._extras import require

_SAMPLE_EVERY = 0.01  # seconds between two looks at the resident memory
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Cost:
    """What a phase has cost so far.

    Attributes
    ----------
    flops : int
        Floating-point operations.
    seconds, cpu_seconds : float
        Time on the clock, and of all threads of this process together.
    peak_bytes : int
        Largest resident memory of the process, libraries included.
    added_bytes : int
        Largest growth of it while the phase ran, from where it began.
    device_peak_bytes : int
        Largest memory of tensors on the GPUs; 0 without one.
    """

    flops: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    added_bytes: int = 0
    device_peak_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Both, one after the other: amounts add up, peaks are the larger one."""
        return Cost(
            self.flops + other.flops,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_bytes, other.peak_bytes),
            max(self.added_bytes, other.added_bytes),
            max(self.device_peak_bytes, other.device_peak_bytes),
        )


class CostMeter:
    """Costs of named phases, each of which may be entered as often as one likes.

    Operations of torch in the thread that entered the phase are counted as they run; solvers know
    their own (``flops_``, ``phase2_flops_``) and are added by `add_flops`. A phase inside another
    has its costs to itself: every operation and every second belongs to the innermost phase.

    Parameters
    ----------
    costs : mapping of str to Cost, optional
        Where to go on from.

    Attributes
    ----------
    costs : dict of str to Cost
        In the order in which the phases began. A phase that is running is in it up to the last
        time another one began or ended in it.

    Notes
    -----
    The peak of tensors on a GPU is per phase because CUDA's own counter
    (``torch.cuda.max_memory_allocated``) is reset when a phase begins; nothing else is changed,
    and nothing is left behind. Counting takes about 0.1 ms for each operation of torch: half as
    much again as a pass over 64 tokens of SmolLM2-135M on a CPU, little beside one over hundreds.

    Examples
    --------
    >>> meter = CostMeter()
    >>> with meter.phase("phase I"):
    ...     meter.add_flops("phase I", 2e9)
    >>> meter["phase I"].flops
    2000000000
    """

    def __init__(self, costs: Mapping[str, Cost] | None = None) -> None:
        self.costs: dict[str, Cost] = dict(costs or {})
        self._stack: list[str] = []
        self._watch: _Watch | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[CostMeter]:
        """Scope whose costs are those of a phase, also where it ends in an error.

        Parameters
        ----------
        name : str
            Any; ``"embed"``, ``"phase I"``, ``"phase II"``, ``"reference"`` and ``"train"`` are
            what reports look for.
        """
        with nullcontext() if self._watch is not None else self._watching():
            self._settle()
            self.costs.setdefault(name, Cost())
            self._stack.append(name)
            try:
                yield self
            finally:
                self._settle()
                self._stack.pop()

    def add_flops(self, name: str, flops: float) -> None:
        """Add operations that were counted elsewhere.

        Raises
        ------
        ValueError
            If they are negative or not finite.
        """
        if not 0 <= flops < float("inf"):
            raise ValueError(f"flops is {flops!r}; expected a finite number of at least 0")
        self.costs[name] = self.costs.get(name, Cost()) + Cost(round(flops))

    def __getitem__(self, name: str) -> Cost:
        """Cost of a phase."""
        if name not in self.costs:
            raise KeyError(f"no phase {name!r}; there are {list(self.costs)}")
        return self.costs[name]

    @property
    def total(self) -> Cost:
        """Cost of all phases."""
        return sum(self.costs.values(), Cost())

    def merge(self, other: CostMeter) -> CostMeter:
        """A meter with the costs of two, as if one had run after the other."""
        costs = dict(self.costs)
        for name, cost in other.costs.items():
            costs[name] = costs.get(name, Cost()) + cost
        return CostMeter(costs)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Plain data, for JSON."""
        return {name: asdict(cost) for name, cost in self.costs.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, float]]) -> CostMeter:
        """Go on from what `to_dict` gave.

        Raises
        ------
        ValueError
            If the data are something else.
        """
        names = {field.name for field in fields(Cost)}
        costs = {}
        for name, cost in data.items():
            if not isinstance(cost, Mapping) or set(cost) != names:
                raise ValueError(
                    f"costs of phase {name!r} are {cost!r:.100}; expected {sorted(names)}, as "
                    "CostMeter.to_dict gives them"
                )
            costs[name] = Cost(**cost)  # type: ignore[arg-type]
        return cls(costs)

    def __str__(self) -> str:
        """Table with a line for each phase."""
        rows = [*self.costs.items(), *([("total", self.total)] if len(self.costs) > 1 else [])]
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(
            f"{name:<{width}}  {cost.flops:9.3g} FLOPs  {cost.seconds:8.1f} s  "
            f"{max(cost.peak_bytes, cost.device_peak_bytes) / 2**30:6.2f} GiB"
            for name, cost in rows
        )

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with _Watch() as self._watch:
            try:
                yield
            finally:
                self._watch = None

    def _settle(self) -> None:
        """Charge what there was since the last time to the innermost phase."""
        assert self._watch is not None
        cost = self._watch.take()
        if self._stack:
            name = self._stack[-1]
            self.costs[name] = self.costs[name] + cost


class _Watch(AbstractContextManager["_Watch"]):
    """Everything that is looked at while a phase runs."""

    def __enter__(self) -> _Watch:
        self._counter: Any = _torch_counter()
        if self._counter is not None:
            self._counter.__enter__()
        self._memory = _PeakMemory()
        self._mark()
        return self

    def __exit__(self, *error: Any) -> None:
        self._memory.close()
        if self._counter is not None:
            self._counter.__exit__(*error)

    def take(self) -> Cost:
        """Cost since the last call, or since the start."""
        before, start = self._before, self._resident
        peak, device = self._memory.take(), _device_peak()
        self._mark()
        flops, seconds, cpu = (new - old for new, old in zip(self._before, before, strict=True))
        return Cost(int(flops), seconds, cpu, peak, max(peak - start, 0), device)

    def _mark(self) -> None:
        flops = self._counter.flops if self._counter is not None else 0
        _device_reset()
        self._resident = _resident()
        self._before = (flops, time.perf_counter(), time.process_time())


class _PeakMemory:
    """Largest resident memory, by looking every few milliseconds.

    What is missed between two looks is known wherever it is the largest ever of the process.
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
        """Largest since the last call."""
        ever = _largest_ever()
        peak = max(self._peak, _resident(), ever if ever > self._ever else 0)
        self._peak, self._ever = 0, ever
        return peak

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def _resident() -> int:
    """Resident memory of this process in bytes, or the largest ever where only that is known."""
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
    """``torch.cuda`` where it is in use, else None."""
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


def _torch_counter() -> Any:
    """Counter of torch's operations, or None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch = require("torch", extra="llm")
    module = require("torch.utils.flop_counter", extra="llm")

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        batch, heads, rows, width = query
        scores: int = 2 * batch * heads * rows * key[-2]
        return scores * (width + value[-1])

    def attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
        # Scores once more, then the slopes of weights, values, queries and keys.
        batch, heads, rows, width = query
        scores: int = 2 * batch * heads * rows * key[-2]
        return scores * (3 * width + 2 * value[-1])

    def vector_product(matrix: Any, *_: Any, **__: Any) -> int:
        rows, columns = matrix
        return 2 * int(rows) * int(columns)

    def sum_and_product(_: Any, matrix: Any, *__: Any, **___: Any) -> int:
        return vector_product(matrix)

    def inner_product(left: Any, *_: Any, **__: Any) -> int:
        return 2 * int(left[0])

    # What torch's own table leaves out; names that this version of torch lacks are skipped.
    formulas = {
        "_scaled_dot_product_flash_attention_for_cpu": attention,
        "_scaled_dot_product_flash_attention_for_cpu_backward": attention_backward,
        "_scaled_dot_product_fused_attention_overrideable": attention,
        "_scaled_dot_product_fused_attention_overrideable_backward": attention_backward,
        "mv": vector_product,
        "addmv": sum_and_product,
        "dot": inner_product,
        "vdot": inner_product,
    }
    mapping = {
        getattr(torch.ops.aten, name): formula
        for name, formula in formulas.items()
        if hasattr(torch.ops.aten, name)
    }
    # Its formulas only: the mode itself follows modules by hooks, which keep alive what a block
    # that is computed twice sets free.
    known = module.FlopCounterMode(display=False, custom_mapping=mapping).flop_registry
    base: Any = require("torch.utils._python_dispatch", extra="llm").TorchDispatchMode

    whole: set[Any] = set()  # operations that consist of no others

    class Counter(base):
        flops = 0

        def __torch_dispatch__(
            self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            formula = known.get(getattr(operation, "_overloadpacket", None))
            if formula is None and operation not in whole and hasattr(operation, "decompose"):
                with self:  # in inference mode a composite arrives undivided
                    out = operation.decompose(*args, **kwargs)
                if out is not NotImplemented:
                    return out
                whole.add(operation)
            out = operation(*args, **kwargs)
            if formula is not None:
                self.flops += formula(*args, **kwargs, out_val=out)
            return out

    return Counter()
