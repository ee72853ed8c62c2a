"""Searches on backends of joblib for clusters: the same results, in workers of one thread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# With a backend of joblib, a search over the default classifier and one over a head of pairs.
SEARCH = """
import sys
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier
from cvxnn.numerics.stored_rows import StoredRows

def searched():
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(
        ConvexReLUClassifier(n_patterns=16, random_state=0), {"strength": [1e-3, 1e-1]}, cv=2
    )
    return search.fit(X, y).cv_results_["mean_test_score"]

def seen(path):
    # A worker maps the file; NumPy's solver starts no device of JAX.
    won, lost = (StoredRows(np.load(path, mmap_mode="r")[k::2]) for k in (0, 1))
    head = COALAPreferenceHead(n_patterns=4, random_state=0).fit_pairs(won, lost)
    devices = "jax" in sys.modules and bool(sys.modules["jax"]._src.xla_bridge._backends)
    pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return head.reward(won[:5]), devices, max(pools)

def main(backend, folder):
    path = Path(folder) / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32))
    expected, alone = searched(), seen(path)[0]
    if backend == "dask":
        from distributed import Client

        client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    else:
        import ray
        from ray.util.joblib import register_ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        register_ray()
    with parallel_config(backend, n_jobs=2):
        np.testing.assert_array_equal(searched(), expected)
        for reward, devices, threads in Parallel()(delayed(seen)(path) for _ in range(2)):
            np.testing.assert_allclose(reward, alone, rtol=1e-6)
            assert not devices
            assert threads == 1, threads
    client.close() if backend == "dask" else ray.shutdown()
    print("done", flush=True)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_two_workers_find_what_one_process_finds(
    tmp_path: Path, backend: str, package: str
) -> None:
    pytest.importorskip(package, reason=f"needs the extra {backend}")
    script = tmp_path / "search.py"
    script.write_text(SEARCH)
    alone = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), backend, str(tmp_path)],
        env=alone,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.endswith("done\n"), done.stderr
