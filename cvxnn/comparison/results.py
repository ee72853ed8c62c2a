"""What a comparison found: one row a method, as data, as JSON and as sentences."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._files import read_json, write_json
from cvxnn.preference.metrics import pair_accuracy

if TYPE_CHECKING:
    from cvxnn.costs.resources import Cost

_NAMES = {"coala": "COALA", "linear": "linear head", "simpo": "SimPO", "ipo": "IPO"}
_TOLD = 2.0  # standard errors that a difference needs to be called one


@dataclass(frozen=True)
class MethodResult:
    """One method on the pairs that all methods saw.

    Parameters
    ----------
    method : str
        Its name: ``"coala"``, ``"linear"``, ``"dpo"``, ...
    accuracy, standard_error : float
        Share of held-out pairs ranked right by the reward, which for a fine-tuned model is the
        implied one; the error counts pairs of one group as one.
    train_accuracy : float
        The same on the training pairs.
    metrics : dict of str to float
        Held-out ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins``,
        ``rewards/accuracies``.
    margins : list of float
        Reward margin of each held-out pair.
    history : dict of str to list
        ``step`` and the course of TRL's metrics; names with ``eval_`` are of held-out pairs. None
        where a step was not measured.
    step_name : str
        What a step is.
    flops, seconds : dict of str to float
        Cost of each phase of training.
    peak_memory : float or None
        Bytes: of tensors on the GPU where one is used, else of the process.
    certificate : dict of str to dict
        Objective, lower bound and gap of each convex program.
    settings : dict
        All that the result depends on, beside model and data.
    """

    method: str
    accuracy: float
    standard_error: float | None
    train_accuracy: float
    metrics: dict[str, float]
    margins: list[float]
    history: dict[str, list[float | None]] = field(default_factory=dict)
    step_name: str = "step"
    flops: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: float | None = None
    certificate: dict[str, dict[str, float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def total_flops(self) -> float:
        """Floating-point operations of all phases."""
        return sum(self.flops.values())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MethodResult:
        """Result of ``dataclasses.asdict``, or of JSON; unknown entries are left out."""
        names = {entry.name for entry in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})


@dataclass(frozen=True)
class Comparison:
    """Methods on the same pairs; see `cvxnn.comparison.compare`.

    Parameters
    ----------
    model : dict
        ``name``, ``parameters``, ``dtype``, ``fingerprint``.
    data : dict
        ``training_pairs``, ``held_out_pairs``, ``held_out_groups`` and digests of the pairs.
    settings : dict
        What all methods have in common.
    baselines : dict of str to dict
        ``accuracy`` and ``standard_error`` of rules that learn nothing.
    results : sequence of MethodResult
        One a method, in the order asked for.
    groups : list of str
        Group of each held-out pair.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    baselines: dict[str, dict[str, Any]]
    results: Sequence[MethodResult]
    groups: Sequence[str]

    def get(self, method: str) -> MethodResult | None:
        """The result of a method, None if it was not asked for."""
        return next((result for result in self.results if result.method == method), None)

    def flops_ratio(self, method: str, reference: str = "dpo") -> float | None:
        """FLOPs of a method as a part of those of another; None if one was not counted."""
        one, other = self.get(method), self.get(reference)
        if one is None or other is None or not one.total_flops or not other.total_flops:
            return None
        return one.total_flops / other.total_flops

    def difference(self, method: str, reference: str) -> tuple[float, float]:
        """Accuracy of a method less that of another on the same pairs, and its standard error.

        Raises
        ------
        KeyError
            If one of them was not compared.
        """
        hits = []
        for name in (method, reference):
            result = self.get(name)
            if result is None:
                raise KeyError(f"{name} was not compared; there are {self.methods}")
            hits.append(_hits(result.margins))
        return mean_and_error(hits[0] - hits[1], self.groups)

    @property
    def methods(self) -> list[str]:
        """Names of the methods."""
        return [result.method for result in self.results]

    def conclusions(self) -> list[str]:
        """What the numbers say, in plain sentences; where COALA falls short, they say so."""
        sentences = []
        for result in self.results:
            for name, baseline in self.baselines.items():
                if result.accuracy <= baseline["accuracy"]:
                    sentences.append(
                        f"{name_of(result.method)} does not beat the rule “{name}” "
                        f"({result.accuracy:.3f} against {baseline['accuracy']:.3f})."
                    )
        if self.get("coala") is None:
            return sentences
        for reference in self.methods:
            if reference == "coala":
                continue
            value, error = self.difference("coala", reference)
            if not abs(value) > _TOLD * error or value == 0:  # the error may be NaN
                verdict = "and {} differ by less than these held-out pairs can tell"
            elif value > 0:
                verdict = "ranks more held-out pairs right than {}"
            else:
                verdict = "falls short of {}"
            ratio = self.flops_ratio("coala", reference)
            cost = "" if ratio is None else f", with {ratio_text(ratio)} times its FLOPs"
            sentences.append(
                f"COALA {verdict.format(name_of(reference))}: "
                f"{estimate_text(value, error, sign='+')} in pair accuracy{cost}."
            )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "conclusions": self.conclusions()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """What `to_dict` gave.

        Raises
        ------
        ValueError
            If entries are missing.
        """
        try:
            rest = {entry.name: values[entry.name] for entry in fields(cls)}
            rest["results"] = tuple(map(MethodResult.from_dict, rest["results"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"no comparison ({error}); expected the file that cvxnn compare wrote"
            ) from error
        return cls(**rest)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that `read` reads."""
        write_json(path, self.to_dict())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read what `write` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it holds something else.
        """
        try:
            return cls.from_dict(read_json(path))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    def __str__(self) -> str:
        """A table of plain text; FLOPs beside those of DPO where that is a method."""
        with_dpo = self.get("dpo") is not None
        head = ["method", "held out", "train", "margin", "FLOPs"]
        head += ["× DPO's"] if with_dpo else []
        rows = [[*head, "memory", "time"]]
        for result in self.results:
            row = [
                name_of(result.method),
                estimate_text(result.accuracy, result.standard_error),
                f"{result.train_accuracy:.3f}",
                f"{result.metrics['rewards/margins']:.3g}",
                count_text(result.total_flops),
            ]
            row += [ratio_text(self.flops_ratio(result.method))] if with_dpo else []
            time = seconds_text(sum(result.seconds.values()))
            rows.append([*row, bytes_text(result.peak_memory), time])
        for name, baseline in self.baselines.items():
            rows.append([name, estimate_text(baseline["accuracy"], baseline["standard_error"])])
        widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=False))
            ).rstrip()
            for row in rows
        )


def accuracy_and_error(margins: ArrayLike, groups: Sequence[str]) -> tuple[float, float]:
    """Pair accuracy (a tie counts half) and its standard error over groups of pairs."""
    return pair_accuracy(margins), mean_and_error(_hits(margins), groups)[1]


def mean_and_error(values: NDArray[np.floating], groups: Sequence[str]) -> tuple[float, float]:
    """Mean, and its standard error if the groups were drawn independently.

    Pairs of one conversation are alike: they are summed before their spread is taken. With one
    pair a group this is the usual error. It is NaN for a single group, which tells nothing of it.
    """
    if len(values) != len(groups):
        raise ValueError(f"{len(values)} values for {len(groups)} groups; expected one for each")
    mean = float(np.mean(values))
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    totals = np.bincount(codes, weights=values - mean)
    n_groups = len(totals)
    if n_groups == 1:
        return mean, float("nan")
    variance = n_groups / (n_groups - 1) * np.sum(totals**2)
    return mean, float(np.sqrt(variance) / len(values))


def peak_memory(cost: Cost) -> float:
    """Bytes of tensors on the GPU, or of the whole process without one."""
    return float(cost.device_peak_bytes or cost.peak_bytes)


def name_of(method: str) -> str:
    """Name of a method as its authors write it."""
    return _NAMES.get(method, method.upper())


def estimate_text(value: float, error: float | None, sign: str = "") -> str:
    """A share with its standard error, if that is known: "0.712 ± 0.031"."""
    known = error is not None and np.isfinite(error)
    return f"{value:{sign}.3f} ± {error:.3f}" if known else f"{value:{sign}.3f}"


def count_text(value: float | None) -> str:
    """A large number with a prefix: 1.23e12 is "1.23 T"."""
    if not value:
        return "–"
    power = min(max(int(np.log10(abs(value)) // 3), 0), 6)
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}".rstrip()


def ratio_text(value: float | None) -> str:
    """A ratio with three digits: "0.033", "1", "2,050"."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def bytes_text(value: float | None) -> str:
    """Bytes in MiB or GiB."""
    if value is None:
        return "–"
    return f"{value / 2**20:.0f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"


def seconds_text(value: float | None) -> str:
    """A duration: "0.42 s", "12.3 s", "3 min 20 s"."""
    if value is None:
        return "–"
    if value >= 60:
        return f"{round(value) // 60} min {round(value) % 60:02d} s"
    return f"{value:.3g} s"


def _hits(margins: ArrayLike) -> NDArray[np.floating]:
    margins = np.asarray(margins)
    return (margins > 0) + 0.5 * (margins == 0)
