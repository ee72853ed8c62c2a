"""Two writers of one file of features: the second waits, and the first one's file stays whole."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np

from cvxnn.features import FeatureWriter, read_features

from .stand_in import DESCRIPTION


def test_a_second_writer_waits_until_the_first_has_closed_the_file(tmp_path: Path) -> None:
    path = tmp_path / "features.npy"
    rows = np.arange(24, dtype=np.float32).reshape(6, 4)
    opened = threading.Event()
    seen: list[np.ndarray] = []

    def second() -> None:
        with FeatureWriter(path, DESCRIPTION) as writer:
            opened.set()
            seen.append(np.array(read_features(path)[0]))
            writer.append(rows[:1] + 1, "other")  # and is killed, as it were, before the end

    thread = threading.Thread(target=second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it waits
        with FeatureWriter(path, DESCRIPTION) as writer:
            writer.append(rows[:3], "first")
            thread.start()
            assert not opened.wait(0.3)
            writer.append(rows[3:], "second")
            writer.finish()
        thread.join()
    np.testing.assert_array_equal(seen, [rows])
    np.testing.assert_array_equal(read_features(path)[0], rows)
