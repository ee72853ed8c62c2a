"""Files of preference data and of conversations, and data sets of the Hugging Face Hub."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from cvxnn._extras import require
from cvxnn.files.hub_access import hub_or_cache
from cvxnn.preference.formats.alpaca_eval_annotations import ALPACA_EVAL
from cvxnn.preference.formats.hh_rlhf import HH_RLHF
from cvxnn.preference.formats.llama_factory import LLAMA_FACTORY, turns_of
from cvxnn.preference.formats.trl import CONVERSATIONAL, STANDARD
from cvxnn.preference.formats.ultrafeedback import ULTRAFEEDBACK
from cvxnn.preference.row_checks import (
    Row,
    check_limit,
    optional_name,
    parse_messages,
    required_fields,
)
from cvxnn.preference.row_files import read_rows, write_rows
from cvxnn.preference.triplets import Conversation, PreferenceTriplet, as_messages
from cvxnn.preference.unused_rows import UnusedRows

ReadFormat = Literal[
    "auto",
    "standard",
    "conversational",
    "hh-rlhf",
    "ultrafeedback",
    "alpaca-eval",
    "llama-factory",
]
WriteFormat = Literal["standard", "conversational", "hh-rlhf"]

# "auto" uses the first format that recognises a row. The fields of hh-rlhf and of llama-factory are
# also those of TRL, so they come first.
FORMATS = {
    "ultrafeedback": ULTRAFEEDBACK,
    "llama-factory": LLAMA_FACTORY,
    "alpaca-eval": ALPACA_EVAL,
    "hh-rlhf": HH_RLHF,
    "standard": STANDARD,
    "conversational": CONVERSATIONAL,
}


# A row that looks like the second format among rows of the first is a broken transcript, if there
# are few. So many rows decide which format a file has, and one in as many may be broken so.
_BROKEN, _DECIDING = ("hh-rlhf", "standard"), 10


def read_preferences(
    path: str | os.PathLike[str],
    format: ReadFormat = "auto",
    limit: int | None = None,
    fields: Mapping[str, str] | None = None,
    keep: Callable[[Row], object] | None = None,
) -> list[PreferenceTriplet]:
    r"""Read preference triplets from a file.

    The formats are:

    ``"standard"``, ``"conversational"``
        Preference data of TRL. Both names read each of its variants, which may be mixed:
        ``prompt``, ``chosen`` and ``rejected`` are texts; or they are lists of messages, and turns
        of the prompt that are repeated in the replies are removed; or ``prompt`` is missing, and
        the longest common beginning of ``chosen`` and ``rejected`` takes its place: whole messages,
        or whole words. UltraFeedback binarised has this format.
    ``"hh-rlhf"``
        Transcripts whose turns begin with ``"\n\nHuman:"`` and ``"\n\nAssistant:"``: complete in
        ``chosen`` and ``rejected``, or up to the reply in ``prompt``. The prompt becomes a list of
        messages, and the first turn names the group, because one conversation is compared at
        several depths.
    ``"ultrafeedback"``
        An ``instruction`` and its ``completions``, each with a ``response`` and an
        ``overall_score`` or, without it, a ``fine-grained_score``. The best completion is compared
        with the worst.
    ``"alpaca-eval"``
        Annotations with ``instruction``, ``output_1``, ``output_2`` and a ``preference`` from 1
        (the first output) to 2 (the second); 1.5, 0 and null are ties.
    ``"llama-factory"``
        Preference data of LLaMA-Factory: ``chosen`` and ``rejected`` with ``instruction`` and,
        optionally, ``input``, ``system`` and ``history`` (Alpaca), or with ``conversations`` of
        turns ``from`` and ``value`` (ShareGPT).

    The first of the fields ``conversation_id``, ``group`` and ``id`` that is present becomes the
    group; other fields are ignored.

    Parameters
    ----------
    path : path-like
        JSON lines or one JSON array, compressed if the name ends in ``.gz``; a table whose first
        line has the names of the fields if it ends in ``.csv`` or ``.tsv``; or Parquet if it ends
        in ``.parquet``, which needs pyarrow (the extra "data"). Of a folder, all such files are
        read, by their names.
    format : str, default="auto"
        One of the formats above; ``"auto"`` decides by the fields of each row and rejects a file
        with rows of two formats. The first ten rows decide, and texts without marks among the
        transcripts of ``"hh-rlhf"`` are left out if they are at most a tenth.
    limit : int, optional
        Number of rows to read, at least 1; by default all.
    fields : mapping of str to str, optional
        Names of fields in the file, by the names that the format has for them, such as
        ``{"prompt": "question", "chosen": "winner", "rejected": "loser"}``.
    keep : callable, optional
        Function that gets the row of each triplet, with all its fields.

    Returns
    -------
    list of PreferenceTriplet
        Triplets in the order of the file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ImportError
        If pyarrow is needed and missing; install the extra "data".
    ValueError
        If a row is malformed (invalid JSON, a missing field, a wrong type): the message names the
        file, the line and the field; correct or remove the row. Also if formats are mixed, if the
        file is damaged, and if no row states a preference.

    Warns
    -----
    UserWarning
        If rows state no preference: equal replies, an empty reply, a tie, a broken transcript,
        transcripts that differ before their last reply, no common beginning, another text that is
        empty or null. Such rows are common in real data sets; they are left out and counted.
    """
    return _triplets(_renamed(read_rows(path, limit), fields), os.fspath(path), format, keep)


def read_hub(
    name: str,
    split: str = "train",
    limit: int | None = None,
    format: ReadFormat = "auto",
    fields: Mapping[str, str] | None = None,
    keep: Callable[[Row], object] | None = None,
    **options: Any,
) -> list[PreferenceTriplet]:
    """Read preference triplets from a data set of the Hugging Face Hub.

    Parameters
    ----------
    name : str
        Name on the Hub, such as ``"trl-lib/ultrafeedback_binarized"``.
    split : str, default="train"
        Name of the split.
    limit : int, optional
        Number of rows to read, at least 1; only these are downloaded. By default all rows are read.
    format : str, default="auto"
        Format of the rows, as for `read_preferences`.
    fields : mapping of str to str, optional
        Names of fields, as for `read_preferences`.
    keep : callable, optional
        Function that gets the row of each triplet, as for `read_preferences`.
    **options
        Further arguments of ``datasets.load_dataset``, such as ``revision``, or ``data_dir`` to
        choose a part of the data set.

    Returns
    -------
    list of PreferenceTriplet
        Triplets in the order of the data set.

    Raises
    ------
    ImportError
        If ``datasets`` is missing; install the extra "data".
    OSError
        If the data set is not on the Hub, or if the Hub cannot be reached and its cache lacks it.
    ValueError
        As for `read_preferences`; the message names the row by its number.

    Warns
    -----
    UserWarning
        As for `read_preferences`.
    """
    check_limit(limit)
    datasets = require("datasets", extra="data")
    what = f"read the data set {name!r}, which is no file or folder here"
    with hub_or_cache(what, "Without the Hub, name a file of pairs"):
        rows = datasets.load_dataset(name, split=split, streaming=limit is not None, **options)
        source = f"{name}[{split}]"
        numbered = enumerate(itertools.islice(rows, limit), start=1)
        named = ((f"{source}: row {n}", row) for n, row in numbered)
        return _triplets(_renamed(named, fields), source, format, keep)


def write_preferences(
    path: str | os.PathLike[str],
    triplets: Iterable[PreferenceTriplet],
    format: WriteFormat = "standard",
) -> None:
    """Write preference triplets, which `read_preferences` reads back unchanged in the same format.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    path : path-like
        File to create or to replace: Parquet if the name ends in ``.parquet`` (needs pyarrow, the
        extra "data"), otherwise JSON lines, compressed if the name ends in ``.gz``.
    triplets : iterable of PreferenceTriplet
        The triplets to write, at least one.
    format : {"standard", "conversational", "hh-rlhf"}, default="standard"
        ``"standard"`` holds prompts that are texts. The other formats also hold messages, and turn
        a text into one user message; ``"hh-rlhf"`` writes complete transcripts, of users and
        assistants only.

    Raises
    ------
    ImportError
        If pyarrow is needed and missing; install the extra "data".
    ValueError
        If there are no triplets, or if one could not be read back (for example because of an empty
        reply, equal replies, or a prompt that the format cannot hold).
    """
    write = FORMATS[format].write if format in FORMATS else None
    if write is None:
        names = [name for name, known in FORMATS.items() if known.write]
        raise ValueError(f"format is {format!r}; expected one of {names}")
    rows = []
    for number, triplet in enumerate(triplets):
        where = f"triplet {number}"
        row = {**write(triplet, where), "group": triplet.group}
        found = FORMATS[format].parse(row, where)
        if isinstance(found, str):
            raise ValueError(
                f"{where}: it would be read back as a row with {found}; leave it out, or write "
                "another format"
            )
        prompt = triplet.prompt if format == "standard" else as_messages(triplet.prompt)
        if found != replace(triplet, prompt=prompt):
            raise ValueError(
                f"{where}: it would be read back differently from {format!r} (blanks around a "
                "text, or a text with the marks of the format); write format='conversational'"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"no triplets to write to {os.fspath(path)}; expected at least one")
    write_rows(path, rows)


def read_conversations(
    path: str | os.PathLike[str], limit: int | None = None
) -> list[Conversation]:
    """Read conversations from rows with ``messages`` and, optionally, ``id`` and ``subject``.

    Instead of ``messages``, a row may have ``conversations`` of turns ``from`` and ``value``, as in
    ShareGPT.

    Parameters
    ----------
    path : path-like
        JSON lines, a JSON array or Parquet, as for `read_preferences`.
    limit : int, optional
        Number of rows to read, at least 1; by default all.

    Returns
    -------
    list of Conversation
        Conversations in the order of the file.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As for `read_preferences`.

    Warns
    -----
    UserWarning
        If rows have no messages, or one that is empty or null; they are left out and counted.
    """
    conversations: list[Conversation] = []
    unused = UnusedRows(os.fspath(path), "holds a conversation", "hold no conversation")
    for where, row in read_rows(path, limit):
        with unused.empty_texts(where):
            if "conversations" in row and "messages" not in row:
                messages = tuple(turns_of(row["conversations"], where, "conversations"))
            else:
                [value] = required_fields(row, ["messages"], where)
                messages = tuple(parse_messages(value, where, "messages"))
            name, subject = (optional_name(row, [field], where) for field in ("id", "subject"))
            conversations.append(Conversation(messages, name or "", subject))
    unused.report(len(conversations))
    return conversations


def _renamed(
    rows: Iterator[tuple[str, Row]], fields: Mapping[str, str] | None
) -> Iterator[tuple[str, Row]]:
    """Yield rows whose fields have the names of the format."""
    names = fields or {}
    for where, row in rows:
        values = required_fields(row, names.values(), where)
        rest = {name: value for name, value in row.items() if name not in names.values()}
        yield where, rest | dict(zip(names, values, strict=True))


def _triplets(
    rows: Iterator[tuple[str, Row]],
    source: str,
    format: str,
    keep: Callable[[Row], object] | None = None,
) -> list[PreferenceTriplet]:
    """Parse rows of one format; leave out rows that state no preference, with a warning."""
    if format != "auto" and format not in FORMATS:
        raise ValueError(f"format is {format!r}; expected 'auto' or one of {sorted(FORMATS)}")
    triplets: list[PreferenceTriplet] = []
    unused = UnusedRows(source, "states a preference", "state no preference")
    first, odd = "", list[tuple[str, str]]()
    if format == "auto":
        head = list(itertools.islice(rows, _DECIDING))
        names = [_recognise(row, where) for where, row in head]
        format = max(names, key=names.count, default="auto")
        first = head[names.index(format)][0] if head else ""
        rows = itertools.chain(head, rows)
    n_rows = 0
    for where, row in rows:
        n_rows += 1
        other = _recognise(row, where) if first else format
        if other != format:
            odd.append((where, other))
            if (format, other) != _BROKEN:
                raise _mixed(where, other, first, format)
        with unused.empty_texts(where):
            triplet = FORMATS[format].parse(row, where)
            if isinstance(triplet, PreferenceTriplet):
                triplets.append(triplet)
                if keep is not None:
                    keep(row)
            else:
                unused.add(triplet, where)
    if odd and (len(odd) > max(1, n_rows // _DECIDING) or 2 * len(odd) >= n_rows):
        raise _mixed(*odd[0], first, format)
    unused.report(len(triplets))
    return triplets


def _mixed(where: str, other: str, first: str, format: str) -> ValueError:
    return ValueError(
        f"{where}: this row is of the format {other!r}, but {first} is of {format!r}; expected one "
        "format: split the file, or name the format of all rows"
    )


def _recognise(row: Row, where: str) -> str:
    """Return the format of a row, which its fields decide."""
    for name, format in FORMATS.items():
        if format.recognises(row):
            return name
    if not row:
        raise ValueError(
            f"{where}: the row is empty; expected fields such as 'chosen' and 'rejected'"
        )
    raise ValueError(
        f"{where}: the fields {sorted(row)} belong to no known format; missing fields 'chosen' "
        "and 'rejected' (TRL, hh-rlhf), 'instruction' and 'completions' (UltraFeedback), or "
        "'output_1', 'output_2' and 'preference' (AlpacaEval). If they have other names, name "
        "them: --fields prompt=...,chosen=...,rejected=... on the command line, "
        "fields={'prompt': ..., 'chosen': ..., 'rejected': ...} in Python"
    )
