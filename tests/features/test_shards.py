from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cvxnn import COALAPreferenceHead, _progress
from cvxnn.features import (
    FeatureWriter,
    PairFeatures,
    Shard,
    blocks,
    discard_features,
    extract_pairs,
    extract_shard,
    extraction,
    is_extracted,
    merge_pairs,
    read_pair_features,
)
from cvxnn.features.pairs import NOTE, ROWS
from cvxnn.features.shards import all_shards
from cvxnn.features.writer import store_as
from cvxnn.files.json_files import DamagedResultError, OtherSettingsError
from cvxnn.numerics.stored_rows import is_stored

from .stand_in import LettersEmbedder, letter_pairs

PAIRS = letter_pairs()
FILES = ["features.json", "features.npy", "features.npy.json", "pairs.jsonl.gz"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 6)  # 38 rows are seven blocks, the last of two rows


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """What one process writes."""
    extract_pairs(LettersEmbedder(), PAIRS, tmp_path / "whole")
    return tmp_path / "whole"


def check_same(folder: Path, whole: Path, features: PairFeatures) -> None:
    for name in ("features.npy", "features.npy.json", "pairs.jsonl.gz"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == FILES
    np.testing.assert_array_equal(features.chosen[:, 0], np.arange(1, len(PAIRS) + 1))


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_shards_make_the_bytes_of_one_process(tmp_path: Path, whole: Path, total: int) -> None:
    folder = tmp_path / "shards"
    rows = [extract_shard(LettersEmbedder(), PAIRS, folder, s) for s in all_shards(total)[::-1]]
    assert sum(rows) == 2 * len(PAIRS)
    assert max(rows[1:], default=0) - min(rows[1:], default=0) <= 6  # the first has the last block
    check_same(folder, whole, merge_pairs(folder))
    check_same(folder, whole, merge_pairs(folder))  # nothing to do


@pytest.mark.parametrize("when", ["before", "pairs", "rows"])
def test_a_full_disk_leaves_nothing_without_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = {"before": "_check_room", "pairs": "write_preferences", "rows": "_embed"}[when]
    monkeypatch.setattr(extraction, place, full)
    with pytest.raises(OSError, match="No space"):
        extract_pairs(LettersEmbedder(), PAIRS, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    extract_pairs(LettersEmbedder(), PAIRS, tmp_path)
    (tmp_path / NOTE).unlink()
    monkeypatch.setattr(extraction, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        extract_pairs(LettersEmbedder(), PAIRS, tmp_path)
    assert (tmp_path / ROWS).exists()  # what is finished stays


@pytest.mark.parametrize("name", FILES)
def test_damaged_features_may_be_replaced(whole: Path, name: str) -> None:
    (whole / name).write_bytes(b"{")
    with pytest.raises(DamagedResultError, match=name):
        extract_pairs(LettersEmbedder(), PAIRS, whole)


def test_rows_that_are_checked_and_joined_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for shard in all_shards(2):
        extract_shard(LettersEmbedder(), PAIRS, tmp_path, shard)
    monkeypatch.setattr(_progress, "_PRINTED", 0.0)
    merge_pairs(tmp_path)
    assert capsys.readouterr().err == ""
    read_pair_features(tmp_path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 7  # blocks
    assert lines[0].startswith("checking  6 of 38 rows (15 %)")
    store_as(tmp_path / ROWS, "float16", progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["checking"] * 7 + ["storing"] * 7
    folder = tmp_path / "again"
    for shard in all_shards(2):
        extract_shard(LettersEmbedder(), PAIRS, folder, shard)
    capsys.readouterr()
    merge_pairs(folder, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("joining   38 of 38 rows (100 %)")


@pytest.mark.parametrize("stored", [False, True])
def test_shards_are_read_before_they_are_merged(tmp_path: Path, whole: Path, stored: bool) -> None:
    folder, expected = tmp_path / "shards", read_pair_features(whole)
    for shard in all_shards(3):
        assert not is_extracted(folder)
        extract_shard(LettersEmbedder(), PAIRS, folder, shard)
    assert is_extracted(folder)
    found = read_pair_features(folder, stored=stored)
    assert is_stored(found.chosen) == stored
    assert found.identity == expected.identity
    for name in ("chosen", "rejected"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    head, of_shards = (
        COALAPreferenceHead(n_patterns=4, random_state=0).fit_pairs(part.chosen, part.rejected)
        for part in (expected, found)
    )
    np.testing.assert_allclose(
        of_shards.reward(expected.chosen), head.reward(expected.chosen), rtol=1e-4
    )


def test_rows_are_whole_blocks_in_order() -> None:
    for n_rows in (1, 6, 38, 600):
        for total in range(1, -(-n_rows // 6) + 1):
            parts = [shard.rows(n_rows) for shard in all_shards(total)]
            assert [row for part in parts for row in part] == list(range(n_rows))
            assert all(part.start % 6 == 0 and len(part) > 0 for part in parts)
    with pytest.raises(ValueError, match=r"8 shards are too many.*at most 7"):
        Shard(1, 8).rows(38)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/2", "1/0", "-1/2"])
def test_other_texts_are_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Shard.parse(text)
    assert str(Shard.parse("2/8")) == "2/8"


def test_an_interrupted_shard_continues(tmp_path: Path, whole: Path) -> None:
    folder, stopped, again = tmp_path / "shards", LettersEmbedder(), LettersEmbedder()
    stopped.stop_after = 7
    with pytest.raises(KeyboardInterrupt):
        extract_shard(stopped, PAIRS, folder, Shard(1, 2))
    assert extract_shard(again, PAIRS, folder, Shard(1, 2)) == 18
    assert len(stopped.computed) + len(again.computed) == 18  # nothing twice
    again.computed.clear()
    extract_shard(again, PAIRS, folder, Shard(1, 2))  # nothing to do
    assert again.computed == []
    extract_shard(again, PAIRS, folder, Shard(2, 2))
    check_same(folder, whole, merge_pairs(folder))


def test_without_a_shard_the_missing_ones_are_computed(tmp_path: Path, whole: Path) -> None:
    folder, one, rest = tmp_path / "shards", LettersEmbedder(), LettersEmbedder()
    extract_shard(one, PAIRS, folder, Shard(2, 3))
    check_same(folder, whole, extract_pairs(rest, PAIRS, folder))
    assert len(one.computed) + len(rest.computed) == 2 * len(PAIRS)


def test_a_merge_takes_what_one_process_began(tmp_path: Path, whole: Path) -> None:
    folder, stopped = tmp_path / "shards", LettersEmbedder()
    stopped.stop_after = 12
    with pytest.raises(KeyboardInterrupt):
        extract_pairs(stopped, PAIRS, folder)
    for shard in all_shards(2):
        extract_shard(LettersEmbedder(), PAIRS, folder, shard)
    check_same(folder, whole, merge_pairs(folder))


def test_an_interrupted_merge_continues(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, append, calls = tmp_path / "shards", FeatureWriter.append, []
    for shard in all_shards(3):
        extract_shard(LettersEmbedder(), PAIRS, folder, shard)

    def stop(self: FeatureWriter, rows: np.ndarray, pairs: str) -> None:
        calls.append(pairs)
        if len(calls) == 4:
            raise KeyboardInterrupt
        append(self, rows, pairs)

    monkeypatch.setattr(FeatureWriter, "append", stop)
    with pytest.raises(KeyboardInterrupt):
        merge_pairs(folder)
    check_same(folder, whole, merge_pairs(folder))
    assert len(calls) == 8


def test_a_merge_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        merge_pairs(tmp_path / "shards")
    extract_shard(LettersEmbedder(), PAIRS, tmp_path / "shards", Shard(1, 3))
    for read in (read_pair_features, merge_pairs):
        with pytest.raises(FileNotFoundError, match=r"2 of 3 shards are not.*--shard 2/3"):
            read(tmp_path / "shards")


@pytest.mark.parametrize("damage", ["flip", "cut", "exchange", "other pairs", "other settings"])
def test_a_merge_refuses_what_does_not_belong(tmp_path: Path, damage: str) -> None:
    folder, other = tmp_path / "shards", tmp_path / "other"
    for shard in all_shards(2):
        extract_shard(LettersEmbedder(), PAIRS, folder, shard)
    file = folder / "features.npy.2-of-2"
    if damage in ("flip", "cut"):
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content[:-16] if damage == "cut" else content)
    else:
        pairs = letter_pairs(20)[1:] if damage == "other pairs" else PAIRS
        made = LettersEmbedder(**({"layer": 2} if damage == "other settings" else {}))
        number = 1 if damage == "exchange" else 2
        for shard in all_shards(2):
            extract_shard(made, pairs, other, shard)
        for ending in ("", ".json"):
            source = other / f"features.npy.{number}-of-2{ending}"
            source.replace(folder / f"features.npy.2-of-2{ending}")
    for read in (read_pair_features, merge_pairs):
        with pytest.raises(ValueError, match=r"features\.npy\.2-of-2"):
            read(folder)
    assert not (folder / ROWS).exists()


def test_a_worker_refuses_other_settings(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    extract_shard(LettersEmbedder(), PAIRS, folder, Shard(1, 2))
    with pytest.raises(OtherSettingsError, match="pairs"):
        extract_shard(LettersEmbedder(), PAIRS[1:], folder, Shard(2, 2))
    with pytest.raises(OtherSettingsError, match="layer"):
        extract_shard(LettersEmbedder(layer=3), PAIRS, folder, Shard(2, 2))
    with pytest.raises(OtherSettingsError, match="filled in 2 shards"):
        extract_shard(LettersEmbedder(), PAIRS, folder, Shard(3, 3))
    discard_features(folder)
    assert list(folder.iterdir()) == []


def test_costs_of_all_workers_add_up(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    for shard in all_shards(2):
        extract_shard(LettersEmbedder(), PAIRS, folder, shard)
    assert merge_pairs(folder).costs.seconds > 0
    assert (folder / NOTE).exists()


WORKER = """
import os, sys, time, warnings
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stand_in import LettersEmbedder, letter_pairs
from cvxnn.features import FeatureWriter, Shard, blocks, extract_shard

warnings.simplefilter("ignore")  # the second worker says that it waits
blocks.BLOCK, append, place = 6, FeatureWriter.append, Path(sys.argv[2])


def slowly(self, rows, pairs):
    append(self, rows, pairs)
    (place / f"pid{os.getpid()}").touch()
    while not (place / "gate").exists():
        time.sleep(0.01)


FeatureWriter.append = slowly
extract_shard(LettersEmbedder(), letter_pairs(), place / "shards", Shard(1, 1))
"""


@pytest.mark.slow
def test_killed_workers_leave_what_they_finished_and_two_never_write_one_shard(
    tmp_path: Path, whole: Path
) -> None:
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(tmp_path)]
    workers = [subprocess.Popen(command) for _ in range(2)]
    while not (begun := list(tmp_path.glob("pid*"))):
        time.sleep(0.01)
    time.sleep(0.2)
    assert begun == list(tmp_path.glob("pid*"))  # the other one waits
    os.kill(int(begun[0].name.removeprefix("pid")), signal.SIGKILL)
    (tmp_path / "gate").touch()
    assert sorted(worker.wait() for worker in workers) == [-signal.SIGKILL, 0]
    folder = tmp_path / "shards"
    check_same(folder, whole, merge_pairs(folder))
