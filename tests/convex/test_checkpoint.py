"""A solve that was interrupted goes on where it stopped, and only if it is the same one."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    GatedOperator,
    InteriorPoint,
    ProximalGradient,
    Status,
    checkpoint,
    solve,
)

X = np.random.default_rng(0).normal(size=(13, 2))


def program(**options) -> ConvexProgram:
    y = np.abs(X[:, :1]) - X[:, 1:]
    return ConvexProgram(GatedOperator(X, X > 0), y, 1e-2, formulation="gated", **options)


@pytest.mark.slow
def test_a_solve_goes_on_from_the_file_and_leaves_its_solution_there(tmp_path: Path) -> None:
    file = tmp_path / "point"
    short, solver = ProximalGradient(tol=1e-8, max_iter=10), ProximalGradient(tol=1e-8)
    begun = solve(program(), short, checkpoint=file)
    assert begun.status is Status.MAX_ITER
    expected = solve(program(), solver, start=begun)
    found = solve(program(), solver, checkpoint=file)
    np.testing.assert_array_equal(found.weights.blocks, expected.weights.blocks)
    again = solve(program(), solver, checkpoint=file)
    assert again.n_iter <= found.n_iter
    # A start that is given comes first.
    given = solve(program(), short, start=program().zeros(), checkpoint=file)
    assert given.objective == begun.objective


def test_an_interrupt_leaves_the_last_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_EVERY", 0.0)
    rows = []

    def interrupt(row, weights):
        rows.append(row)
        if len(rows) == 3:
            raise KeyboardInterrupt

    file, solver = tmp_path / "point", ProximalGradient(tol=1e-8)
    with pytest.raises(KeyboardInterrupt):
        solve(program(), solver, callback=interrupt, checkpoint=file)
    kept = checkpoint.Checkpoint(file, program(), "ProximalGradient").read()
    assert kept is not None
    assert kept.n_iter == rows[1]["iteration"]
    assert float(program().evaluate(kept.weights).objective) == pytest.approx(rows[1]["objective"])
    assert float(program().bound_of(kept.dual)) == pytest.approx(rows[1]["dual_bound"])


def test_other_programs_and_other_files_are_refused(tmp_path: Path) -> None:
    file, solver = tmp_path / "point", ProximalGradient(max_iter=10)
    solve(program(), solver, checkpoint=file)
    others = [
        (replace(program(), alpha=2e-2), solver),
        (replace(program(), operator=GatedOperator(X, X < 0)), solver),
        (program(sample_weight=np.arange(1.0, 14)), solver),
        (replace(program(), formulation="relu"), Cronos(max_iter=10)),
    ]
    for other, method in others:
        with pytest.raises(ValueError, match="holds a point of another program"):
            solve(other, method, checkpoint=file)
    array = io.BytesIO()
    np.save(array, X)
    whole = file.read_bytes()
    for content in (b"no point", b"", array.getvalue(), whole[:-30], whole[:300] + whole[350:]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is no checkpoint; name another file"):
            solve(program(), solver, checkpoint=file)
    with pytest.raises(TypeError, match="solvers that are compiled"):
        solve(program(), InteriorPoint(), checkpoint=file)
