"""Comparison of preference methods on the same pairs: accuracy, reward margins and cost.

`compare` trains heads on frozen embeddings (COALA, a linear one) and fine-tunes (SFT, DPO, ORPO,
SimPO, ...) the same language model on the same training pairs. It measures all methods by the
accuracy of their rewards on the same held-out pairs.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from cvxnn._files import earlier_result, read_json, write_json
from cvxnn.comparison.fine_tuned import (
    CHECKPOINT,
    FINE_TUNED,
    fine_tune_and_evaluate,
    fine_tuning_config,
)
from cvxnn.comparison.heads import HEADS, LONGER, fit_head, length_baseline
from cvxnn.comparison.measures import peak_memory
from cvxnn.comparison.results import RESULT_FILE, Comparison, MethodResult
from cvxnn.comparison.texts import estimate_text
from cvxnn.features.pairs import PairFeatures, digest_of_pairs, discard_features
from cvxnn.preference.triplets import PreferenceTriplet

if TYPE_CHECKING:
    from cvxnn.llm.models import LanguageModel

Method = Literal["coala", "linear", "sft", "dpo", "r_dpo", "orpo", "simpo", "rrhf"]
METHODS: tuple[str, ...] = get_args(Method)


def compare(
    lm: LanguageModel,
    train: Sequence[PreferenceTriplet],
    test: Sequence[PreferenceTriplet],
    methods: Sequence[Method] = ("coala", "linear", "sft", "dpo", "orpo", "simpo"),
    *,
    folder: str | os.PathLike[str],
    embedding: Mapping[str, Any] | None = None,
    fine_tuning: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
) -> Comparison:
    """Train each method on the same pairs and measure all methods on the same held-out pairs.

    Parameters
    ----------
    lm : LanguageModel
        Model that gives the embeddings and that is fine-tuned. Its weights stay as they are.
    train : sequence of PreferenceTriplet
        Pairs to train on.
    test : sequence of PreferenceTriplet
        Held-out pairs. Split the data by group before, as
        `cvxnn.preference.split_by_group` does.
    methods : sequence of str, default=("coala", "linear", "sft", "dpo", "orpo", "simpo")
        Methods to compare, in this order; see `METHODS`.
    folder : path-like
        Folder for the results. It receives a file for each finished method and
        ``comparison.json``. A later call continues with the methods that are missing.
    embedding : mapping, optional
        Settings of `cvxnn.llm.Embedder`; a middle ``layer`` about halves the cost of the heads.
    fine_tuning : mapping, optional
        Fields of `cvxnn.llm.FineTuningConfig` for all fine-tuned methods.
    parameters : mapping of str to mapping, optional
        Parameters of single methods, such as
        ``{"coala": {"n_patterns": 32}, "dpo": {"beta": 0.05}}``.
    seed : int, default=0
        Seed of all random numbers.
    overwrite : bool, default=False
        If True, replace results of other settings; if False, refuse to continue from them.
    say : callable, optional
        Function that receives a line of text at the beginning and the end of each method.
    progress : bool, default=False
        If True, show progress bars on stderr.

    Returns
    -------
    Comparison
        Results of all methods, in the order of `methods`.

    Raises
    ------
    OtherSettingsError
        If the folder holds results of other data or settings; the message names each difference.
        Use another folder, or ``overwrite=True``.
    ValueError
        If a method is unknown, or if there are no pairs.
    """
    own = parameters or {}
    _check(methods, own, train, test)
    tell = say or (lambda _: None)
    folder = Path(folder)
    settings = {"embedding": dict(embedding or {}), "fine_tuning": dict(fine_tuning or {})}
    identity = {
        "model": lm.fingerprint,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "train": digest_of_pairs(train),
        "test": digest_of_pairs(test),
        "seed": seed,
    }
    configs = {
        method: fine_tuning_config(method, settings["fine_tuning"], own.get(method, {}), seed)
        for method in methods
        if method in FINE_TUNED
    }
    wanted: dict[str, dict[str, Any]] = {
        method: {**identity, "fine_tuning": dataclasses.asdict(configs[method])}
        if method in configs
        else {**identity, "embedding": settings["embedding"], "head": dict(own.get(method, {}))}
        for method in methods
    }
    # All files are checked before any work begins.
    found = {
        method: earlier_result(folder / f"{method}.json", wanted[method], overwrite=overwrite)
        for method in methods
    }
    features: tuple[PairFeatures, PairFeatures] | None = None
    results = []
    for method in methods:
        kept = found[method]
        if kept is not None:
            tell(f"{method:<9} kept from before")
            results.append(MethodResult.from_dict(kept["result"]))
            continue
        tell(f"{method:<9} begins")
        if method in HEADS:
            if features is None:
                features = _features(lm, train, test, folder, settings, overwrite, progress)
            result = _fit_head(method, features, own.get(method), seed, folder)
        else:
            if overwrite and (folder / method / CHECKPOINT).exists():  # written by cvxnn
                shutil.rmtree(folder / method)
            result = fine_tune_and_evaluate(
                lm, configs[method], train, test, folder=folder / method, progress=progress
            )
        file = folder / f"{method}.json"
        write_json(file, {"settings": wanted[method], "result": dataclasses.asdict(result)})
        result = MethodResult.from_dict(read_json(file)["result"])  # as a later call reads it
        held_out = estimate_text(result.accuracy, result.standard_error)
        tell(f"{method:<9} {held_out} held out")
        results.append(result)
    comparison = Comparison(
        model={"name": lm.name, "parameters": _n_parameters(lm), **_pick(identity)},
        data={
            "training_pairs": len(train),
            "held_out_pairs": len(test),
            "held_out_groups": len({pair.group for pair in test}),
            "train": identity["train"],
            "test": identity["test"],
        },
        settings={**settings, "parameters": {k: dict(v) for k, v in own.items()}, "seed": seed},
        baselines={LONGER: length_baseline(test)},
        results=tuple(results),
        groups=[pair.group for pair in test],
    )
    comparison.write(folder / RESULT_FILE)
    return comparison


def _check(
    methods: Sequence[str],
    parameters: Mapping[str, Any],
    train: Sequence[PreferenceTriplet],
    test: Sequence[PreferenceTriplet],
) -> None:
    unknown = [method for method in [*methods, *parameters] if method not in METHODS]
    if unknown or not methods:
        raise ValueError(f"methods are {list(methods)}; expected some of {list(METHODS)}")
    if not train or not test:
        raise ValueError(
            f"{len(train)} training and {len(test)} held-out pairs; expected at least one of each"
        )


def _features(
    lm: LanguageModel,
    train: Sequence[PreferenceTriplet],
    test: Sequence[PreferenceTriplet],
    folder: Path,
    settings: Mapping[str, Any],
    overwrite: bool,
    progress: bool,
) -> tuple[PairFeatures, PairFeatures]:
    """Return the embedded training and held-out pairs, which all heads share, from disk."""
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.llm.extraction import extract_pairs

    embedder = Embedder(lm, **settings["embedding"], progress=progress)
    parts = []
    for name, pairs in (("train", train), ("test", test)):
        place = folder / "features" / name
        if overwrite:
            discard_features(place)
        parts.append(extract_pairs(embedder, pairs, place))
    return parts[0], parts[1]


def _fit_head(
    method: str,
    features: tuple[PairFeatures, PairFeatures],
    parameters: Mapping[str, Any] | None,
    seed: int,
    folder: Path,
) -> MethodResult:
    from cvxnn.persistence import save

    train, test = features
    head, result = fit_head(method, train, test, parameters, seed=seed)
    save(head, folder / f"{method}.safetensors")
    costs = train.costs
    return dataclasses.replace(
        result,
        flops={"embeddings": float(costs.flops), **result.flops},
        seconds={"embeddings": costs.seconds, **result.seconds},
        peak_memory=max(peak_memory(costs), result.peak_memory or 0.0),
    )


def _n_parameters(lm: LanguageModel) -> int:
    return sum(weight.numel() for weight in lm.model.parameters())


def _pick(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"dtype": identity["dtype"], "fingerprint": identity["model"]}
