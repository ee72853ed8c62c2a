from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.features import blocks, extract_pairs
from cvxnn.features.store import read_features
from cvxnn.features.writer import FeatureWriter
from cvxnn.files.digests import digest
from cvxnn.llm import Embedder, EmbeddingCache, LanguageModel
from cvxnn.llm.block_journal import BlockJournal, kept_rows
from cvxnn.llm.token_embeddings import TokenEmbedder
from cvxnn.preference import PreferenceTriplet

torch = pytest.importorskip("torch")

N = 50


@pytest.fixture
def lm(tiny_lm: Callable[..., LanguageModel], monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setattr(blocks, "BLOCK", 8)
    return tiny_lm()


def pairs(n: int = N) -> tuple[list[str], list[str]]:
    """Pairs that share beginnings, and lengths that differ."""
    rng = np.random.default_rng(0)
    letters = np.array([*"abcdefghijklmnopqrst"])

    def text() -> str:
        return " ".join(rng.choice(letters, rng.integers(1, 9)))

    prompts = [text() for _ in range((n + 1) // 2)]
    return [prompts[i // 2] for i in range(n)], [text() for _ in range(n)]


def test_file_has_the_features_and_says_what_they_are(lm: LanguageModel, tmp_path: Path) -> None:
    prompts, responses = pairs()
    embedder = Embedder(lm, pooling="attention", layer=1)
    path = tmp_path / "features.npy"
    assert embedder.embed_to_file(path, iter(prompts), (r for r in responses)) == N
    features, description = read_features(path)
    np.testing.assert_allclose(features, embedder.embed(prompts, responses), rtol=1e-4, atol=1e-5)
    assert isinstance(features, np.memmap)
    assert description == embedder.description
    np.testing.assert_array_equal(np.load(path), features)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.npy", "features.npy.json"]
    assert embedder.tokens_computed_ > 0
    # A second run replaces the first.
    embedder.embed_to_file(path, prompts[:3], responses[:3])
    assert read_features(path)[0].shape == (3, 32)


class Killed(BaseException):
    pass


def killed_after(n: int, method: Any) -> Any:
    """Make the method raise at its call number n + 1."""
    calls = []

    def wrapped(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) > n:
            raise Killed
        return method(*args, **options)

    return wrapped


@pytest.mark.parametrize("n_calls", [0, 1, 4])
def test_killed_extraction_resumes_bit_by_bit(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_calls: int
) -> None:
    prompts, responses = pairs()
    whole = Embedder(lm, batch_tokens=32)
    whole.embed_to_file(tmp_path / "whole.npy", prompts, responses)
    path, embedder = tmp_path / "features.npy", Embedder(lm, batch_tokens=32)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "append", killed_after(n_calls, FeatureWriter.append))
        with pytest.raises(Killed):
            embedder.embed_to_file(path, prompts, responses)
    assert not path.exists()
    assert (tmp_path / "features.npy.part").exists() == (n_calls > 0)
    first = embedder.tokens_computed_
    embedder.embed_to_file(path, prompts, responses)
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert first + embedder.tokens_computed_ == whole.tokens_computed_  # nothing twice


@pytest.mark.parametrize("ending", ["interrupted", "killed", "damaged"])
def test_an_unfinished_block_is_kept(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    prompts, responses = pairs(8)  # one block
    whole = Embedder(lm, batch_tokens=16)
    whole.embed_to_file(tmp_path / "whole.npy", prompts, responses)
    path, embedder = tmp_path / "features.npy", Embedder(lm, batch_tokens=16)
    block = tmp_path / "features.npy.part.block"
    with monkeypatch.context() as patch:
        patch.setattr(TokenEmbedder, "_forward", killed_after(4, TokenEmbedder._forward))
        if ending == "killed":  # nothing is written at the end, but each batch was
            patch.setattr("cvxnn.llm.block_journal._SECONDS", 0.0)
            patch.setattr(BlockJournal, "close", lambda self: None)
        with pytest.raises(Killed):
            embedder.embed_to_file(path, prompts, responses)
    assert 4 <= kept_rows(path, 32) == block.stat().st_size // (32 + 4 * 32 + 4) < 8
    if ending == "damaged":
        content = bytearray(block.read_bytes())
        content[-3] ^= 1
        block.write_bytes(content)
    first = embedder.tokens_computed_
    embedder.embed_to_file(path, prompts, responses)
    again = first + embedder.tokens_computed_ - whole.tokens_computed_
    assert (again > 0) == (ending == "damaged")
    np.testing.assert_allclose(np.load(path), np.load(tmp_path / "whole.npy"), atol=1e-5)
    if ending != "damaged":
        assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir() if "features" in p.name) == [
        "features.npy",
        "features.npy.json",
    ]


@pytest.mark.parametrize("n_calls", [1, 3])
@pytest.mark.parametrize("share_prefixes", [True, False])
def test_killed_run_with_a_cache_resumes_bit_by_bit(
    lm: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_calls: int,
    share_prefixes: bool,
) -> None:
    prompts, responses = pairs()
    options: dict[str, Any] = {"batch_tokens": 40, "share_prefixes": share_prefixes}
    whole = Embedder(lm, cache=tmp_path / "whole.sqlite", **options)
    expected = whole.embed(prompts, responses)
    embedder = Embedder(lm, cache=tmp_path / "c.sqlite", **options)
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingCache, "put", killed_after(n_calls, EmbeddingCache.put))
        with pytest.raises(Killed):
            embedder.embed(prompts, responses)
    embedder = Embedder(lm, cache=tmp_path / "c.sqlite", **options)
    np.testing.assert_array_equal(embedder.embed(prompts, responses), expected, strict=True)
    assert 0 < embedder.tokens_computed_ < whole.tokens_computed_


def test_new_pairs_beside_cached_ones_are_computed_alone(lm: LanguageModel, tmp_path: Path) -> None:
    prompts, responses = pairs()
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        Embedder(lm, cache=cache).embed(prompts[::2], responses[::2])
        embedder, alone = Embedder(lm, cache=cache), Embedder(lm)
        embedder.embed(prompts, responses)
        alone.embed(prompts[1::2], responses[1::2])
    assert embedder.tokens_computed_ <= alone.tokens_computed_


@pytest.mark.parametrize("damage", ["log cut", "rows cut", "row flipped", "log gone"])
def test_damaged_unfinished_file_is_computed_again_from_there(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    prompts, responses = pairs()
    path, embedder = tmp_path / "features.npy", Embedder(lm)
    embedder.embed_to_file(tmp_path / "whole.npy", prompts, responses)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "append", killed_after(4, FeatureWriter.append))
        with pytest.raises(Killed):
            embedder.embed_to_file(path, prompts, responses)
    part, log = tmp_path / "features.npy.part", tmp_path / "features.npy.part.log"
    if damage == "log cut":
        log.write_text(log.read_text()[:-9])
    elif damage == "log gone":
        log.unlink()
    else:
        content = bytearray(part.read_bytes())
        content[-5] ^= 1
        part.write_bytes(content if damage == "row flipped" else content[:-5])
    embedder.embed_to_file(path, prompts, responses)
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_unfinished_file_of_something_else_is_refused(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, responses = pairs()
    path = tmp_path / "features.npy"
    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "append", killed_after(3, FeatureWriter.append))
        with pytest.raises(Killed):
            Embedder(lm).embed_to_file(path, prompts, responses)
    with pytest.raises(ValueError, match=r"\.part is unfinished .* with other settings"):
        Embedder(lm, layer=1).embed_to_file(path, prompts, responses)
    other = [*responses[:12], "a", *responses[13:]]
    with pytest.raises(ValueError, match=r"\.part is unfinished .* other pairs from row 8 on"):
        Embedder(lm).embed_to_file(path, prompts, other)
    Embedder(lm).embed_to_file(path, prompts, responses)
    np.testing.assert_allclose(
        np.load(path), Embedder(lm).embed(prompts, responses), rtol=1e-4, atol=1e-5
    )


def test_unfinished_file_of_an_earlier_version_is_named_as_such(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, responses = pairs()
    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "append", killed_after(1, FeatureWriter.append))
        with pytest.raises(Killed):
            Embedder(lm).embed_to_file(tmp_path / "features.npy", prompts, responses)
    log = tmp_path / "features.npy.part.log"
    first, block = log.read_text("utf-8").splitlines()
    n_rows, _, checksum = json.loads(block)
    texts = list(zip(prompts[:n_rows], responses[:n_rows], strict=True))
    block = json.dumps([n_rows, digest(texts, digits=64), checksum])
    log.write_text(f"{first}\n{block}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"begun by an earlier version .* --overwrite"):
        Embedder(lm).embed_to_file(tmp_path / "features.npy", prompts, responses, common_cut=True)
    log.write_text(log.read_text("utf-8").replace('"context": 0, ', ""), encoding="utf-8")
    with pytest.warns(UserWarning, match="an earlier version of cvxnn began"):
        Embedder(lm).embed_to_file(tmp_path / "features.npy", prompts, responses)


def test_bad_pairs_leave_no_file(lm: LanguageModel, tmp_path: Path) -> None:
    embedder, path = Embedder(lm), tmp_path / "features.npy"
    with pytest.raises(ValueError, match="nothing to embed"):
        embedder.embed_to_file(path, [], [])
    with pytest.raises(ValueError, match=r"response 1 is empty .* from pair 0"):
        embedder.embed_to_file(path, ["a"] * 2, ["b", ""])
    with pytest.raises(ValueError, match="not strings"):
        embedder.embed_to_file(path, "ab", "cd")
    with pytest.raises(ValueError, match="differ in number"):
        embedder.embed_to_file(path, ["a"], ["b", "c"])
    with pytest.raises(ValueError, match="common_cut needs"):
        embedder.embed_to_file(path, iter(["a"]), ["b"], common_cut=True)
    assert list(tmp_path.iterdir()) == []
    # What is finished stays: the same call, with better data, goes on.
    with pytest.raises(ValueError, match=r"response 2 is empty .* from pair 8"):
        embedder.embed_to_file(path, ["a"] * 20, [*["b"] * 10, "", *["c"] * 9])
    assert not path.exists()
    assert embedder.embed_to_file(path, ["a"] * 20, [*["b"] * 11, *["c"] * 9]) == 20
    assert embedder.embed_to_file(tmp_path / "new" / "f.npy", ["a"], ["b"]) == 1


def test_one_warning_counts_all_cut_pairs(lm: LanguageModel, tmp_path: Path) -> None:
    embedder = Embedder(lm, max_length=6)
    with pytest.warns(UserWarning, match=r"20 of 20 replies .* prompt\. Increase") as caught:
        embedder.embed_to_file(tmp_path / "f.npy", ["a b c d e f g"] * 20, ["a b"] * 20)
    assert len(caught) == 1


def test_file_and_note_that_do_not_belong_together(lm: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "f.npy"
    Embedder(lm).embed_to_file(path, ["a"] * 3, ["b", "c", "d"])
    np.save(path, np.zeros((2, 32), np.float32))
    with pytest.raises(ValueError, match=r"f\.npy does not hold the 3 rows of 32 numbers"):
        read_features(path)
    note = path.with_name("f.npy.json")
    note.write_text(json.dumps({"n_rows": 2}))
    with pytest.raises(ValueError, match="does not describe features"):
        read_features(path)
    note.unlink()
    with pytest.raises(FileNotFoundError, match=r"f\.npy\.json"):
        read_features(path)


MEMORY = """
import resource, sys
import itertools
sys.path.insert(0, {root!r})
from tests.llm.conftest import make_tiny_lm
import torch
torch.set_num_threads(1)
from cvxnn.llm import Embedder
embedder = Embedder(make_tiny_lm())
letters = "abcdefghijklmnopqrst"
def responses(n):
    for i in range(n):
        yield " ".join(letters[(i // 20**k) % 20] for k in range(4))
embedder.embed_to_file({path!r}, itertools.repeat("a b c", 300), responses(300))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
embedder.embed_to_file({path!r}, itertools.repeat("a b c", {n}), responses({n}))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory in kilobytes")
def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path: Path) -> None:
    def grown(n: int) -> float:
        names = {"root": str(Path(__file__).parents[2]), "path": str(tmp_path / "f.npy"), "n": n}
        done = subprocess.run(
            [sys.executable, "-c", MEMORY.format(**names)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    few, many = grown(1_000), grown(6_000)
    assert many < few + 4.0, (few, many)  # mebibytes; the features alone are 0.75 MiB


def test_pairs_that_are_equal_once_they_are_cut_are_counted(
    tiny_lm: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    pairs = [
        PreferenceTriplet("a", "b c", "d"),
        PreferenceTriplet("a", "b c d e f g", "b c d e f h"),  # 6 tokens
        PreferenceTriplet("a", "zzz", "yyy"),  # no words of the vocabulary
    ]
    embedder = Embedder(tiny_lm(), max_length=5)
    with (
        pytest.warns(UserWarning, match="lost the beginning of the prompt"),
        pytest.warns(
            UserWarning,
            match=r"2 of 3 pairs have the same embedding .* \(the first is number 1\)",
        ),
    ):
        features = extract_pairs(embedder, pairs, tmp_path)
    assert np.array_equal(features.chosen[1:], features.rejected[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract_pairs(Embedder(tiny_lm()), pairs[:1], tmp_path / "whole")
