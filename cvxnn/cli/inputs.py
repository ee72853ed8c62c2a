"""Inputs of commands: preference pairs, prompts, language models, heads."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from cvxnn.cli.console import Console
from cvxnn.cli.option_building import UsageError
from cvxnn.cli.option_groups import DATA, MODEL
from cvxnn.features.named_models import NAMED_MODELS
from cvxnn.files.writing import read_text

if TYPE_CHECKING:
    from cvxnn.estimators.coala import COALAPreferenceHead
    from cvxnn.estimators.linear_head import LinearPreferenceHead
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.llm.models import LanguageModel
    from cvxnn.preference.triplets import PreferenceTriplet, Prompt

    Head: TypeAlias = COALAPreferenceHead | LinearPreferenceHead


def pairs_of(options: Namespace, console: Console, source: str) -> list[PreferenceTriplet]:
    """Read the pairs that the options of a command describe.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    console : Console
        Where to write how the pairs were made, if they come from conversations.
    source : str
        As for `cvxnn.datasets.read_pairs`.

    Returns
    -------
    list of PreferenceTriplet
        The pairs.
    """
    from cvxnn.datasets.sources import read_pairs

    def say(text: str) -> None:
        console.progress(f"data      {text}")

    return read_pairs(source, **DATA.values(options), say=say)


def model_of(options: Namespace, console: Console, name: str | None = None) -> LanguageModel:
    """Load the language model that the options name.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    console : Console
        Where to write.
    name : str, optional
        Model to load if the options name none.

    Returns
    -------
    LanguageModel
        The model.
    """
    from cvxnn.llm.loading import load_model

    values = MODEL.values(options)
    if values["name_or_path"] is None:
        values["name_or_path"] = name
    typed = str(values["name_or_path"])
    known = None if Path(typed).exists() else NAMED_MODELS.get(typed.lower())
    if known is not None:
        note = f"; {known.note}" if known.note else ""
        console.progress(f"licence   {known.licence} ({known.hub}){note}")
    lm = load_model(**values)
    if lm.device.type == "cpu":
        choose_threads(console)
    console.progress(f"model     {lm.name}, {str(lm.dtype).removeprefix('torch.')} on {lm.device}")
    return lm


def request_of(options: Namespace, settings: dict[str, Any]) -> str | None:
    """Identify what a command is asked for, without loading the model.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    settings : dict
        Everything else that the result depends on; ``batch_tokens`` does not count.

    Returns
    -------
    str or None
        Digest of the model's files, of the type of its weights and of the settings; None for a
        model of the Hub, which may change there.
    """
    from cvxnn.files.digests import digest
    from cvxnn.llm.loading import running_type
    from cvxnn.llm.model_files import ModelFiles

    source = ModelFiles.find(options.model).digest()
    if source is None:
        return None
    dtype, _ = running_type(options.dtype, options.device)
    counted = {name: value for name, value in settings.items() if name != "batch_tokens"}
    return digest(source, str(dtype), counted)


def choose_threads(console: Console) -> None:
    """Leave busy cores to other programs, since threads that wait for each other are slow.

    Parameters
    ----------
    console : Console
        Where to say how many threads are left.
    """
    import torch

    if "OMP_NUM_THREADS" in os.environ or not hasattr(os, "getloadavg"):
        return
    most, allowed = torch.get_num_threads(), cores_allowed()
    free = round((os.cpu_count() or 1) - os.getloadavg()[0])
    n_threads = max(min(most, allowed, free), 1)
    if n_threads < most:
        torch.set_num_threads(n_threads)
        reason = "this container may use no more cores"
        if free < allowed:
            reason = "other programs keep cores busy"
        console.progress(
            f"threads   {n_threads} of {most}, since {reason} (OMP_NUM_THREADS decides)"
        )


def cores_allowed(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use.

    Parameters
    ----------
    limit : pathlib.Path, default=/sys/fs/cgroup/cpu.max
        File with the limit of a container: microseconds of processor time in a period, or ``max``.

    Returns
    -------
    int
        At least 1: the cores that the process may run on, or fewer by the limit.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = limit.read_text("ascii").split()
        return min(cores, max(round(int(quota) / int(period)), 1))
    except (OSError, ValueError):  # no limit
        return cores


def required(options: Namespace, **names: str) -> None:
    """Refuse a command whose positional arguments were neither typed nor set in the file.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    **names : str
        For each argument, its name in the help.

    Raises
    ------
    UsageError
        If one is missing.
    """
    missing = [shown for name, shown in names.items() if getattr(options, name) in (None, [])]
    if missing:
        raise UsageError(f"missing: {', '.join(missing)} (see cvxnn {options.command} --help)")


def read_prompts(path: str, limit: int | None = None) -> list[Prompt]:
    """Read prompts: rows with ``prompt``, or plain text with one prompt a line.

    Parameters
    ----------
    path : str
        The file: text if its name ends in ``.txt`` or has no ending, otherwise as for `read_rows`
        of `cvxnn.preference`. Both are in UTF-8.
    limit : int, optional
        Use the first so many prompts only.

    Returns
    -------
    list of (str or list of Message)
        The prompts; of rows, each distinct prompt once.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind, empty, or not in UTF-8, or if a row has no prompt; the
        message names file, line and field.
    """
    from cvxnn.preference.row_files import read_rows

    if Path(path).is_dir() or not Path(path).exists():
        raise FileNotFoundError(f"no such file of prompts: {path}")
    if Path(path).suffix.lower() in ("", ".txt"):
        found = lines_of(read_text(path))
        if not found:
            raise ValueError(f"{path}: the file is empty; expected one prompt a line")
        return found[:limit]
    prompts: dict[str, Prompt] = {}
    for where, row in read_rows(path):
        prompt = _prompt_of(row, where)
        prompts.setdefault(repr(prompt), prompt)
        if len(prompts) == limit:
            break
    return list(prompts.values())


def lines_of(text: str) -> list[Prompt]:
    """Return the prompts of a text: its lines that are not blank.

    Parameters
    ----------
    text : str
        Text whose lines end in a line feed, or in carriage return and line feed.

    Returns
    -------
    list of str
        The lines, without their ends.
    """
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def read_replies(
    source: str, limit: int | None = None
) -> list[tuple[Prompt, str, dict[str, Any]]] | None:
    """Read prompts and replies from JSON lines with ``prompt`` and ``response``.

    Parameters
    ----------
    source : str
        The file.
    limit : int, optional
        Read the first so many rows only.

    Returns
    -------
    list of (prompt, response, row) or None
        The texts, and all fields of the row. None if `source` is not a file of that kind.

    Raises
    ------
    ValueError
        If a row lacks its prompt or its response.
    """
    from cvxnn.preference.row_checks import check_text
    from cvxnn.preference.row_files import read_rows

    if not Path(source).is_file():
        return None
    replies: list[tuple[Prompt, str, dict[str, Any]]] = []
    for where, row in read_rows(source, limit):
        if not replies and "response" not in row:
            return None
        response = row.get("response")
        check_text(response, where, "response")
        replies.append((_prompt_of(row, where), str(response), row))
    return replies


def read_candidates(source: str) -> list[tuple[Prompt, str, dict[str, Any]]]:
    """Read several replies to each prompt.

    Parameters
    ----------
    source : str
        File of rows with ``prompt`` and ``response``, with ``prompt`` and a list ``responses``, or
        with ``prompt`` and ``replies`` as ``cvxnn generate`` writes them.

    Returns
    -------
    list of (prompt, response, row)
        The texts. A row of several replies gives one for each, with ``response`` and, where replies
        have names, ``name`` in place of the list.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a row lacks its prompt or a reply; the message names file, line and field.
    """
    from cvxnn.preference.row_checks import check_text
    from cvxnn.preference.row_files import read_rows

    if not Path(source).is_file():
        raise FileNotFoundError(f"no such file of replies: {source}")
    found: list[tuple[Prompt, str, dict[str, Any]]] = []
    for where, row in read_rows(source):
        kind = next((name for name in ("response", "responses", "replies") if name in row), None)
        values = row.get(kind) if kind is not None else None
        expected = {"responses": list, "replies": dict}
        if kind is None or not isinstance(values, expected.get(kind, object)) or not values:
            pair = {"chosen", "rejected"} <= row.keys()
            hint = "; of pairs, cvxnn score gives the reward of both replies" if pair else ""
            raise ValueError(
                f"{where}: expected 'response' with a text, 'responses' with a list of texts, or "
                f"'replies' as cvxnn generate writes them{hint}"
            )
        prompt = _prompt_of(row, where)
        rest = {name: value for name, value in row.items() if name != kind}
        named = (
            values.items()
            if isinstance(values, dict)
            else [(None, text) for text in (values if isinstance(values, list) else [values])]
        )
        for name, value in named:
            text = value.get("text") if isinstance(value, dict) else value
            check_text(text, where, kind)
            extra = {"response": text} if name is None else {"name": name, "response": text}
            found.append((prompt, str(text), {**rest, **extra}))
    return found


def _prompt_of(row: dict[str, Any], where: str) -> Prompt:
    from cvxnn.preference.row_checks import check_text, parse_messages

    prompt = row.get("prompt")
    if isinstance(prompt, list):
        return parse_messages(prompt, where, "prompt")
    check_text(prompt, where, "prompt")
    return str(prompt)


def reward_head(file: str | Path) -> Head:
    """Load a preference head.

    Parameters
    ----------
    file : path-like
        File of ``cvxnn fit``, or of ``cvxnn.save``.

    Returns
    -------
    COALAPreferenceHead or LinearPreferenceHead
        The head, or the CV class of one.

    Raises
    ------
    ValueError
        If the file holds another estimator.
    """
    from cvxnn.persistence import load

    head: Any = load(file)
    if not hasattr(head, "reward"):
        raise ValueError(f"{file} is a {type(head).__name__}; expected a preference head")
    return cast("Head", head)


def embedder_of(
    options: Namespace, console: Console, head: Head, cache: Path | None = None
) -> Embedder:
    """Return the embedder that a head was fitted with, on the model that the options name.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    console : Console
        Where to write.
    head : COALAPreferenceHead or LinearPreferenceHead
        Fitted head.
    cache : Path, optional
        File that keeps embeddings.

    Returns
    -------
    Embedder
        With the settings of the head.

    Raises
    ------
    ValueError
        If the head does not say how its embeddings were made.
    """
    from cvxnn.features.description import check_not_of_server
    from cvxnn.llm.embeddings import Embedder

    description = getattr(head, "embedding", None)
    if description is None:
        raise ValueError(
            "the head does not say how its embeddings were made; score a folder of cvxnn extract, "
            "or fit the head with cvxnn fit"
        )
    check_not_of_server(description)
    if options.dtype == "auto":
        options.dtype = description["dtype"]
    name = description["model"]  # of a model on the Hub, it is enough to load it
    lm = model_of(options, console, name if "/" in name else None)
    return Embedder.from_description(
        lm, description, batch_tokens=options.batch_tokens, progress=not console.quiet, cache=cache
    )
