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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from cvxnn._progress import Phases
from cvxnn.comparison.grid import Pairs, Point, choose_point, folds_of, grid_of
from cvxnn.comparison.heads import HEADS, LONGER, fit_head, length_baseline
from cvxnn.comparison.measures import peak_memory
from cvxnn.comparison.results import RESULT_FILE, Comparison, MethodResult
from cvxnn.comparison.texts import name_of, share_text
from cvxnn.features.pair_digests import digest_of_pairs
from cvxnn.features.pairs import PairFeatures, discard_features
from cvxnn.files.json_files import damage_named, earlier_result, read_json, write_json
from cvxnn.files.locks import locked
from cvxnn.persistence import save
from cvxnn.preference.triplets import PreferenceTriplet

if TYPE_CHECKING:
    from cvxnn.features.description import Description
    from cvxnn.llm.fine_tuning.config import FineTuningConfig
    from cvxnn.llm.models import LanguageModel

Method = Literal["coala", "linear", "sft", "dpo", "r_dpo", "orpo", "simpo", "rrhf"]
METHODS: tuple[str, ...] = get_args(Method)


def compare(
    lm: LanguageModel | None,
    train: Sequence[PreferenceTriplet],
    test: Sequence[PreferenceTriplet],
    methods: Sequence[Method] = ("coala", "linear", "sft", "dpo", "orpo", "simpo"),
    *,
    folder: str | os.PathLike[str],
    embedding: Mapping[str, Any] | None = None,
    features: PairFeatures | None = None,
    fine_tuning: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    grid_folds: int = 0,
    embeddings: str | os.PathLike[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
) -> Comparison:
    """Train each method on the same pairs and measure all methods on the same held-out pairs.

    Parameters
    ----------
    lm : LanguageModel or None
        Model that gives the embeddings and that is fine-tuned. Its weights stay as they are. Heads
        on `features` need none.
    train : sequence of PreferenceTriplet
        Pairs to train on.
    test : sequence of PreferenceTriplet
        Held-out pairs. Split the data by group before, as
        `cvxnn.preference.split_by_group` does.
    methods : sequence of str, default=("coala", "linear", "sft", "dpo", "orpo", "simpo")
        Methods to compare, in this order; see `METHODS`.
    folder : path-like
        Folder for the results. It receives a file for each finished method and
        ``comparison.json``. A later call continues with the methods that are missing; one at the
        same time, in another process, waits.
    embedding : mapping, optional
        Settings of `cvxnn.llm.Embedder`; a middle ``layer`` about halves the cost of the heads.
    features : PairFeatures, optional
        Embeddings of all these pairs, as `cvxnn.features.read_pair_features` gives them; they are
        not computed again, and `embedding` is taken from them. The heads are charged for the share
        of the training pairs in the cost of the extraction.
    fine_tuning : mapping, optional
        Fields of `cvxnn.llm.FineTuningConfig` for all fine-tuned methods.
    parameters : mapping of str to mapping, optional
        Parameters of single methods, such as
        ``{"coala": {"n_patterns": 32}, "dpo": {"beta": 0.05}}``.
    grid_folds : int, default=0
        Number of folds of the training pairs on which each fine-tuned method chooses the
        hyper-parameters of its objective, out of the grid of the COALA paper (Table 8) and apart
        from those in `parameters`; 0 takes the defaults. Each point of the grid is trained once for
        each fold, and the cost of this search is counted.
    embeddings : path-like, optional
        Folder for the embeddings, which several comparisons may share; by default ``features`` in
        `folder`.
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
        If a method is unknown, if there are no pairs, if a method needs the model and there is
        none, or if the features are those of another model or lack some of the pairs.
    """
    own = {method: dict(values) for method, values in (parameters or {}).items()}
    _check(methods, own, train, test)
    say = say or (lambda _: None)
    embedding = dict(embedding or {})
    if lm is None and (features is None or any(method not in HEADS for method in methods)):
        raise ValueError(
            f"lm is None, and {', '.join(methods)} need the model; only heads on features need none"
        )
    if features is not None:
        if lm is not None:
            from cvxnn.llm.embeddings import Embedder

            description = cast("Description", features.embedding)
            lm = Embedder.from_description(lm, description, **embedding).lm
        names = ("layer", "pooling", "max_length")
        embedding |= {name: features.embedding[name] for name in names}
    shared = {"embedding": embedding, "fine_tuning": dict(fine_tuning or {})}
    experiment = _Experiment(
        lm,
        train,
        test,
        Path(folder),
        **shared,
        parameters=own,
        grid_folds=grid_folds,
        seed=seed,
        overwrite=overwrite,
        progress=progress,
        features=features,
        embeddings=Path(folder) / "features" if embeddings is None else Path(embeddings),
    )
    with locked(experiment.folder / RESULT_FILE):
        settings = {**shared, "parameters": own, "seed": seed}
        settings |= {"grid_folds": grid_folds} if grid_folds else {}
        comparison = _compare(experiment, methods, settings, say)
        comparison.write(experiment.folder / RESULT_FILE)
    return comparison


def _compare(
    experiment: _Experiment,
    methods: Sequence[Method],
    shared: dict[str, Any],
    say: Callable[[str], None],
) -> Comparison:
    overwrite = experiment.overwrite
    settings = {method: experiment.settings(method) for method in methods}
    files = {method: experiment.folder / f"{method}.json" for method in methods}
    # All files are checked before any work begins.
    is_done = {
        method: earlier_result(files[method], settings[method], overwrite=overwrite) is not None
        for method in methods
    }
    results = []
    for method in methods:
        if not is_done[method]:
            say(f"{method:<9} begins")
            files[method].unlink(missing_ok=True)  # must not describe what replaces its head
            result = dataclasses.asdict(experiment.run(method))
            write_json(files[method], {"settings": settings[method], "result": result})
        with damage_named():
            results.append(MethodResult.from_dict(read_json(files[method])["result"]))
        held_out = share_text(results[-1].accuracy, results[-1].interval)
        say(f"{method:<9} " + ("kept from before" if is_done[method] else f"{held_out} held out"))
    identity = experiment.identity
    return Comparison(
        model={
            **experiment.model,
            "dtype": identity["dtype"],
            "fingerprint": identity["model"],
        },
        data={
            "training_pairs": len(experiment.train),
            "held_out_pairs": len(experiment.test),
            "held_out_groups": len({pair.group for pair in experiment.test}),
            "train": identity["train"],
            "test": identity["test"],
        },
        settings=shared,
        baselines={LONGER: length_baseline(experiment.test)},
        results=tuple(results),
        groups=[pair.group for pair in experiment.test],
    )


@dataclass(frozen=True)
class _Experiment:
    """Data and settings that the methods of a comparison share, and the way to run each."""

    lm: LanguageModel | None
    train: Sequence[PreferenceTriplet]
    test: Sequence[PreferenceTriplet]
    folder: Path
    embedding: dict[str, Any]
    fine_tuning: dict[str, Any]
    parameters: dict[str, dict[str, Any]]
    seed: int
    overwrite: bool
    progress: bool
    embeddings: Path
    grid_folds: int = 0
    features: PairFeatures | None = None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Settings that all results depend on."""
        if self.lm is not None:
            model = self.lm.fingerprint
            dtype, date = str(self.lm.dtype).removeprefix("torch."), self.lm.date.isoformat()
        else:
            known = cast("PairFeatures", self.features).embedding
            model, dtype, date = known["fingerprint"], known["dtype"], known["date"]
        return {
            "model": model,
            "dtype": dtype,
            "date": date,
            "train": digest_of_pairs(self.train),
            "test": digest_of_pairs(self.test),
            "seed": self.seed,
        }

    @property
    def model(self) -> dict[str, Any]:
        """Name and size of the model; the size is not known of features alone."""
        if self.lm is None:
            known = cast("PairFeatures", self.features).embedding
            return {"name": known["model"], "parameters": None}
        n_parameters = sum(weight.numel() for weight in self.lm.model.parameters())
        return {"name": self.lm.name, "parameters": n_parameters}

    def settings(self, method: str) -> dict[str, Any]:
        """Return everything that the result of a method depends on."""
        if method in HEADS:
            own = self.parameters.get(method, {})
            return {**self.identity, "embedding": self.embedding, "head": own}
        found = {**self.identity, "fine_tuning": dataclasses.asdict(self._config(method))}
        if points := self._grid(method):
            found["grid"] = {"folds": self.grid_folds, "points": points}
        return found

    def run(self, method: str) -> MethodResult:
        """Train a method and measure it."""
        return self._fit_head(method) if method in HEADS else self._fine_tune(method)

    @cached_property
    def _features(self) -> tuple[PairFeatures, PairFeatures]:
        """Embedded training and held-out pairs, which all heads share."""
        if self.features is not None:
            return self.features.find(self.train), self.features.find(self.test)
        from cvxnn.features.extraction import extract_pairs
        from cvxnn.llm.embeddings import Embedder

        embedder = Embedder(
            cast("LanguageModel", self.lm), **self.embedding, progress=self.progress
        )
        parts = []
        for name, pairs in (("train", self.train), ("test", self.test)):
            place = self.embeddings / name
            if self.overwrite:
                discard_features(place)
            parts.append(extract_pairs(embedder, pairs, place))
        return parts[0], parts[1]

    def _fit_head(self, method: str) -> MethodResult:
        train, test = self._features
        own = self.parameters.get(method)
        with Phases("fit", {name_of(method): 1.0}, show=self.progress):
            head, result = fit_head(method, train, test, own, seed=self.seed)
        save(head, self.folder / f"{method}.safetensors")
        costs = train.costs
        if self.features is not None:  # of an extraction of more pairs
            share = len(train) / len(self.features)
            flops, seconds = round(share * costs.flops), share * costs.seconds
            costs = dataclasses.replace(costs, flops=flops, seconds=seconds)
        return dataclasses.replace(
            result,
            flops={"embeddings": float(costs.flops), **result.flops},
            seconds={"embeddings": costs.seconds, **result.seconds},
            peak_memory=max(peak_memory(costs), result.peak_memory or 0.0),
        )

    def _config(self, method: str, point: Mapping[str, float] | None = None) -> FineTuningConfig:
        from cvxnn.comparison.fine_tuned import fine_tuning_config

        own = {**self.parameters.get(method, {}), **(point or {})}
        return fine_tuning_config(method, self.fine_tuning, own, self.seed)

    def _grid(self, method: str) -> list[Point]:
        """Return the hyper-parameters among which a method chooses; empty if it does not."""
        own = self.parameters.get(method, {})
        return grid_of(method, own) if self.grid_folds else []

    def _fine_tune(self, method: str) -> MethodResult:
        points = self._grid(method)
        if not points:
            return self._train(self._config(method), self.train, self.test, self.folder / method)
        folds = list(folds_of(self.train, self.grid_folds, self.seed))
        place = self.folder / "grid" / method

        def measure(point: Point, k: int, train: Pairs, test: Pairs) -> MethodResult:
            config = self._config(method, point)
            name = "-".join([*(f"{key}-{value:g}" for key, value in point.items()), f"fold-{k}"])
            settings = {"fine_tuning": dataclasses.asdict(config), **self.identity}
            settings["fold"] = [k, self.grid_folds]
            file = place / f"{name}.json"
            kept = earlier_result(file, settings, overwrite=self.overwrite)
            if kept is None:
                result = self._train(config, train, test, place / name)
                kept = {"settings": settings, "result": dataclasses.asdict(result)}
                write_json(file, kept)
            return MethodResult.from_dict(kept["result"])

        point, rows, cost = choose_point(points, folds, measure)
        found = self._train(
            self._config(method, point), self.train, self.test, self.folder / method
        )
        return dataclasses.replace(
            found,
            flops={"search": cost["flops"], **found.flops},
            seconds={"search": cost["seconds"], **found.seconds},
            settings={**found.settings, "grid": rows},
        )

    def _train(
        self,
        config: FineTuningConfig,
        train: Sequence[PreferenceTriplet],
        test: Sequence[PreferenceTriplet],
        folder: Path,
    ) -> MethodResult:
        from cvxnn.comparison.fine_tuned import CHECKPOINT, fine_tune_and_evaluate

        if self.overwrite and (folder / CHECKPOINT).exists():  # written by cvxnn
            shutil.rmtree(folder)
        lm = cast("LanguageModel", self.lm)
        return fine_tune_and_evaluate(
            lm, config, train, test, folder=folder, progress=self.progress
        )


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
