"""Let a judge compare replies, and report win rates with their intervals.

REPLIES is a file of cvxnn generate. With --comparison, the base model, the fine-tuned models and
the heads of cvxnn compare answer --prompts first. Each way of writing is compared with the
--baseline. The judge is a head (a file of "cvxnn fit", on the model that it was fitted with), words
that a model is fitted to (words:PAIRS), a measure that the file has (field:reward,
field:log_probability), or a language model behind the interface of OpenAI (http://..., with
--judge-model). With --protocol mt-bench, REPLIES is a file of answers to MT-Bench, or --comparison
answers --questions, and the server grades their turns. Answers are kept as they come, so that a
second call asks only what is open. --report writes one page of everything.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn.cli.comparison_answers import ANSWERS_FILE, ComparisonAnswers, add_comparison
from cvxnn.cli.console import Console
from cvxnn.cli.inputs import required
from cvxnn.cli.judge_choice import FIELD, check_judge, choose_judge, is_server
from cvxnn.cli.mt_bench_scores import grade_answers
from cvxnn.cli.option_building import UsageError, option_from
from cvxnn.cli.option_groups import BATCH, MODEL
from cvxnn.cli.option_types import names_among, nearest, positive
from cvxnn.cli.report import read_examples
from cvxnn.files.digests import digest_of_file
from cvxnn.files.json_files import made_once, read_json, write_json
from cvxnn.files.locks import check_file, check_page
from cvxnn.files.writing import write_text

if TYPE_CHECKING:
    from cvxnn.evaluation.judges import JudgedComparison

HELP = "let a judge compare replies, with win rates"
EXAMPLE = "  cvxnn evaluate replies.jsonl --judge http://localhost:8000/v1 --judge-model NAME"
PROTOCOLS = ("alpaca-eval", "arena-hard", "mt-bench")
OWN_HEAD = (
    "the head that chose or guided the replies judges them here, which says little about them; "
    "take a judge that had no part in them"
)
_FEW = 30  # prompts; a win rate over fewer says little


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument(
        "replies", nargs="?", metavar="REPLIES", help="File of cvxnn generate --output"
    )
    parser.add_argument(
        "--judge",
        metavar="JUDGE",
        help="A head, words:PAIRS, field:NAME, or the address of a server",
    )
    parser.add_argument(
        "--output", default="evaluation.json", metavar="FILE", help="File for the results"
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="Way of writing that the others are compared with; by default plain, or the first",
    )
    compare = "cvxnn.evaluation.compare_with_judge"
    parser.add_argument("--both-orders", **option_from(compare, "both_orders"))
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="HTML page of win rates, scores, and replies side by side",
    )
    server = parser.add_argument_group("a server as the judge")
    endpoint = "cvxnn.evaluation.chat_client.ChatClient"
    server.add_argument(
        "--judge-model", metavar="NAME", help="Name of the model, as the server knows it"
    )
    server.add_argument(
        "--protocol",
        type=names_among(PROTOCOLS),
        metavar="NAME,...",
        help=f"Ask as benchmarks do, out of {', '.join(PROTOCOLS)}; mt-bench grades each turn from "
        "1 to 10",
    )
    server.add_argument(
        "--questions", metavar="FILE", help="question.jsonl of MT-Bench, for --protocol mt-bench"
    )
    server.add_argument(
        "--template",
        metavar="FILE",
        help="File with the question in place of the protocol's: it has {prompt}, {first} and "
        "{second}, or {conversation} and {reference}",
    )
    text = "Number of tokens, of questions and answers, after which no further question is asked, "
    text += "in this call; of several protocols, each has as many"
    budget = {**option_from(endpoint, "token_budget"), "type": positive, "metavar": "N"}
    budget["help"] = text
    server.add_argument("--token-budget", **budget)
    server.add_argument("--n-requests", **option_from(endpoint, "n_requests"))
    add_comparison(parser)
    for group in (MODEL, BATCH):
        group.add_to(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    if options.comparison is None:
        required(options, replies="REPLIES", judge="--judge")
    required(options, judge="--judge")
    protocols = options.protocol or (None,)
    _check_protocols(options, protocols)
    output = Path(options.output)
    console.made += check_file(output)
    if options.report is not None:
        console.made += check_page(options.report)
    if options.replies is not None and Path(options.replies).is_dir():
        raise UsageError(
            f"{options.replies} is a folder; of cvxnn compare, give it as --comparison, with "
            "--prompts"
        )
    answers = None if options.comparison is None else ComparisonAnswers(options, console)
    check_judge(options.judge)
    if answers is not None:
        _check_baseline(options.baseline, answers.names)
    if answers is not None and options.replies is None:
        options.replies = str(Path(options.comparison) / ANSWERS_FILE)
    if answers is not None and protocols != ("mt-bench",):
        answers.to_prompts(Path(options.replies))
    found = {}
    for protocol in protocols:
        several = len(protocols) > 1
        own = output.with_name(f"{output.stem}-{protocol}{output.suffix}") if several else output
        if protocol == "mt-bench":
            given = None if answers is None else answers.to_mt_bench
            found[protocol] = grade_answers(options, console, own, given)
        else:
            found[protocol or ""] = _win_rates(options, console, protocol, own)
    if len(found) == 1:
        [result] = found.values()
    else:
        result = {"output": str(output), "protocols": found}
        write_json(output, result)
    if options.report is not None:
        from cvxnn.comparison.report.evaluation_page import render_evaluation

        rows = [] if protocols == ("mt-bench",) else read_examples(options.replies)
        write_text(Path(options.report), render_evaluation(found, rows))
        console.show(f"wrote {options.report}")
    return result


def _check_baseline(baseline: str | None, names: list[str]) -> None:
    if baseline is not None and baseline not in names:
        raise UsageError(
            f"--baseline {baseline}: the replies are {', '.join(names)}{nearest(baseline, names)}"
        )


def _check_protocols(options: argparse.Namespace, protocols: tuple[str | None, ...]) -> None:
    several = len(protocols) > 1
    if several and options.template is not None:
        raise UsageError("--template is the question of one protocol; give one --protocol")
    if several and "mt-bench" in protocols and options.comparison is None:
        raise UsageError(
            "answers to MT-Bench are another file than replies: ask for --protocol mt-bench alone, "
            "or let a --comparison answer both"
        )
    if protocols != (None,) and not is_server(options.judge):
        raise UsageError("--protocol is for a server as the judge: give its address as --judge")
    if is_server(options.judge) and options.judge_model is None:
        raise UsageError("--judge with an address needs --judge-model")
    if "mt-bench" in protocols and options.questions is None:
        raise UsageError("--protocol mt-bench needs --questions, the question.jsonl of MT-Bench")


def _win_rates(
    options: argparse.Namespace, console: Console, protocol: str | None, output: Path
) -> dict[str, Any]:
    """Let the judge compare the replies, and show the win rates."""
    rows = [row for row in read_examples(options.replies) if len(row.get("replies", {})) > 1]
    if not rows:
        raise ValueError(
            f"{options.replies}: no prompt has two replies; expected those of cvxnn generate with "
            "--plain or --best-of"
        )
    names = list(dict.fromkeys(name for row in rows for name in row["replies"]))
    baseline = options.baseline or ("plain" if "plain" in names else names[0])
    _check_baseline(baseline, names)
    judge = choose_judge(options, rows, protocol)
    settings = {
        "replies": digest_of_file(options.replies),
        "judge": judge.identity,
        "baseline": baseline,
        "both_orders": options.both_orders,
        "seed": options.seed,
    }
    log = output.with_suffix(".judgements.jsonl")
    console.kept = lambda: f"answers are kept in {log}; the same command continues"

    def ask() -> dict[str, Any]:
        if options.overwrite:
            log.unlink(missing_ok=True)
        asks = judge.asks(options, console)
        return {
            "judge": judge.name,
            "own_head": _is_own_head(options),
            "judge_warning": judge.warning,
            "baseline": baseline,
            "systems": {
                name: _compare(options, console, rows, name, baseline, asks, judge.identity, log)
                for name in names
                if name != baseline
            },
            "unclear": getattr(asks, "n_unclear", 0),
            "tokens": getattr(asks, "tokens", None),
        }

    result = made_once(output, settings, ask, overwrite=options.overwrite)
    _show(result, console)
    if result.get("own_head"):
        console.complain("warning", OWN_HEAD)
    if result.get("judge_warning"):
        console.complain("warning", result["judge_warning"])
    return result


def _compare(
    options: argparse.Namespace,
    console: Console,
    rows: list[dict[str, Any]],
    name: str,
    baseline: str,
    judge: Any,
    identity: str,
    log: Path,
) -> dict[str, Any]:
    from cvxnn.evaluation.judges import compare_with_judge

    ways = (name, baseline)
    own = [row for row in rows if all(_text(row["replies"].get(way)).strip() for way in ways)]
    if not own:
        raise ValueError(f"no prompt has both a reply {name!r} and a reply {baseline!r} with words")
    found = compare_with_judge(
        judge,
        [row["prompt"] for row in own],
        [_text(row["replies"][name]) for row in own],
        [_text(row["replies"][baseline]) for row in own],
        both_orders=options.both_orders,
        systems=(name, baseline),
        seed=options.seed,
        log=log,
        judge_name=identity,
        batch_size=options.n_requests,
        progress=not console.quiet,
    )
    return {**_summary(found), "left_out": len(rows) - len(own)}


def _summary(found: JudgedComparison) -> dict[str, Any]:
    import numpy as np

    from cvxnn.evaluation.length_control import length_controlled_win_rate
    from cvxnn.evaluation.win_rates import win_rate

    preferences, bias = found.preferences, found.position_bias
    decided = (preferences != 0.5).any()
    lengths = found.length_differences
    controlled = None
    if np.ptp(lengths) > 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `_show` warns, also of earlier results
            controlled = asdict(length_controlled_win_rate(preferences, lengths))
    return {
        "prompts": len(preferences),
        "win_rate": asdict(win_rate(preferences)),
        "without_ties": asdict(win_rate(preferences, ties="exclude")) if decided else None,
        "length_controlled": controlled,
        "length_difference": float(lengths.mean()),
        "position_bias": None if bias is None else asdict(bias),
        "preferences": preferences.tolist(),
    }


def _text(reply: Any) -> str:
    return str(reply["text"] if isinstance(reply, dict) else reply or "")


def _show(result: dict[str, Any], console: Console) -> None:
    from cvxnn.evaluation.length_control import LEAST_OVERLAP

    beyond = []
    console.show(f"judge     {result['judge']}; each way of writing against {result['baseline']}")
    console.show("          share of prompts won, a tie counts half, with its 95 % interval")
    least = min(system["prompts"] for system in result["systems"].values())
    for name, system in result["systems"].items():
        rate, apart = system["win_rate"], system["without_ties"]
        low, high = rate["interval"]
        counts = f"{rate['wins']} won, {rate['losses']} lost, {rate['ties']} tied"
        console.show(f"{name:<9} {rate['rate']:.1%} [{low:.1%}, {high:.1%}]: {counts}")
        if system["left_out"]:
            console.show(
                f"          {counted(system['left_out'], 'prompt')} left out: a reply is empty"
            )
        if apart is not None and rate["ties"]:
            console.show(f"          {apart['rate']:.1%} without ties")
        controlled = system["length_controlled"]
        if controlled is not None:
            console.show(
                f"          {controlled['rate']:.1%} at equal length, {controlled['overlap']:.0%} "
                f"overlap; {system['length_difference']:+.0f} characters on average"
            )
            if controlled["overlap"] < LEAST_OVERLAP:
                beyond.append(name)
        elif system["length_difference"]:
            console.show(
                f"          always {system['length_difference']:+.0f} characters: the effect of "
                "length cannot be told apart"
            )
        bias = system["position_bias"]
        if bias is not None and bias["consistency"] is not None:
            console.show(
                f"          {bias['consistency']:.1%} of the answers are the same in both orders"
            )
    if beyond:
        console.complain(
            "warning",
            f"{', '.join(beyond)}: one side wrote nearly all of the longer replies, so the win "
            "rate at equal length is an extrapolation; judge replies of similar length",
        )
    if result["tokens"]:
        console.show(f"tokens    {result['tokens']:,}")
    if result["unclear"]:
        console.complain(
            "warning",
            f"{counted(result['unclear'], 'answer')} had no verdict, which counts as a tie",
        )
    if least < _FEW:
        console.complain(
            "warning",
            f"the win rate is over {counted(least, 'prompt')} only, so it may be far off, as its "
            f"interval shows; judge at least {_FEW}",
        )
    done = "wrote" if result["status"] == "done" else "nothing to do:"
    console.show(f"{done} {result['output']}")


def _is_own_head(options: argparse.Namespace) -> bool:
    """Return whether the judge is what guided some of the replies."""
    note = Path(f"{options.replies}.json")
    if options.judge == f"{FIELD}reward":
        return True
    if not note.is_file() or not Path(options.judge).is_file():
        return False
    made = read_json(note).get("settings", {})
    return digest_of_file(options.judge) in [made.get("head"), *made.get("weights", {}).values()]
