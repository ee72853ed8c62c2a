"""Which gates suit a table? Kinds of gates, and rules that choose among them; ``--help``.

Each split of a table is fitted once with each kind of gates, and the leave-one-out errors of the
closed form are computed on samples of the training rows. A rule says from these errors alone which
kind it takes. In the order of their names, every other table may choose a rule; the others report.
Linear models are gated networks whose gates are open for all rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from data import load, splits, tables
from methods import estimator, fit_options
from numpy.typing import NDArray

from asv_bench.raw_results import Record, append, read
from cvxnn import ConvexReLUClassifier, training
from cvxnn.convex import ActivationPatterns, GatedOperator
from cvxnn.estimators._calibration import calibrated_log_loss
from cvxnn.estimators._fit_plan import HeldOut
from cvxnn.training.row_sample import sample_rows
from cvxnn.training.spectrum import Spectrum, leave_one_out

# Part of the gates that are open for all rows.
KINDS = {"gaussian": 0.0, "thresholds": 0.0, "both": 0.0, "half_linear": 0.5, "linear": 1.0}
SIZES = (256, 1000)
OUT = Path(__file__).with_name("kinds.jsonl")


def drawn(kind: str, draw: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that draws patterns of a kind."""

    def patterns(X: NDArray, y: NDArray, n: int, _: Any, rng: Any) -> ActivationPatterns:
        if kind == "both":
            parts = [draw(X, y, n // 2, one, rng) for one in ("gaussian", "thresholds")]
            gaussian = np.zeros((len(parts[0]), 2, X.shape[1]), X.dtype)
            gaussian[:, 0], gaussian[:, 1, -1] = parts[0].gates, 1
            mask = np.concatenate([part.mask for part in parts], axis=1)
            return ActivationPatterns(mask, np.concatenate([gaussian, parts[1].gates]))
        own = "thresholds" if kind == "thresholds" else "gaussian"
        always = 1 if kind == "linear" else round(KINDS[kind] * n)
        opened = np.zeros((always, X.shape[1]), X.dtype)
        opened[:, -1] = 1
        whole = ActivationPatterns(np.ones((len(X), always), bool), opened)
        if kind == "linear":
            return whole
        found = draw(X, y, n - always, own, rng)
        if not always:
            return found
        mask = np.concatenate([found.mask, whole.mask], axis=1)
        return ActivationPatterns(mask, np.concatenate([found.gates, opened]))

    return patterns


def measure(path: Path, split: int) -> Record:
    """Fit each kind; say what rows left out say of it."""
    data, found = load(path, split), {}
    draw, choose = training.draw_patterns, training.choose_patterns
    seen: dict[str, Any] = {}

    def watched(
        program: Any, n_patterns: int, kinds: Any, rng: Any, **known: Any
    ) -> training.ChosenPatterns:
        seen.update(program=program, n=n_patterns, known=known)
        state = rng.get_state()
        seen["taken"] = choose(program, n_patterns, kinds, rng, **known).kind
        rng.set_state(state)
        patterns = drawn(seen["kind"], draw)(program.operator.X, program.y, n_patterns, None, rng)
        return training.ChosenPatterns("gaussian", patterns, None)

    own_draw = ConvexReLUClassifier._draw

    def scaled(model: Any, scaled: Any, *rest: Any) -> Any:
        seen["scaling"] = scaled.scaling
        return own_draw(model, scaled, *rest)

    training.choose_patterns = watched
    ConvexReLUClassifier._draw = scaled  # type: ignore[method-assign]
    options = fit_options("cvxnn", data)
    try:
        for kind in KINDS:
            seen["kind"] = kind
            model = ConvexReLUClassifier(random_state=split)
            found[kind] = judged(model, data, options)
    finally:
        training.choose_patterns = choose
        ConvexReLUClassifier._draw = own_draw  # type: ignore[method-assign]
    found["logistic"] = judged(
        estimator("logistic", len(data.X)), data, fit_options("logistic", data)
    )
    found["taken"] = seen["taken"]
    for size in SIZES:
        found[str(size)] = left_out(seen, size, draw, split)
    return {"n": len(data.X), "n_test": len(data.X_test), **found}


def judged(model: Any, data: Any, options: Any) -> Record:
    from sklearn.metrics import log_loss

    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data.X, data.y, **options)
    cpu_s = time.process_time() - began
    chances = model.predict_proba(data.X_test).astype(float)
    chances /= chances.sum(axis=1, keepdims=True)
    return {
        "accuracy": round(float(np.mean(model.predict(data.X_test) == data.y_test)), 5),
        "log_loss": round(float(log_loss(data.y_test, chances, labels=model.classes_)), 5),
        "cpu_s": round(cpu_s, 3),
    }


def left_out(seen: Record, size: int, draw: Any, seed: int) -> Record:
    """Squared errors and log-losses without each row, and standard errors of differences."""
    known, rng = dict(seen["known"]), np.random.RandomState(seed)
    shared = known.pop("shared")
    began = time.process_time()
    sample = sample_rows(seen["program"], rng, most=size, **known)
    X, y = sample.program.operator.X, sample.program.y
    rows: dict[str, NDArray] = {}
    found: dict[str, Record] = {}
    for kind in KINDS:
        patterns = drawn(kind, draw)(X, y, seen["n"], None, rng)
        pilot = replace(sample.program, operator=GatedOperator(X, patterns.mask))
        out = leave_one_out(sample._replace(program=pilot), Spectrum.of(pilot), shared=shared)
        errors = out.errors.sum(axis=1).min() if shared else out.errors.min(axis=0).sum()
        rows[kind] = ((out.predictions - y) ** 2).sum(axis=1)
        loss = calibrated_log_loss(HeldOut.of(sample, out.predictions, seen["scaling"]))
        found[kind] = {"error": round(float(errors), 6), "log_loss": round(loss, 6)}
    share = np.broadcast_to(sample.program.share, (len(y), 1))[:, 0]
    for kind in KINDS:
        gap = rows[kind] - rows["linear"]
        average = share @ gap
        error = float(np.sqrt((share**2) @ (gap - average) ** 2))
        found[kind]["se_linear"] = round(error, 6)
    return {"rows": len(y), "cpu_s": round(time.process_time() - began, 3), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with uci/*.npz; without it, a summary")
    parser.add_argument("--more", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--out", type=Path, default=OUT, help="resumed if there")
    parser.add_argument("--splits", type=int, default=5, help="of each table below 3000 rows")
    parser.add_argument("--most", type=int, default=6000, help="training rows of a table")
    arguments = parser.parse_args()
    done = {key(record) for record in read(arguments.out, key)}
    paths = tables(arguments.data, arguments.more) if arguments.data else {}
    for table, path in paths.items():
        for split in splits(path, arguments.splits):
            if (table, split) not in done and len(load(path, split).X) <= arguments.most:
                append(arguments.out, {"table": table, "split": split, **measure(path, split)})
    print("\n".join(summary(read(arguments.out, key))))


def key(record: Record) -> tuple[str, int]:
    return record["table"], record["split"]


def least(of_size: Record, kinds: str, gain: float = 0.02, by: str = "error") -> str:
    """The best of some kinds; the first one stays unless another gains a part of its error."""
    first, *_ = names = kinds.split()
    best = min(names, key=lambda kind: of_size[kind][by])
    return best if of_size[best][by] < (1 - gain) * of_size[first][by] else first


def one_error(of_size: Record) -> str:
    """The linear model, unless gates are better by a standard error of the difference."""
    best = least(of_size, "gaussian thresholds", 0.0)
    gain = of_size["linear"]["error"] - of_size[best]["error"]
    return best if gain > of_size[best]["se_linear"] else "linear"


RULES: dict[str, Callable[[Record], str]] = {
    "the default: two kinds, 256 rows, 2 %": lambda r: r["taken"],
    "up to 1,000 rows": lambda r: least(r["1000"], "gaussian thresholds"),
    "a linear model beside them": lambda r: least(r["1000"], "gaussian thresholds linear"),
    "the same, any gain": lambda r: least(r["1000"], "gaussian thresholds linear", 0.0),
    "the same, log-loss": lambda r: least(r["1000"], "gaussian thresholds linear", 0.0, "log_loss"),
    "linear but for a standard error": lambda r: one_error(r["1000"]),
    "half of each kind, always": lambda _: "both",
    "half of each kind first, 256 rows": lambda r: least(r["256"], "both gaussian thresholds"),
    "all five, up to 1,000 rows": lambda r: least(r["1000"], " ".join(KINDS)),
    "linear, always": lambda _: "linear",
    "best for the test rows": lambda r: max(KINDS, key=lambda kind: r[kind]["accuracy"]),
}


def summary(records: Iterable[Record]) -> Iterable[str]:
    """Lines of Markdown: means over both halves of differences from the default."""
    of_table: dict[str, list[Record]] = {}
    for record in records:
        of_table.setdefault(record["table"], []).append(record)
    names = sorted(of_table)
    yield "| rule | chosen on: accuracy | log-loss | reported on | log-loss | below logistic |"
    yield "| --- | --- | --- | --- | --- | --- |"
    means = {
        (name, table): np.mean(
            [[r[rule(r)][value] for value in ("accuracy", "log_loss")] for r in found], axis=0
        )
        for name, rule in {**RULES, "logistic": lambda _: "logistic"}.items()
        for table, found in of_table.items()
    }
    default = next(iter(RULES))
    for name in RULES:
        cells = []
        for half in (names[::2], names[1::2]):
            gaps = np.mean([means[name, one] - means[default, one] for one in half], axis=0)
            cells += [f"{gap:+.4f}" for gap in gaps]
        behind = {one: means[name, one][0] - means["logistic", one][0] for one in names}
        below = [f"{one} {gap:+.3f}" for one, gap in behind.items() if gap < -0.01]
        few = ", ".join(below) if len(below) < 4 else f"{len(below)} tables"
        yield f"| {name} | {' | '.join(cells)} | {few or 'none'} |"


if __name__ == "__main__":
    main()
