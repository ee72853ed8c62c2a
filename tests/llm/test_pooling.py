from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.features.description import POOLINGS
from cvxnn.llm.pooling import GrowingPool, pool

torch = pytest.importorskip("torch")


@given(
    pooling=st.sampled_from(POOLINGS),
    n_common=st.integers(0, 4),
    steps=st.lists(st.tuples(st.lists(st.booleans(), min_size=3, max_size=3)), min_size=1),
    seed=st.integers(0, 100),
)
def test_growing_pool_is_the_pool_of_all_states(
    pooling: str, n_common: int, steps: list[tuple[list[bool]]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    common = torch.from_numpy(rng.normal(size=(n_common, 5)))
    growing = GrowingPool(common, 3, pooling)
    rows = [list(common) for _ in range(3)]
    alive = np.ones(3, bool)
    for k, (goes_on,) in enumerate(steps):
        states = torch.from_numpy(rng.normal(size=(3, 5)))
        alive &= np.array(goes_on) | (k == 0)  # what has ended does not go on
        growing.extend(states, torch.from_numpy(alive))
        for row in np.flatnonzero(alive):
            rows[row].append(states[row])
        expected = [pool(torch.stack(row).float(), pooling) for row in rows]
        np.testing.assert_allclose(growing.value(), torch.stack(expected), rtol=1e-4, atol=1e-5)
        if k % 3 == 2 and alive.any():
            kept = int(np.flatnonzero(alive)[-1])
            growing.keep(kept)
            rows = [list(rows[kept]) for _ in range(3)]
            alive[:] = True
