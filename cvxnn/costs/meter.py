"""One counter for every method: floating-point operations, memory and time, phase by phase.

A multiplication and an addition count as two operations. Products of matrices, convolutions and
attention are counted, forward and backward; elementwise operations, which are few beside them, are
not. For attention, all scores count, whether they are masked or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields

from cvxnn.costs.resources import Cost, ResourceWatch


class CostMeter:
    """Costs of named phases, each of which may be entered any number of times.

    Operations of torch in the thread that entered the phase are counted as they run, if torch was
    imported before the phase began. Solvers count their own operations (``flops_``,
    ``phase2_flops_``), which `add_flops` adds. A phase inside another one has its costs to itself:
    every operation and every second belongs to the innermost phase.

    Parameters
    ----------
    costs : mapping of str to Cost, optional
        Costs to start from; none by default.

    Attributes
    ----------
    costs : dict of str to Cost
        Cost of each phase, in the order in which the phases began. The entry of a phase that is
        running is up to date as of the last time that a phase began or ended inside it.

    Notes
    -----
    The peak of tensors on a GPU is measured for each phase, as the counter of CUDA
    (``torch.cuda.max_memory_allocated``) is reset when a phase begins; no other state is changed.
    Counting takes some time for each operation of torch, whatever its size: much beside a pass of a
    small model over a few tokens, and little beside a pass over hundreds of them.

    Examples
    --------
    >>> from cvxnn.costs import CostMeter
    >>> meter = CostMeter()
    >>> with meter.phase("phase I"):
    ...     meter.add_flops("phase I", 2e9)
    >>> meter["phase I"].flops
    2000000000
    """

    def __init__(self, costs: Mapping[str, Cost] | None = None) -> None:
        self.costs: dict[str, Cost] = dict(costs or {})
        self._stack: list[str] = []
        self._watch: ResourceWatch | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[CostMeter]:
        """Charge what runs in a block to a phase, also if the block ends in an error.

        Parameters
        ----------
        name : str
            Name of the phase, which reports show as it is. Those of cvxnn are ``"embed"``,
            ``"phase I"``, ``"phase II"``, ``"reference"``, ``"train"`` and ``"evaluate"``.

        Yields
        ------
        CostMeter
            This meter.

        Warns
        -----
        UserWarning
            If torch was imported only while the phase was running, so that its operations were not
            counted.
        """
        with nullcontext() if self._watch is not None else self._watching():
            self._charge()
            self.costs.setdefault(name, Cost())
            self._stack.append(name)
            try:
                yield self
            finally:
                self._charge()
                self._stack.pop()

    def add_flops(self, name: str, flops: float) -> None:
        """Add operations to a phase that were counted elsewhere.

        Parameters
        ----------
        name : str
            Name of the phase, which may be a new one.
        flops : float
            Number of operations, at least 0; it is rounded to an integer.

        Raises
        ------
        ValueError
            If `flops` is negative or not finite.
        """
        if not 0 <= flops < float("inf"):
            raise ValueError(f"flops is {flops!r}; expected a finite number of at least 0")
        self.costs[name] = self.costs.get(name, Cost()) + Cost(round(flops))

    def __getitem__(self, name: str) -> Cost:
        """Return the cost of a phase.

        Parameters
        ----------
        name : str
            Name of the phase.

        Returns
        -------
        Cost
            Its cost so far.

        Raises
        ------
        KeyError
            If there is no such phase; the message lists the phases.
        """
        if name not in self.costs:
            raise KeyError(f"no phase {name!r}; there are {list(self.costs)}")
        return self.costs[name]

    @property
    def total(self) -> Cost:
        """Cost of all phases together."""
        return sum(self.costs.values(), Cost())

    def merge(self, other: CostMeter) -> CostMeter:
        """Return a meter with the costs of two, as if one had run after the other.

        Parameters
        ----------
        other : CostMeter
            The meter to add. Neither of the two is changed.

        Returns
        -------
        CostMeter
            A new meter.
        """
        costs = dict(self.costs)
        for name, cost in other.costs.items():
            costs[name] = costs.get(name, Cost()) + cost
        return CostMeter(costs)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return the costs as plain data, for JSON.

        Returns
        -------
        dict of str to dict
            For each phase, the attributes of `Cost`.
        """
        return {name: asdict(cost) for name, cost in self.costs.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, float]]) -> CostMeter:
        """Make a meter that continues from the data of `to_dict`.

        Parameters
        ----------
        data : mapping of str to mapping
            What `to_dict` returned.

        Returns
        -------
        CostMeter
            A new meter with these costs.

        Raises
        ------
        ValueError
            If the data are not what `to_dict` returns.
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
        """Return a table with a line for each phase."""
        rows = [*self.costs.items(), *([("total", self.total)] if len(self.costs) > 1 else [])]
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(
            f"{name:<{width}}  {cost.flops:9.3g} FLOPs  {cost.seconds:8.1f} s  "
            f"{max(cost.peak_bytes, cost.device_peak_bytes) / 2**30:6.2f} GiB"
            for name, cost in rows
        )

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with ResourceWatch() as self._watch:
            try:
                yield
            finally:
                self._watch = None

    def _charge(self) -> None:
        """Charge what was used since the last call to the innermost phase."""
        assert self._watch is not None
        cost = self._watch.take()
        if self._stack:
            name = self._stack[-1]
            self.costs[name] = self.costs[name] + cost
