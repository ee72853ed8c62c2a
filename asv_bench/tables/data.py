"""The tables: files of a folder, and how each is split into training and test rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FASHION = "fashion_mnist_20k_5k.npz"
# Fewer rows than this: one test part decides little, so --splits adds further ones.
FEW_ROWS = 3000
MASKED = {"X", "y", "test"}
SEPARATE = {"X_train", "y_train", "X_test", "y_test"}


class Split(NamedTuple):
    """What a method is trained on and what it is asked."""

    X: NDArray[np.float32]
    y: NDArray
    X_test: NDArray[np.float32]
    y_test: NDArray
    weight: NDArray | None = None
    """Of the training rows."""
    groups: NDArray | None = None
    """Of the training rows; none of them has test rows."""


def tables(folder: Path, more: Iterable[Path] = ()) -> dict[str, Path]:
    """Name and file of each table, by number of rows, so that the quick ones come first.

    Raises
    ------
    FileNotFoundError
        If there is no table, or one of ``more`` is missing.
    ValueError
        If a file lacks an array, or two have one name.
    """
    paths = [*(folder / "uci").glob("*.npz"), *(p for p in [folder / FASHION] if p.exists())]
    for path in more:
        paths.append(path if path.exists() else folder / path)
        if not paths[-1].exists():
            raise FileNotFoundError(f"--more: no file {path}, neither here nor in {folder}.")
    if not paths:
        raise FileNotFoundError(f"{folder} holds neither uci/*.npz nor {FASHION}.")
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"Two files would be one table; rename one of {sorted(map(str, paths))}.")
    paths.sort(key=lambda path: (_rows(path), path.stem))
    return {path.stem: path for path in paths}


def splits(path: Path, count: int) -> list[int]:
    """Numbers of the splits: 0 is the file's own, the others exist for few rows only.

    A file that brings its parts apart keeps them: its rows may belong together (the responses to
    one prompt), and a random split would part them.
    """
    with np.load(path) as file:
        random = "test" in file
    return list(range(count)) if random and _rows(path) < FEW_ROWS else [0]


def load(path: Path, split: int = 0) -> Split:
    """Rows of a split, features in float32."""
    with np.load(path) as file:
        if "test" not in file:
            X, X_test = (_features(file[name]) for name in ("X_train", "X_test"))
            own = (file.get(name) for name in ("weight_train", "groups_train"))
            return Split(X, file["y_train"], X_test, file["y_test"], *own)
        X, y, test = _features(file["X"]), file["y"], file["test"]
        groups = file.get("groups")
    a, b = _random_parts(y, groups, split) if split else (~test, test)
    return Split(X[a], y[a], X[b], y[b], groups=None if groups is None else groups[a])


def _random_parts(y: NDArray, groups: NDArray | None, seed: int) -> list[NDArray[np.intp]]:
    """Training and test rows: a stratified quarter of all, or the rows of a quarter of groups."""
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    if groups is None:
        return train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=seed)
    parts = GroupShuffleSplit(1, test_size=0.25, random_state=seed)
    return list(next(parts.split(y, groups=groups)))


def _rows(path: Path) -> int:
    with np.load(path) as file:
        if set(file) >= MASKED:
            return len(file["y"])
        if set(file) >= SEPARATE:
            return len(file["y_train"]) + len(file["y_test"])
        raise ValueError(
            f"{path} holds {sorted(file)}; expected {sorted(MASKED)} or {sorted(SEPARATE)}."
        )


def _features(X: NDArray) -> NDArray[np.float32]:
    """One row a sample; bytes (images) become fractions of 255."""
    pixels = X.dtype == np.uint8
    X = X.reshape(len(X), -1).astype(np.float32, copy=False)
    if pixels:
        X /= 255
    return X
