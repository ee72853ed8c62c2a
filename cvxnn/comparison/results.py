"""Results of a comparison: one row for each method, as data, as JSON and as sentences."""

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

RESULT_FILE = "comparison.json"
"""Name of the file in a folder of results that `Comparison.read` reads."""
_NAMES = {"coala": "COALA", "linear": "linear head", "simpo": "SimPO", "ipo": "IPO"}
_DISTINCT = 2.0  # standard errors above which a difference is reported as one


@dataclass(frozen=True)
class MethodResult:
    """Result of one method on the pairs that all methods share.

    Parameters
    ----------
    method : str
        Name of the method: ``"coala"``, ``"linear"``, ``"dpo"``, ...
    accuracy : float
        Share of held-out pairs whose chosen reply has the higher reward, between 0 and 1. For a
        fine-tuned model this is the reward that its objective implies.
    standard_error : float or None
        Standard error of the accuracy over groups of pairs; None if it is not known.
    train_accuracy : float
        Accuracy on the training pairs.
    metrics : dict of str to float
        Held-out ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins``,
        ``rewards/accuracies``.
    margins : list of float
        Reward of the chosen reply minus that of the rejected one, for each held-out pair.
    history : dict of str to list, default={}
        ``step`` and the values of TRL's metrics at each step. Names that begin with ``eval_`` are
        measured on held-out pairs. None stands for a step at which a metric was not measured.
    step_name : str, default="step"
        Meaning of a step, the label of the axis in charts.
    flops : dict of str to float, default={}
        Floating-point operations of each phase of training.
    seconds : dict of str to float, default={}
        Duration of each phase of training.
    peak_memory : float, optional
        Largest memory in bytes: that of tensors on the GPU if one is used, otherwise that of the
        process.
    certificate : dict of str to dict, default={}
        ``objective``, ``dual_bound`` and ``gap`` of each convex program, by phase.
    settings : dict, default={}
        Everything that the result depends on, apart from the model and the data.
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
        """Number of floating-point operations of all phases."""
        return sum(self.flops.values())

    def summary(self) -> str:
        """Return the cost and the certificate of each phase, and the held-out metrics, as text.

        Returns
        -------
        str
            One line for the method, one for each phase and one for the metrics.
        """
        lines = [name_of(self.method)]
        for phase in dict.fromkeys([*self.seconds, *self.certificate]):
            cost = f"{seconds_text(self.seconds.get(phase))}, "
            cost += f"{count_text(self.flops.get(phase))}FLOPs"
            bounds = certificate_text(self.certificate.get(phase, {}))
            lines.append(f"  {phase:<11} {cost}{bounds and ': '}{bounds}")
        lines.append("  held out    " + ", ".join(f"{k} {v:.3f}" for k, v in self.metrics.items()))
        return "\n".join(lines)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MethodResult:
        """Return the result that a dictionary describes.

        Parameters
        ----------
        values : mapping of str to object
            Output of ``dataclasses.asdict``, also after a passage through JSON. Unknown entries
            are ignored.

        Returns
        -------
        MethodResult
            The result.
        """
        names = {entry.name for entry in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})


@dataclass(frozen=True)
class Comparison:
    """Results of several methods on the same pairs; see `cvxnn.comparison.compare`.

    Parameters
    ----------
    model : dict
        ``name``, ``parameters`` (their number), ``dtype`` and ``fingerprint`` of the language
        model.
    data : dict
        ``training_pairs``, ``held_out_pairs``, ``held_out_groups`` and digests of the pairs.
    settings : dict
        Settings that all methods share, and those of each method.
    baselines : dict of str to dict
        ``accuracy`` and ``standard_error`` of rules that need no training.
    results : sequence of MethodResult
        One result for each method, in the requested order.
    groups : sequence of str
        Group of each held-out pair; pairs of one group are not independent.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    baselines: dict[str, dict[str, Any]]
    results: Sequence[MethodResult]
    groups: Sequence[str]

    def get(self, method: str) -> MethodResult | None:
        """Return the result of a method.

        Parameters
        ----------
        method : str
            Name of the method.

        Returns
        -------
        MethodResult or None
            The result; None if the method was not compared.
        """
        return next((result for result in self.results if result.method == method), None)

    def flops_ratio(self, method: str, reference: str = "dpo") -> float | None:
        """Return the FLOPs of a method divided by those of another.

        Parameters
        ----------
        method : str
            Name of the method in the numerator.
        reference : str, default="dpo"
            Name of the method in the denominator.

        Returns
        -------
        float or None
            The ratio; None if the FLOPs of one of the methods are not known.
        """
        one, other = self.get(method), self.get(reference)
        if one is None or other is None or not one.total_flops or not other.total_flops:
            return None
        return one.total_flops / other.total_flops

    def difference(self, method: str, reference: str) -> tuple[float, float]:
        """Return the difference in accuracy of two methods, and its standard error.

        Parameters
        ----------
        method : str
            Name of the first method.
        reference : str
            Name of the method whose accuracy is subtracted.

        Returns
        -------
        difference : float
            Difference of the accuracies on the same held-out pairs.
        standard_error : float
            Standard error of the difference over groups of pairs.

        Raises
        ------
        KeyError
            If one of the methods was not compared; see ``methods``.
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
        """Return what the numbers show, in plain sentences.

        A difference counts as one from two standard errors on. Methods that do no better than a
        rule without training are named, COALA included.

        Returns
        -------
        list of str
            One sentence for each finding.
        """
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
            if not abs(value) > _DISTINCT * error or value == 0:  # the error may be NaN
                verdict = "and {} differ by less than these held-out pairs can resolve"
            elif value > 0:
                verdict = "ranks more held-out pairs correctly than {}"
            else:
                verdict = "falls short of {}"
            ratio = self.flops_ratio("coala", reference)
            cost = "" if ratio is None else f", at {ratio_text(ratio)} times its FLOPs"
            sentences.append(
                f"COALA {verdict.format(name_of(reference))}: "
                f"{estimate_text(value, error, sign='+')} in pair accuracy{cost}."
            )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a dictionary that JSON can hold, with its conclusions."""
        return {**asdict(self), "conclusions": self.conclusions()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """Return the comparison that a dictionary describes.

        Parameters
        ----------
        values : mapping of str to object
            Output of `to_dict`, also after a passage through JSON.

        Returns
        -------
        Comparison
            The comparison.

        Raises
        ------
        ValueError
            If entries are missing; write the file with ``cvxnn compare``.
        """
        try:
            rest = {entry.name: values[entry.name] for entry in fields(cls)}
            rest["results"] = tuple(map(MethodResult.from_dict, rest["results"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"this is not a comparison ({error}); expected a file that cvxnn compare wrote"
            ) from error
        return cls(**rest)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the comparison to a JSON file, which `read` reads.

        Parameters
        ----------
        path : path-like
            File to write; an existing file is replaced.
        """
        write_json(path, self.to_dict())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read a comparison from a JSON file.

        Parameters
        ----------
        path : path-like
            File that `write` or ``cvxnn compare`` wrote.

        Returns
        -------
        Comparison
            The comparison.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        ValueError
            If the file holds something else.
        """
        try:
            return cls.from_dict(read_json(path))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    def __str__(self) -> str:
        """Return a table in plain text, with FLOPs relative to DPO if DPO was compared."""
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
    """Return the pair accuracy and its standard error over groups of pairs.

    Parameters
    ----------
    margins : array-like of shape (n_pairs,)
        Reward of the chosen reply minus that of the rejected one; a tie counts half.
    groups : sequence of str
        Group of each pair.

    Returns
    -------
    accuracy : float
        Share of pairs with a positive margin.
    standard_error : float
        See :func:`mean_and_error`.
    """
    return pair_accuracy(margins), mean_and_error(_hits(margins), groups)[1]


def mean_and_error(values: NDArray[np.floating], groups: Sequence[str]) -> tuple[float, float]:
    """Return the mean, and its standard error if the groups were drawn independently.

    Pairs of one conversation resemble each other, so their values are summed before the spread of
    the sums is taken. With one pair in each group this is the usual standard error.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Numbers to average.
    groups : sequence of str
        Group of each number.

    Returns
    -------
    mean : float
        Mean of the values.
    standard_error : float
        Its cluster-robust standard error; NaN if there is only one group.

    Raises
    ------
    ValueError
        If the lengths of the two differ.
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
    """Return the largest memory in bytes.

    Parameters
    ----------
    cost : Cost
        Measured cost.

    Returns
    -------
    float
        Memory of tensors on the GPU if one was used, otherwise of the whole process.
    """
    return float(cost.device_peak_bytes or cost.peak_bytes)


def name_of(method: str) -> str:
    """Return the name of a method as its authors write it.

    Parameters
    ----------
    method : str
        Name of the method in the program, such as ``"simpo"``.

    Returns
    -------
    str
        Name for people, such as "SimPO".
    """
    return _NAMES.get(method, method.upper())


def estimate_text(value: float, error: float | None, sign: str = "") -> str:
    """Return the text of a share with its standard error, such as "0.712 ± 0.031".

    Parameters
    ----------
    value : float
        Share between -1 and 1.
    error : float or None
        Standard error; left out of the text if it is None or not finite.
    sign : str, default=""
        ``"+"`` to write a plus sign before positive values.

    Returns
    -------
    str
        Three decimals of each number.
    """
    known = error is not None and np.isfinite(error)
    return f"{value:{sign}.3f} ± {error:.3f}" if known else f"{value:{sign}.3f}"


def certificate_text(certificate: Mapping[str, float]) -> str:
    """Return the text of a certificate of optimality.

    Parameters
    ----------
    certificate : mapping of str to float
        ``objective``, ``dual_bound`` and ``gap`` of a convex program.

    Returns
    -------
    str
        The text; empty if the gap is not known.
    """
    if "gap" not in certificate:
        return ""
    return (
        f"objective {certificate['objective']:.5f}, lower bound {certificate['dual_bound']:.5f}, "
        f"gap {100 * certificate['gap']:.2g} %"
    )


def count_text(value: float | None) -> str:
    """Return the text of a large number with a metric prefix, such as "1.23 T" for 1.23e12.

    Parameters
    ----------
    value : float or None
        Number of at least 0; None stands for an unknown one.

    Returns
    -------
    str
        Three digits and the prefix; a dash for None and 0.
    """
    if not value:
        return "–"
    power = min(max(int(np.log10(abs(value)) // 3), 0), 6)
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}".rstrip()


def ratio_text(value: float | None) -> str:
    """Return the text of a ratio with three digits, such as "0.033", "1" or "2,050".

    Parameters
    ----------
    value : float or None
        Ratio of at least 0; None stands for an unknown one.

    Returns
    -------
    str
        The text; a dash for None.
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def bytes_text(value: float | None) -> str:
    """Return the text of a number of bytes, in MiB or GiB.

    Parameters
    ----------
    value : float or None
        Number of bytes; None stands for an unknown one.

    Returns
    -------
    str
        The text; a dash for None.
    """
    if value is None:
        return "–"
    return f"{value / 2**20:.0f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"


def seconds_text(value: float | None) -> str:
    """Return the text of a duration, such as "0.42 s", "12.3 s" or "3 min 20 s".

    Parameters
    ----------
    value : float or None
        Duration in seconds; None stands for an unknown one.

    Returns
    -------
    str
        The text; a dash for None.
    """
    if value is None:
        return "–"
    if value >= 60:
        return f"{round(value) // 60} min {round(value) % 60:02d} s"
    return f"{value:.3g} s"


def _hits(margins: ArrayLike) -> NDArray[np.floating]:
    margins = np.asarray(margins)
    return (margins > 0) + 0.5 * (margins == 0)
