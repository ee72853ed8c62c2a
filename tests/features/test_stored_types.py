"""Folders whose numbers have 16 bits: half the size, the same rows to rounding."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from cvxnn.features import FeatureWriter, blocks, extract_pairs, read_features, read_pair_features
from cvxnn.features.pairs import ROWS
from cvxnn.features.writer import store_as

from .stand_in import DESCRIPTION, LettersEmbedder, letter_pairs

TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("dtype", TYPES)
def test_a_folder_is_stored_in_16_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 6)
    before = extract_pairs(LettersEmbedder(), letter_pairs(), tmp_path)
    expected = np.array(before.chosen).astype(TYPES[dtype]).astype(np.float32)
    size = (tmp_path / ROWS).stat().st_size
    store_as(tmp_path / ROWS, dtype)
    assert (tmp_path / ROWS).stat().st_size - 128 == (size - 128) // 2
    after = read_pair_features(tmp_path)
    assert after.chosen.dtype == np.float32
    assert after.embedding == before.embedding
    np.testing.assert_array_equal(after.chosen, expected)
    np.testing.assert_array_equal(read_pair_features(tmp_path, stored=True).chosen, expected)
    # NumPy alone reads the same bits.
    alone = np.load(tmp_path / ROWS)[0::2].view(TYPES[dtype])
    np.testing.assert_array_equal(alone.astype(np.float32), expected)
    with (tmp_path / ROWS).open("r+b") as file:
        file.seek(150)
        file.write(b"\xff")
    with pytest.raises(ValueError, match="the checksum of its rows 0 to 5"):
        read_features(tmp_path / ROWS)


def test_an_unfinished_file_goes_on_in_its_own_type_only(tmp_path: Path) -> None:
    rows, path = np.arange(8.0).reshape(2, 4), tmp_path / ROWS
    with FeatureWriter(path, DESCRIPTION, "bfloat16") as file:
        file.append(rows, "first")
    with pytest.raises(ValueError, match="with other settings"):
        FeatureWriter(path, DESCRIPTION)
    with FeatureWriter(path, DESCRIPTION, "bfloat16") as file:
        assert file.passes("first")
        file.append(rows + 8, "second")
        file.finish()
    found, description = read_features(path)
    assert description == DESCRIPTION
    np.testing.assert_array_equal(found.astype(float), np.arange(16.0).reshape(4, 4))


def test_numbers_beyond_the_range_are_refused(tmp_path: Path) -> None:
    rows = np.full((1, 4), 1e5)
    with (
        FeatureWriter(tmp_path / ROWS, DESCRIPTION, "float16") as file,
        pytest.raises(ValueError, match="beyond the range of float16; choose bfloat16"),
    ):
        file.append(rows, "first")
