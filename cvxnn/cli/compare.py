"""Train COALA, a linear head and fine-tuned models on the same pairs, and measure all the same way.

The folder gets the held-out accuracy (of the implied reward, where a model is fine-tuned), the
reward margins, FLOPs, peak memory and time of each method. --replies N also answers N of the
held-out prompts: the greedy reply, the best of some, and one that the head guides while it is
written. A second call continues with what is missing. "report" makes a page of the folder.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn.cli.console import Console
from cvxnn.cli.embedding_options import check_layers_of_features, check_layers_of_model
from cvxnn.cli.generate import add_replies, write_replies
from cvxnn.cli.inputs import (
    fine_tuned_first,
    model_of,
    pairs_of,
    request_of,
    required,
    reward_head,
)
from cvxnn.cli.option_building import UsageError, option_from
from cvxnn.cli.option_groups import (
    DATA,
    DATA_HELP,
    EMBEDDING,
    FINE_TUNING,
    GUIDANCE,
    HEAD,
    MODEL,
    OBJECTIVE_GROUPS,
    add_held_out,
    add_memory_plan,
    check_head,
)
from cvxnn.cli.option_types import natural, positive
from cvxnn.cli.plan import plan_only, show_plan
from cvxnn.files.digests import digest, digest_of_file
from cvxnn.files.json_files import as_json, damage_named, read_json, write_json
from cvxnn.files.locks import check_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cvxnn.cli.inputs import Head
    from cvxnn.comparison.results import Comparison
    from cvxnn.features.pairs import PairFeatures
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.llm.models import LanguageModel
    from cvxnn.preference.triplets import PreferenceTriplet, Prompt

REQUEST_FILE = "request.json"
"""File of a folder of results that says which command made it."""

HELP = "compare COALA, a linear head, SFT, DPO, ORPO and SimPO on the same pairs"
EXAMPLE = "  cvxnn compare pairs.jsonl --methods coala,linear,dpo --output comparison --seeds 3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    help = f"{DATA_HELP}, or folder of cvxnn extract"
    parser.add_argument("data", nargs="?", metavar="DATA", help=help)
    parser.add_argument(
        "--output", default="comparison", metavar="FOLDER", help="Folder for the results"
    )
    parser.add_argument("--methods", **option_from("cvxnn.comparison.compare", "methods"))
    parser.add_argument(
        "--seeds",
        type=positive,
        default=1,
        metavar="N",
        help="Number of seeds, from --seed on: means, their spread, and tests on the same pairs",
    )
    parser.add_argument(
        "--sft-first",
        action="store_true",
        help="Fine-tune the model on the chosen replies first, and let all methods start there",
    )
    folds = option_from("cvxnn.comparison.compare", "grid_folds")
    parser.add_argument("--grid-folds", **{**folds, "type": natural})
    parser.add_argument(
        "--replies",
        type=natural,
        default=0,
        metavar="N",
        help="Number of held-out prompts to answer",
    )
    add_replies(parser, best_of=5)
    parser.set_defaults(plain=True)
    add_held_out(parser)
    for group in (DATA, MODEL, EMBEDDING, HEAD, FINE_TUNING, GUIDANCE):
        group.add_to(parser)
    objectives = parser.add_argument_group("objectives of fine-tuning")
    for group in OBJECTIVE_GROUPS.values():
        group.add_to(objectives)
    add_memory_plan(parser)


def comparison_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `cvxnn.comparison.compare` that the options stand for.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.

    Returns
    -------
    dict
        Keyword arguments.
    """
    own = {"coala": HEAD, **OBJECTIVE_GROUPS}
    return {
        "embedding": EMBEDDING.values(options),
        "fine_tuning": {"max_length": options.max_length, **FINE_TUNING.values(options)},
        "parameters": {
            method: own[method].values(options) for method in options.methods if method in own
        },
        "grid_folds": options.grid_folds,
        "seed": options.seed,
        "overwrite": options.overwrite,
    }


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, data="DATA")
    if "coala" in options.methods:
        check_head(options)
    from cvxnn.comparison.results import HEAD_METHODS, REPLIES_FILE, RESULT_FILE
    from cvxnn.comparison.seeds import seeds_text, summarise_seeds
    from cvxnn.features.pairs import join_pair_features
    from cvxnn.preference.triplets import split_by_group

    folder = Path(options.output)
    pairs, *parts = _pairs(options, console, options.data)
    if options.test is None:
        train, test = split_by_group(pairs, options.test_size, options.seed)
    else:
        train, (test, *others) = pairs, _pairs(options, console, options.test)
        if len(parts) != len(others):
            raise ValueError(
                f"one of {options.data} and {options.test} is a folder of cvxnn extract, and the "
                "other is not; extract both, or none"
            )
        parts += others
    features = join_pair_features(parts) if parts else None
    if features is not None and options.sft_first:
        raise UsageError(
            "--sft-first changes the model, and extracted features are of the given one; give pairs"
        )
    if features is None:
        check_layers_of_model(options)
    elif "layer" in EMBEDDING.changed(options):
        check_layers_of_features(options.layer, features.layers, options.data, "--layer")
    console.progress(
        f"data      {counted(len(train), 'training pair')}, {counted(len(test), 'held-out pair')}"
    )
    heads = [method for method in HEAD_METHODS if method in options.methods]
    uses = ["embed"] if heads and features is None else []
    uses += ["fine_tune"] if len(options.methods) > len(heads) else []
    uses += ["guide"] if heads and options.replies and options.guided else []
    if options.plan_only:
        return plan_only(
            options,
            console,
            uses,
            folder,
            pairs,
            _prompts(test)[: options.replies] if heads else (),
            _tuning(options, train, test),
        )
    show_plan(options, console, uses)
    console.made += check_folder(folder)
    lines: list[str] = []

    @functools.cache
    def model() -> LanguageModel:
        lm = model_of(options, console)
        return _started(options, console, lm, train) if options.sft_first else lm

    def say(line: str) -> None:
        lines.append(line)
        console.progress(line)

    console.kept = lambda: _kept(lines, folder)
    seeds = range(options.seed, options.seed + options.seeds)
    several = options.seeds > 1
    found = []
    for seed in seeds:
        if several:
            console.progress(f"seed      {seed}")
        place = folder / f"seed-{seed}" if several else folder
        found.append(_measure(options, console, model, say, (train, test, features), place, seed))
    comparison, own = found[0], folder / f"seed-{options.seed}" if several else folder
    if several:
        rows = summarise_seeds(found)
        comparison = replace(comparison, seeds=rows)
        comparison.write(folder / RESULT_FILE)
    worked = any(line.endswith("begins") for line in lines)
    for result in comparison.results:
        console.show(f"{result.summary()}\n")
    if several:
        console.show(f"{seeds_text(comparison.seeds)}\n\nof the first seed:")
    console.show(str(comparison))
    console.show(
        "held out, train: share of pairs ranked correctly; margin: mean difference of the rewards\n"
        "of held-out pairs, in units of each method's own; FLOPs, memory and time with embeddings\n"
    )
    for sentence in comparison.conclusions():
        console.show(sentence)
    replies: list[dict[str, Any]] = []
    if options.replies and heads:

        def embedder(head: Head) -> Embedder:
            from cvxnn.llm.embeddings import Embedder

            description: Any = head.embedding
            return Embedder.from_description(
                model(), description, batch_tokens=options.batch_tokens
            )

        console.show()
        head_file = own / f"{heads[0]}.safetensors"
        written, replies = write_replies(
            options,
            console,
            reward_head(head_file),
            {"head": digest_of_file(head_file)},
            _prompts(test)[: options.replies],
            folder / REPLIES_FILE,
            embedder,
        )
        worked |= written
    file = folder / RESULT_FILE
    console.show(f"{'wrote' if worked else 'nothing to do:'} {file}")
    status = "done" if worked else "nothing to do"
    return {"status": status, "output": str(file), "replies": replies, **comparison.to_dict()}


def _started(
    options: argparse.Namespace, console: Console, lm: LanguageModel, train: Any
) -> LanguageModel:
    """Return the model fine-tuned on the chosen replies, which a later call finds in the folder."""
    from cvxnn.comparison.fine_tuned import fine_tuning_config

    settings = comparison_settings(options)["fine_tuning"]
    config = fine_tuning_config("sft", settings, {}, options.seed)
    return fine_tuned_first(lm, config, {"preferences": train}, Path(options.output), console)


def _measure(
    options: argparse.Namespace,
    console: Console,
    model: Callable[[], LanguageModel],
    say: Callable[[str], None],
    data: tuple[Any, Any, PairFeatures | None],
    folder: Path,
    seed: int,
) -> Comparison:
    """Return the comparison of one seed; one that an equal request has made needs no model."""
    from cvxnn.comparison.results import HEAD_METHODS, RESULT_FILE
    from cvxnn.features.pair_digests import digest_of_pairs

    train, test, features = data
    settings = {**comparison_settings(options), "seed": seed}
    wanted = EMBEDDING.changed(options)
    asked = {"methods": list(options.methods), **settings, "embedding": {**settings["embedding"]}}
    del asked["overwrite"], asked["embedding"]["batch_tokens"]
    identities = [digest_of_pairs(train), digest_of_pairs(test), features and features.identity]
    asked |= {"sft_first": True} if options.sft_first else {}
    asked["data"] = identities
    alone = features is not None and set(options.methods) <= {*HEAD_METHODS}
    alone &= not MODEL.changed(options)  # a model that is named is compared with the features
    request = digest(asked) if alone else request_of(options, asked)
    comparison = None if options.overwrite else _finished(folder, request, options.methods)
    if comparison is not None:
        for method in options.methods:
            say(f"{method:<9} kept from before")
        return comparison
    from cvxnn.comparison.experiment import compare
    from cvxnn.comparison.layers import choose_layers

    if features is not None:  # what is not asked for is that of the features
        layers = wanted.pop("layer", "auto")
        choice = choose_layers(features.find(train), layers, seed=seed, progress=not console.quiet)
        if len(features.layers) > 1:
            console.progress(str(choice))
        features = features.take_layers(choice.layers)
        settings["embedding"] = {"batch_tokens": options.batch_tokens, **wanted}
    comparison = compare(
        None if alone else model(),
        train,
        test,
        options.methods,
        folder=folder,
        features=features,
        embeddings=Path(options.output) / "features",
        **settings,
        say=say,
        progress=not console.quiet,
    )
    if request is not None:  # the next call need not load the model
        made = {"request": request, "result": digest_of_file(folder / RESULT_FILE)}
        write_json(folder / REQUEST_FILE, made)
    return comparison


def _pairs(options: argparse.Namespace, console: Console, source: str) -> tuple[Any, ...]:
    """Return pairs and, if they come from a folder of cvxnn extract, their features."""
    from cvxnn.features.pairs import is_extracted, read_pair_features

    if not is_extracted(source):
        return (pairs_of(options, console, source),)
    if given := sorted(DATA.changed(options)):
        raise ValueError(f"{source} holds extracted pairs, to which {given} do not apply")
    features = read_pair_features(source, progress=not console.quiet)
    return list(features.pairs), features


def _prompts(test: Sequence[PreferenceTriplet]) -> list[Prompt]:
    """Return the prompts of pairs, each once."""
    return list({as_json(pair.prompt): pair.prompt for pair in test}.values())


def _tuning(
    options: argparse.Namespace,
    train: Sequence[PreferenceTriplet],
    test: Sequence[PreferenceTriplet],
) -> dict[str, Callable[[], float]]:
    """Return functions that count the operations of each fine-tuning."""
    from cvxnn.comparison.fine_tuned import fine_tuning_config
    from cvxnn.comparison.results import HEAD_METHODS
    from cvxnn.comparison.texts import name_of
    from cvxnn.llm.workload import fine_tuning_flops

    settings = comparison_settings(options)
    found: dict[str, Callable[[], float]] = {}
    for method in options.methods:
        if method not in HEAD_METHODS:
            own = settings["parameters"].get(method, {})
            config = fine_tuning_config(method, settings["fine_tuning"], own, options.seed)
            found[name_of(method)] = functools.partial(
                fine_tuning_flops, options.model, train, test, config
            )
    return found


def _finished(folder: Path, request: str | None, methods: Sequence[str]) -> Comparison | None:
    """Return the comparison of a folder that an equal request has made, without a model."""
    from cvxnn.comparison.results import HEAD_METHODS, RESULT_FILE, Comparison

    files = [folder / f"{method}.json" for method in methods]
    files += [folder / f"{method}.safetensors" for method in methods if method in HEAD_METHODS]
    files += [folder / RESULT_FILE, folder / REQUEST_FILE]
    if request is None or not all(file.is_file() for file in files):
        return None
    made = {"request": request, "result": digest_of_file(folder / RESULT_FILE)}
    with damage_named():
        if read_json(folder / REQUEST_FILE) != made:
            return None
        return Comparison.read(folder / RESULT_FILE)


def _kept(lines: Sequence[str], folder: Path) -> str:
    """Return what an interrupted comparison has left, from the lines that it said."""
    from cvxnn.comparison.fine_tuned import CACHE, CHECKPOINT
    from cvxnn.comparison.results import HEAD_METHODS

    kept = [line.split()[0] for line in lines if not line.endswith("begins")]
    current = lines[-1].split()[0] if lines and lines[-1].endswith("begins") else None
    if current in HEAD_METHODS:
        kept.append("the embeddings that were finished")
    elif current is not None and any(folder.rglob(f"{current}/{CHECKPOINT}")):
        kept.append(f"the training of {current} until its last checkpoint")
    elif current is not None and any(map(_has_rows, folder.rglob(f"{current}/{CACHE}"))):
        kept.append(f"what the reference of {current} has scored")
    if not kept:
        return "nothing was kept; the same command begins again"
    return f"kept: {', '.join(kept)}; the same command continues"


def _has_rows(cache: Path) -> bool:
    from cvxnn.llm.cache import EmbeddingCache

    with EmbeddingCache(cache) as rows:
        return len(rows) > 0
