"""Inputs of commands: preference pairs, language models, heads."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from cvxnn._messages import counted
from cvxnn._progress import seconds_text
from cvxnn.cli.console import Console
from cvxnn.cli.model_threads import choose_threads
from cvxnn.cli.option_building import UsageError
from cvxnn.cli.option_groups import DATA, MODEL
from cvxnn.features.named_models import named_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cvxnn.estimators.coala import COALAPreferenceHead
    from cvxnn.estimators.linear_head import LinearPreferenceHead
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.llm.fine_tuning.config import FineTuningConfig
    from cvxnn.llm.models import LanguageModel
    from cvxnn.preference.triplets import PreferenceTriplet

    Head: TypeAlias = COALAPreferenceHead | LinearPreferenceHead


def pairs_of(
    options: Namespace,
    console: Console,
    source: str,
    keep: Callable[[dict[str, Any]], object] | None = None,
) -> list[PreferenceTriplet]:
    """Read the pairs that the options of a command describe.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    console : Console
        Where to write how the pairs were made, if they come from conversations.
    source : str
        As for `cvxnn.datasets.read_pairs`.
    keep : callable, optional
        As for `cvxnn.datasets.read_pairs`.

    Returns
    -------
    list of PreferenceTriplet
        The pairs.
    """
    from cvxnn.datasets.sources import read_pairs

    def say(text: str) -> None:
        console.progress(f"data      {text}")

    return read_pairs(source, **DATA.values(options), say=say, keep=keep)


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
    known = None if Path(typed).exists() else named_model(typed)
    if known is not None:
        note = f"; {known.note}" if known.note else ""
        console.progress(f"licence   {known.licence} ({known.hub}){note}")
    _announce_conversion(values, console)
    lm = load_model(**values, progress=not console.quiet)
    if lm.device.type == "cpu":
        choose_threads(console)
    console.progress(f"model     {lm.name}, {str(lm.dtype).removeprefix('torch.')} on {lm.device}")
    return lm


def _announce_conversion(values: Mapping[str, Any], console: Console) -> None:
    """Say that a GGUF file is converted, of which the beginning cannot be counted."""
    from cvxnn.llm.devices import dtype_name, running_type
    from cvxnn.llm.model_files import ModelFiles, copy_of_gguf

    file, cache = ModelFiles.find(values["name_or_path"]).gguf, values["cache_dir"]
    if file is None:
        return
    hint = "; --model-cache FOLDER keeps the result"
    if cache is not None:
        number, _ = running_type(values["dtype"], values["device"])
        if copy_of_gguf(file, dtype_name(number), cache).is_dir():
            return
        hint = f", which {cache} keeps for the next time"
    console.progress(f"model     converting {file.name}{hint}")


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
    from cvxnn.llm.devices import running_type
    from cvxnn.llm.model_files import ModelFiles

    source = ModelFiles.find(options.model).digest()
    if source is None:
        return None
    dtype, _ = running_type(options.dtype, options.device)
    counted = {name: value for name, value in settings.items() if name != "batch_tokens"}
    return digest(source, str(dtype), counted)


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


def fine_tuned_first(
    lm: LanguageModel,
    config: FineTuningConfig,
    data: Mapping[str, Sequence[Any]],
    folder: Path,
    console: Console,
) -> LanguageModel:
    """Return the model fine-tuned on replies, which a later call finds in the folder.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    config : FineTuningConfig
        Settings, with the objective ``"sft"``.
    data : mapping of str to sequence
        What is learnt, by its name in `fine_tune`: ``preferences``, whose chosen replies are
        learnt, or ``supervised``.
    folder : Path
        Folder of the results, which gets a folder for this training.
    console : Console
        Where to write.

    Returns
    -------
    LanguageModel
        The fine-tuned model; adapters are merged.
    """
    from cvxnn.comparison.results import ADAPTER, START
    from cvxnn.comparison.texts import count_text
    from cvxnn.costs.meter import CostMeter
    from cvxnn.llm.fine_tuning.training_loop import fine_tune

    own, show = folder / START, not console.quiet
    tuned = fine_tune(lm, config, **data, folder=own, progress=show)
    tuned.save(own / ADAPTER)
    total, n = CostMeter.from_dict(tuned.costs).total, sum(map(len, data.values()))
    console.progress(
        f"start     fine-tuned on {counted(n, 'reply')}, {count_text(total.flops)}FLOPs and "
        f"{seconds_text(total.seconds)}, which nothing below is charged for"
    )
    return tuned.lm if config.trained == "all" else tuned.merge()


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
