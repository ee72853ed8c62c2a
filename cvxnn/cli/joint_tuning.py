"""Joint training of a language model: what ``cvxnn joint`` does with a file of pairs."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn.cli.console import Console
from cvxnn.cli.inputs import fine_tuned_first, model_of
from cvxnn.cli.joint_data import several, split_demonstrations, write_report
from cvxnn.cli.option_building import OptionGroup, UsageError, option_from
from cvxnn.cli.option_groups import FINE_TUNING, OBJECTIVE_GROUPS
from cvxnn.cli.option_types import real
from cvxnn.files.json_files import made_once
from cvxnn.files.locks import check_folder, check_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvxnn.llm import FineTuningConfig, LanguageModel

TUNING = OptionGroup(
    "cvxnn.llm.FineTuningConfig",
    {
        "trained": {},
        "supervised_batch": {},
        "max_length": {},
        **FINE_TUNING.options,
        "evaluate_every": {"help": "Steps between looks at held-out data, where a run may stop"},
        "lora_dropout": {"type": real(least=0, most=1)},
        "checkpoint_every": {},
    },
)
PERIOD = OptionGroup("cvxnn.SoftmaxPolicy", {"max_evaluation_steps": {}})  # added by joint.py
NOTE = "joint.json"


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """Add the options of training a language model.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of the command.
    """
    group = parser.add_argument_group("only if PAIRS is a file: training of the language model")
    presets = option_from("cvxnn.llm.fine_tuning.presets.preset", "name")
    text = "Settings of an experiment of the papers; those that are typed take precedence"
    group.add_argument("--preset", **{**presets, "help": text})
    group.add_argument(
        "--supervised-first",
        action="store_true",
        help="Let the sequential strategy begin with the demonstrations",
    )
    group.add_argument(
        "--sft-first",
        action="store_true",
        help="Fine-tune the model on the chosen replies first (on the demonstrations if those are "
        "first): the reference of DPO, and the start of each strategy",
    )
    TUNING.add_to(group)
    beta = option_from("cvxnn.preference.dpo", "beta")
    text = "DPO's pull towards the reference model, above 0, in the place of --beta"
    group.add_argument("--dpo-beta", **{**beta, "type": real(above=0), "help": text})


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Train the language model by each strategy and trade-off, and write the result.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    console : Console
        Where to write.

    Returns
    -------
    dict
        The result.

    Raises
    ------
    UsageError
        If a strategy needs frozen features.
    """
    from cvxnn.files.digests import digest_of_file
    from cvxnn.llm.fine_tuning.config import FineTuningConfig
    from cvxnn.llm.fine_tuning.presets import preset
    from cvxnn.llm.fine_tuning.strategy_runs import JOINT_STRATEGIES, compare_strategies

    typed = several(options.strategy)
    strategies = ("sequential", "alright", "maxright") if typed == ("exact",) else typed
    if wrong := [name for name in strategies if name not in JOINT_STRATEGIES]:
        raise UsageError(
            f"--strategy {','.join(wrong)} needs frozen features, a folder of cvxnn extract; of a "
            f"language model, choose among {', '.join(JOINT_STRATEGIES)}"
        )
    if options.stop_excess is not None and "alright" not in strategies:
        raise UsageError(
            f"--stop-excess needs alright in --strategy, not {','.join(strategies)} alone: where "
            "PAIRS is a file, its runs are the front"
        )
    settings = preset(options.preset) | TUNING.changed(options)
    periods = several(settings.pop("max_evaluation_steps", options.max_evaluation_steps))
    if PERIOD.changed(options):
        periods = several(options.max_evaluation_steps)
    beta = OBJECTIVE_GROUPS["dpo"].values(options)["beta"]
    config = FineTuningConfig(**settings, seed=options.seed, beta=beta)
    folder = Path(options.output)
    console.made += check_folder(folder)
    if options.report is not None:
        console.made += check_page(options.report)
    train, test = _data(options, console)
    lm = model_of(options, console)
    _check_preset(options.preset, config, lm)
    console.kept = lambda: f"{folder} keeps checkpoints; the same command continues"

    def compare() -> dict[str, Any]:
        start = lm
        if options.sft_first:
            first = replace(config, objective="sft", strategy="single", beta=None)
            name = "supervised" if options.supervised_first else "preferences"
            start = fine_tuned_first(lm, first, {name: getattr(train, name)}, folder, console)
        found = compare_strategies(
            start,
            config,
            train,
            test,
            folder,
            strategies=strategies,
            trade_offs=several(options.lam),
            periods=periods,
            supervised_first=options.supervised_first,
            stop_excess=options.stop_excess,
            progress=not console.quiet,
            say=lambda name: console.progress(f"run       {name}"),
        )
        return {"output": str(folder), **_with_shares(found, test.preferences)}

    free = ("checkpoint_every", "max_evaluation_steps")  # the latter are the periods
    known = {
        "pairs": digest_of_file(options.features),
        "demonstrations": digest_of_file(options.demonstrations),
        "test": None if options.test is None else digest_of_file(options.test),
        "limit": options.limit,
        "test_size": options.test_size,
        "model": lm.fingerprint,
        "strategies": list(strategies),
        "trade_offs": list(several(options.lam)),
        "periods": list(periods),
        "supervised_first": options.supervised_first,
        "sft_first": options.sft_first,
        "config": {k: v for k, v in vars(config).items() if k not in free},
    }
    if options.stop_excess is not None:
        known["stop_excess"] = options.stop_excess
    result = made_once(folder / NOTE, known, compare, overwrite=options.overwrite)
    _show(result, console)
    write_report(result, options, console)
    return result


def _check_preset(name: str, config: FineTuningConfig, lm: LanguageModel) -> None:
    """Refuse a preset of another kind of model, whose layers this one lacks."""
    ends = {module.rpartition(".")[2] for module, _ in lm.model.named_modules()}
    if missing := sorted(set(config.target_modules or ()) - ends):
        raise ValueError(
            f"--preset {name} has adapters in the layers {', '.join(missing)}, which {lm.name} "
            "lacks: it is for another kind of model; choose another --preset"
        )


def _data(options: argparse.Namespace, console: Console) -> Any:
    """Return the data to learn from and the held-out data; no prompt is on both sides."""
    from cvxnn.llm.fine_tuning.strategy_runs import JointData
    from cvxnn.preference.demonstrations import read_demonstrations
    from cvxnn.preference.files import read_preferences
    from cvxnn.preference.triplets import split_by_group

    pairs = read_preferences(options.features)[: options.limit]
    demonstrations = read_demonstrations(options.demonstrations, options.limit)
    if options.test is None:
        train, test = split_by_group(pairs, options.test_size, options.seed)
    else:
        train, test = pairs, read_preferences(options.test)[: options.limit]
    learnt, kept = split_demonstrations(
        demonstrations, train, test, options.test_size, options.seed
    )
    console.progress(
        f"data      {counted(len(train), 'training pair')}, "
        f"{counted(len(test), 'held-out pair')}; {len(learnt)} and {len(kept)} demonstrations"
    )
    parts = [
        JointData(part, [(each.prompt, each.response) for each in replies])
        for part, replies in ((train, learnt), (test, kept))
    ]
    return parts


def _with_shares(found: dict[str, Any], test: Sequence[Any]) -> dict[str, Any]:
    """Replace margins by the share of held-out pairs, and add costs beside those of sequential."""
    import numpy as np

    from cvxnn.comparison.measures import accuracy_of
    from cvxnn.joint.improvement import percentage_increase

    groups = [pair.group for pair in test]
    rows = found["policies"]
    base = {row["lam"]: row for row in rows if row["strategy"] == "sequential"}
    for row in rows:
        row["preferences"] = accuracy_of(np.array(row.pop("margins")), groups)
        row["n_groups"] = len(set(groups))
        beside = base.get(row["lam"])
        for name, key in (
            ("more_time", "cpu_seconds"),
            ("more_flops", "flops"),
            ("more_memory", "peak_bytes"),
        ):
            if beside is not None and beside[key] > 0:
                row[name] = percentage_increase(row[key], beside[key])
    found["start"].pop("margins")
    return found


def _show(result: dict[str, Any], console: Console) -> None:
    from cvxnn.comparison.measures import few_groups_text
    from cvxnn.comparison.texts import share_text

    console.show(
        f"{'strategy':<14} {'lambda':>6} {'DPO':>8} {'SFT':>8} {'ideal':>8} {'held DPO':>9} "
        f"{'held SFT':>9} {'steps':>6}  held-out pairs"
    )
    for row in [{"strategy": "(start)", "lam": None, **result["start"]}, *result["policies"]]:
        lam = "" if row["lam"] is None else f"{row['lam']:g}"
        share = row.get("preferences")
        shown = "" if share is None else share_text(share["accuracy"], share["interval"])
        ideal = f"{row['ideal_distance']:.4f}" if "ideal_distance" in row else ""
        console.show(
            f"{row['strategy']:<14} {lam:>6} {row['dpo']:>8.4f} {row['sft']:>8.4f} {ideal:>8} "
            f"{row['held_dpo']:>9.4f} {row['held_sft']:>9.4f} {row.get('steps', ''):>6}  {shown}"
        )
    console.show(
        "DPO, SFT: the objectives over all training data, then over held-out data, lower is\n"
        "better; ideal: distance from what training for each objective alone reached; then the\n"
        "share of held-out pairs ranked correctly by the implied reward, with its 95 % interval"
    )
    if any(row.get("stopped") for row in result["policies"]):
        console.show("fewer steps: a run that ended near the front of ALRIGHT's runs")
    if text := few_groups_text(min(row["n_groups"] for row in result["policies"])):
        console.complain("warning", text)
    done = "wrote" if result["status"] == "done" else "nothing to do:"
    console.show(f"{done} {result['output']}")
