"""Do rows that folds have predicted make better probabilities? ``fold_calibration.py --help``.

Beyond 512 rows, the factor and the bend of probabilities may come from a sample of 512, each row
predicted by all others of it, or from the rows on which the strength was chosen, predicted by
folds. One fit of the first split of each table, and the log-loss of its test rows with either. In
the order of their names, every other table may choose; the others report.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from asv_bench.raw_results import Record, append, read

OUT = Path(__file__).with_name("fold_calibration.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with uci/*.npz; without it, a summary")
    parser.add_argument("--more", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--skip", nargs="+", default=[], metavar="TABLE")
    parser.add_argument("--out", type=Path, default=OUT, help="resumed if there")
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    from data import tables

    done = {record["table"] for record in read(arguments.out)}
    paths = tables(arguments.data, arguments.more) if arguments.data else {}
    for table, path in paths.items():
        if table not in {*done, *arguments.skip} and (found := measure(path)):
            append(arguments.out, {"table": table, **found})
    print("\n".join(summary(read(arguments.out))))


def measure(path: Path) -> Record | None:
    """Fit once; log-losses with both calibrations. None where no folds were needed."""
    from data import load
    from methods import fit_options
    from sklearn.metrics import log_loss

    from cvxnn import ConvexReLUClassifier
    from cvxnn.estimators._calibration import fit_link
    from cvxnn.estimators._fit_plan import Plan

    data, links = load(path), {}
    own = Plan.leave_one_out

    def both(plan: Plan, fit: Any) -> Any:
        held_out = own(plan, fit)
        if plan.strength.by_folds is not None:
            few = plan._replace(strength=plan.strength._replace(by_folds=None))
            links.update(folds=fit_link(*held_out), sample=fit_link(*own(few, fit)))
        return held_out

    Plan.leave_one_out = both  # type: ignore[method-assign]
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ConvexReLUClassifier().fit(data.X, data.y, **fit_options("cvxnn", data))
    finally:
        Plan.leave_one_out = own  # type: ignore[method-assign]
    if not links:
        return None
    found: Record = {"n": len(data.X), "k": len(model.classes_)}
    for name, (model.temperature_, model.bend_) in links.items():
        loss = log_loss(data.y_test, model.predict_proba(data.X_test), labels=model.classes_)
        found[name] = {
            "log_loss": round(float(loss), 5),
            "temperature": round(model.temperature_, 4),
            "bend": model.bend_,
        }
    return found


def summary(records: list[Record]) -> Iterable[str]:
    """Lines of Markdown: the log-losses, and mean differences of both halves."""
    yield "| table | n | half | 512 rows | folds |"
    yield "| --- | --- | --- | --- | --- |"
    records = sorted(records, key=lambda record: record["table"])
    for k, record in enumerate(records):
        losses = [record[name]["log_loss"] for name in ("sample", "folds")]
        half = "reported" if k % 2 else "chosen on"
        yield f"| {record['table']} | {record['n']} | {half} | {losses[0]:.4f} | {losses[1]:.4f} |"
    for half in (records[::2], records[1::2]):
        gaps = np.array([r["folds"]["log_loss"] - r["sample"]["log_loss"] for r in half])
        better, worse = (gaps < -5e-4).sum(), (gaps > 5e-4).sum()
        yield f"mean {gaps.mean():+.4f}; better on {better}, worse on {worse} of {len(gaps)}"


if __name__ == "__main__":
    main()
