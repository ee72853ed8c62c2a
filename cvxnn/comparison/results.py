"""Results of a comparison: one row for each method, as data, as JSON and as sentences."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cvxnn._progress import seconds_text
from cvxnn.comparison.measures import correct, few_groups_text, mean_and_error
from cvxnn.comparison.texts import (
    bytes_text,
    certificate_text,
    count_text,
    difference_text,
    name_of,
    ratio_text,
    share_text,
)
from cvxnn.files.json_files import read_json, write_json
from cvxnn.files.writing import MALFORMED
from cvxnn.preference.metrics import reward_text

RESULT_FILE = "comparison.json"
REPLIES_FILE = "replies.jsonl"
"""Name of the file in a folder of results that `Comparison.read` reads."""
HEAD_METHODS = ("coala", "linear")
"""Methods that fit a head to embeddings; see ``HEADS`` of ``cvxnn.comparison.heads``."""
START = "start"  # folder of the model that was fine-tuned before all methods
ADAPTER = "adapter"  # folder of adapters in the folder of a fine-tuned model
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
    interval : list of float
        Lower and upper end of the 95 % confidence interval of the accuracy.
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
    interval: list[float]
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
        lines.append(f"  held out    {reward_text(self.metrics)}")
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
        ``name``, ``parameters`` (their number; None if heads were fitted to features alone),
        ``dtype`` and ``fingerprint`` of the language model.
    data : dict
        ``training_pairs``, ``held_out_pairs``, ``held_out_groups`` and digests of the pairs.
    settings : dict
        Settings that all methods share, and those of each method.
    baselines : dict of str to dict
        ``accuracy``, ``standard_error`` and ``interval`` of rules that need no training.
    results : sequence of MethodResult
        One result for each method, in the requested order.
    groups : sequence of str
        Group of each held-out pair; pairs of one group are not independent.
    seeds : list of dict, default=[]
        Means over several seeds, as of `cvxnn.comparison.summarise_seeds`; the results are then
        those of the first seed.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    baselines: dict[str, dict[str, Any]]
    results: Sequence[MethodResult]
    groups: Sequence[str]
    seeds: list[dict[str, Any]] = field(default_factory=list)

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
            hits.append(correct(result.margins))
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
        caution = few_groups_text(len(set(self.groups)))
        sentences = [f"{caution[0].upper()}{caution[1:]}."] if caution else []
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
            times = ratio_text(ratio)
            cost = ", at as many FLOPs" if times == "1" else f", at {times} times its FLOPs"
            cost = "" if ratio is None else cost
            sentences.append(
                f"COALA {verdict.format(name_of(reference))}: "
                f"{difference_text(value, error)} in pair accuracy{cost}."
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
            If entries are missing or of another type; write the file with ``cvxnn compare``.
        """
        try:
            names = [entry.name for entry in fields(cls)]
            rest = {n: values[n] for n in names if n != "seeds" or n in values}
            rest["results"] = tuple(map(MethodResult.from_dict, rest["results"]))
            found = cls(**rest)
            found.conclusions()  # they look at entries of every type
        except MALFORMED as error:
            raise ValueError(
                f"this is not a comparison ({error}); expected a file that cvxnn compare wrote"
            ) from error
        return found

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
                share_text(result.accuracy, result.interval),
                f"{result.train_accuracy:.3f}",
                f"{result.metrics['rewards/margins']:.3g}",
                count_text(result.total_flops),
            ]
            row += [ratio_text(self.flops_ratio(result.method))] if with_dpo else []
            time = seconds_text(sum(result.seconds.values()))
            rows.append([*row, bytes_text(result.peak_memory), time])
        for name, baseline in self.baselines.items():
            rows.append([name, share_text(baseline["accuracy"], baseline["interval"])])
        widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=False))
            ).rstrip()
            for row in rows
        )
