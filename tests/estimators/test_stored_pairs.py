"""Heads of pairs that stay on the disk: the head of the same pairs in memory, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvxnn import COALAPreferenceHead, LinearPreferenceHead
from cvxnn.convex import Ridge
from cvxnn.estimators import _preference_head, _streamed_pairs
from cvxnn.numerics import stored_rows
from cvxnn.numerics.stored_rows import StoredRows

N, WIDTH = 1100, 6
ITERATIVE = Ridge(tol=1e-3, max_dense=50, max_kernel=1)


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, N, WIDTH)).astype(np.float32)
    reward = np.abs(X @ rng.normal(size=WIDTH)) + X[..., 0]
    won, lost = np.where((reward[0] > reward[1])[:, None], X, X[::-1])
    # A pair that is given twice, and one that shares a response with another.
    won[1], lost[1], won[3] = won[0], lost[0], won[2]
    return won, lost


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "options"),
    [
        (None, {}),
        (None, {"context": 2}),
        (ITERATIVE, {}),
        pytest.param(ITERATIVE, {"blocks": [2, 4]}, marks=pytest.mark.slow),
    ],
)
def test_the_head_is_that_of_the_pairs_in_memory(pairs, solver, options) -> None:
    won, lost = pairs
    weight, groups = np.arange(N) % 3, np.arange(N) // 4

    def fitted(*parts):
        head = COALAPreferenceHead(n_patterns=8, solver=solver, random_state=0, **options)
        return head.fit_pairs(*parts, sample_weight=weight, groups=groups)

    memory, disk = fitted(won, lost), fitted(StoredRows(won), StoredRows(lost))
    assert disk.strength_ == pytest.approx(memory.strength_, rel=1e-5)
    assert disk.objective_ == pytest.approx(memory.objective_, rel=1e-5)
    assert disk.n_iter_ == memory.n_iter_
    expected = memory.reward_margin(won, lost)
    margins = disk.reward_margin(StoredRows(won), StoredRows(lost))
    np.testing.assert_allclose(margins, expected, rtol=1e-3, atol=1e-4)


def test_an_unscaled_head_and_one_of_few_pairs_are_the_same_too(pairs) -> None:
    won, lost = (part[:64] for part in pairs)
    for options in ({"standardize": False, "blocks": [3, 3]}, {"fit_intercept": False}):
        head = COALAPreferenceHead(n_patterns=4, random_state=0, **options)
        expected = head.fit_pairs(won, lost).reward(won)
        got = head.fit_pairs(StoredRows(won), StoredRows(lost)).reward(won)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_large_arrays_are_not_copied_and_give_the_same_head(pairs, monkeypatch) -> None:
    won, lost = pairs
    head = COALAPreferenceHead(n_patterns=4, random_state=0)
    expected = head.fit_pairs(won, lost).reward(won)
    stored = head.fit_pairs(StoredRows(won), StoredRows(lost)).reward(won)
    stacked, seen = StoredRows.stacked, []

    def watched(parts):
        seen.append(parts)
        return stacked(parts)

    monkeypatch.setattr(StoredRows, "stacked", watched)
    monkeypatch.setattr(_preference_head, "_MOST_COPIED", won.nbytes + lost.nbytes)
    np.testing.assert_array_equal(head.fit_pairs(won, lost).reward(won), expected)
    assert not seen
    monkeypatch.setattr(_preference_head, "_MOST_COPIED", won.nbytes + lost.nbytes - 1)
    np.testing.assert_array_equal(head.fit_pairs(won, lost).reward(won), stored)
    assert len(seen) == 1
    np.testing.assert_allclose(stored, expected, rtol=1e-3, atol=1e-4)
    # What reads all rows at once anyway is given them as they are.
    for options in ({"loss": "pointwise"}, {"formulation": "relu"}):
        head.set_params(**{"loss": "pairwise", "formulation": "gated", **options})
        head.fit_pairs(won[:24], lost[:24])
    assert len(seen) == 1


@pytest.mark.parametrize("constant", [False, True])
def test_a_head_without_signal_says_so(pairs, constant) -> None:
    won = np.ones_like(pairs[0][:24]) if constant else pairs[0][:24]
    # As many reasons for as against: each pair is given both ways.
    both = (
        StoredRows(np.concatenate([won, won[::-1]])),
        StoredRows(np.concatenate([won[::-1], won])),
    )
    head = COALAPreferenceHead(n_patterns=4, strength=1.0, random_state=0)
    with pytest.warns(UserWarning, match="predicts the same for all rows|no better than chance"):
        head.fit_pairs(*both)


@pytest.mark.slow
def test_bad_rows_are_refused(pairs) -> None:
    won, lost = (part.copy() for part in pairs)
    head = COALAPreferenceHead(n_patterns=4, random_state=0)
    won[N // 2, 1] = np.nan
    with pytest.raises(ValueError, match="X contains NaN or infinity"):
        head.fit_pairs(StoredRows(won), StoredRows(lost))
    head.fit_pairs(lost, pairs[0])
    with pytest.raises(ValueError, match="X has 5 features"):
        head.reward(StoredRows(lost[:, 1:]))


@pytest.mark.slow
@pytest.mark.parametrize("standardize", [True, False])
def test_a_linear_head_is_fitted_to_all_pairs_on_the_disk(pairs, standardize, monkeypatch) -> None:
    monkeypatch.setattr(_streamed_pairs, "_SAMPLE_NUMBERS", 2 * WIDTH * 60)
    monkeypatch.setattr(stored_rows, "_BLOCK_NUMBERS", 2 * WIDTH * 100)
    won, lost = (part + np.float32(5) for part in pairs)
    won[:, 2] = lost[:, 2] = 3  # constant, and of no weight
    weight = np.arange(N) % 3

    def fitted(*parts, **options):
        head = LinearPreferenceHead(standardize=standardize, tol=1e-7, random_state=0, **options)
        return head.fit_pairs(*parts, sample_weight=weight)

    disk = fitted(StoredRows(won), StoredRows(lost))
    memory = fitted(won, lost, C=disk.C_)
    np.testing.assert_allclose(disk.coef_, memory.coef_, rtol=1e-4, atol=1e-5)
    assert disk.intercept_ == pytest.approx(memory.intercept_, rel=1e-3)
    assert disk.coef_[2] == 0
    # The strength is one that 60 pairs would choose.
    assert disk.cv_scores_.shape == (5, len(disk.Cs_))
    again = fitted(StoredRows(won), StoredRows(lost))
    np.testing.assert_array_equal(again.coef_, disk.coef_)
    monkeypatch.undo()  # as few pairs are read, and fitted in memory
    few = fitted(StoredRows(won), StoredRows(lost))
    np.testing.assert_array_equal(few.coef_, fitted(won, lost).coef_)


# 48 MiB of rows, and blocks of 1 MiB.
BOUNDED = """
import resource, sys, tracemalloc
import numpy as np
from cvxnn import COALAPreferenceHead
from cvxnn.convex import Ridge
from cvxnn.convex.solvers.ridge import data
from cvxnn.numerics import gates, stored_rows
import cvxnn.network

for module in (data, stored_rows):
    module._BLOCK_NUMBERS = 2**18
cvxnn.network._CHUNK_NUMBERS = 2**18
gates._CACHED_NUMBERS = 2**12
rows = np.memmap(sys.argv[1], np.float16, "w+", shape=(24_576, 1024))
rng = np.random.default_rng(0)
for first in range(0, len(rows), 256):
    rows[first : first + 256] = rng.standard_normal((256, 1024), np.float32)
rows.flush()
stored_rows._forget(rows)

def fit(n):
    won, lost = (stored_rows.StoredRows(rows[k:n:2]) for k in (0, 1))
    solver = Ridge(tol=1e-2, rank=32, max_dense=50, max_kernel=1)
    head = COALAPreferenceHead(n_patterns=8, strength=0.1, solver=solver, random_state=0)
    tracemalloc.reset_peak()
    head.fit_pairs(won, lost)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return np.array([tracemalloc.get_traced_memory()[1] / 2**20, resident])

tracemalloc.start()
small = fit(4096)
print(*(fit(len(rows)) - small))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of memory")
def test_memory_does_not_grow_with_the_rows_but_by_what_is_stated(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", BOUNDED, str(tmp_path / "rows")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # 20,480 rows more, which are 40 MiB on the disk and 80 MiB in float32. Of mapped pages, the
    # system may give up to 64 KiB at once for each row of a block.
    allocated, resident = map(float, done.stdout.split())
    assert allocated < 8
    assert resident < 48
