"""Let a judge compare the replies of cvxnn generate, and report win rates with their intervals.

The judge is a head (a file of "cvxnn fit", on the model that it was fitted with), a measure that
the file has (field:reward, field:log_probability), or a language model behind the interface of
OpenAI (http://..., with --judge-model). Each way of writing is compared with the --baseline. With
--protocol mt-bench, REPLIES is a file of answers to MT-Bench, whose turns the server grades.
Answers are kept as they come, so that a second call asks only what is open.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, required, reward_head
from cvxnn.cli.mt_bench_scores import grade_answers
from cvxnn.cli.option_building import UsageError, option_from
from cvxnn.cli.option_groups import BATCH, MODEL
from cvxnn.cli.option_types import nearest, positive
from cvxnn.cli.report import read_examples
from cvxnn.files.digests import digest, digest_of_file
from cvxnn.files.json_files import as_json, made_once, read_json
from cvxnn.files.locks import check_file
from cvxnn.files.writing import read_text

if TYPE_CHECKING:
    from cvxnn.evaluation.judges import JudgedComparison

HELP = "let a judge compare replies, with win rates"
EXAMPLE = "  cvxnn evaluate replies.jsonl --judge http://localhost:8000/v1 --judge-model NAME"
_FIELD = "field:"
_FEW = 30  # prompts; a win rate over fewer says little


class _Judge(NamedTuple):
    """Judge, how one calls it, and what its answers depend on."""

    asks: Any
    name: str
    identity: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument(
        "replies", nargs="?", metavar="REPLIES", help="File of cvxnn generate --output"
    )
    parser.add_argument(
        "--judge", metavar="JUDGE", help="A head, field:NAME, or the address of a server"
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
    server = parser.add_argument_group("a server as the judge")
    endpoint = "cvxnn.evaluation.chat_client.ChatClient"
    server.add_argument(
        "--judge-model", metavar="NAME", help="Name of the model, as the server knows it"
    )
    server.add_argument(
        "--protocol",
        choices=("alpaca-eval", "arena-hard", "mt-bench"),
        help="Ask as a benchmark does; mt-bench grades each turn of REPLIES, a file of answers, "
        "from 1 to 10",
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
    budget = {**option_from(endpoint, "token_budget"), "type": positive, "metavar": "N"}
    server.add_argument("--token-budget", **budget)
    server.add_argument("--n-requests", **option_from(endpoint, "n_requests"))
    for group in (MODEL, BATCH):
        group.add_to(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, replies="REPLIES", judge="--judge")
    if options.protocol == "mt-bench":
        return grade_answers(options, console)
    rows = [row for row in read_examples(options.replies) if len(row.get("replies", {})) > 1]
    if not rows:
        raise ValueError(
            f"{options.replies}: no prompt has two replies; expected those of cvxnn generate with "
            "--plain or --best-of"
        )
    names = list(dict.fromkeys(name for row in rows for name in row["replies"]))
    baseline = options.baseline or ("plain" if "plain" in names else names[0])
    if baseline not in names:
        raise UsageError(
            f"--baseline {baseline}: the replies are {', '.join(names)}{nearest(baseline, names)}"
        )
    output = Path(options.output)
    console.made += check_file(output)
    judge = _judge(options, rows)
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
    _warn_of_own_head(options, console)
    return result


def _judge(options: argparse.Namespace, rows: list[dict[str, Any]]) -> _Judge:
    from cvxnn.evaluation.endpoint_judge import TEMPLATE, EndpointJudge
    from cvxnn.evaluation.protocols import PAIR_TEMPLATES
    from cvxnn.evaluation.reward_model_judge import RewardModelJudge

    judge = options.judge
    if judge.startswith(("http://", "https://")):
        if options.judge_model is None:
            raise UsageError("--judge with an address needs --judge-model")
        template = PAIR_TEMPLATES.get(options.protocol, TEMPLATE)
        if options.template is not None:
            template = read_text(options.template)
        asks = EndpointJudge(
            judge,
            options.judge_model,
            template=template,
            token_budget=options.token_budget,
            n_requests=options.n_requests,
        )
        name = f"{options.judge_model} at {judge}"
        asked = f"{options.protocol or 'template'} {digest(template)}"
        return _Judge(lambda *_: asks, name, f"{name}, {asked}")
    for name in ("judge_model", "template", "token_budget"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for a server as the judge")
    if options.protocol is not None:
        raise UsageError("--protocol is for a server as the judge")
    if judge.startswith(_FIELD):
        known = _field(rows, judge.removeprefix(_FIELD), options.replies)
        return _Judge(lambda *_: RewardModelJudge(known), judge, judge)
    if not Path(judge).is_file():
        raise FileNotFoundError(
            f"no such judge: {judge}; expected the file of a head, field:NAME, or an address that "
            "begins with http://"
        )

    def of_head(options: argparse.Namespace, console: Console) -> RewardModelJudge:
        head = reward_head(judge)
        return RewardModelJudge(head, features=embedder_of(options, console, head).embed)

    return _Judge(of_head, f"head {Path(judge).name}", digest_of_file(judge))


def _field(rows: list[dict[str, Any]], name: str, path: str) -> Any:
    """Return the scores that a field of the replies has, as a function of prompts and texts."""
    scores: dict[tuple[str, str], float] = {}
    for k, row in enumerate(rows):
        for way, reply in row["replies"].items():
            value = reply.get(name) if isinstance(reply, dict) else None
            if not _is_number(value):
                fields = reply if isinstance(reply, dict) else {}
                numbers = sorted(field for field in fields if _is_number(fields[field]))
                known = f"it has {', '.join(numbers)}" if numbers else "it has no number"
                raise ValueError(
                    f"{path}: prompt {k + 1}, reply {way!r} has no number {name!r}; {known}"
                    f"{nearest(name, numbers)}"
                )
            scores[as_json(row["prompt"]), reply["text"]] = float(value)

    def known_scores(prompts: list[Any], texts: list[str]) -> list[float]:
        return [scores[as_json(p), text] for p, text in zip(prompts, texts, strict=True)]

    return known_scores


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
    from cvxnn.evaluation.length_control import length_controlled_win_rate
    from cvxnn.evaluation.win_rates import win_rate

    preferences, bias = found.preferences, found.position_bias
    decided = (preferences != 0.5).any()
    lengths = found.length_differences
    controlled = None
    if len(preferences) > 1 and lengths.any():
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
    console.show(f"judge     {result['judge']}; each way of writing against {result['baseline']}")
    console.show("          share of prompts won, a tie counts half, with its 95 % interval")
    least = min(system["prompts"] for system in result["systems"].values())
    for name, system in result["systems"].items():
        rate, apart = system["win_rate"], system["without_ties"]
        low, high = rate["interval"]
        counts = f"{rate['wins']} won, {rate['losses']} lost, {rate['ties']} tied"
        console.show(f"{name:<9} {rate['rate']:.1%} [{low:.1%}, {high:.1%}]: {counts}")
        if system["left_out"]:
            console.show(f"          {system['left_out']} prompts left out: a reply is empty")
        if apart is not None and rate["ties"]:
            console.show(f"          {apart['rate']:.1%} without ties")
        controlled = system["length_controlled"]
        if controlled is not None:
            console.show(
                f"          {controlled['rate']:.1%} at equal length, {controlled['overlap']:.0%} "
                f"overlap; {system['length_difference']:+.0f} characters on average"
            )
        bias = system["position_bias"]
        if bias is not None and bias["consistency"] is not None:
            console.show(
                f"          {bias['consistency']:.1%} of the answers are the same in both orders"
            )
    if result["tokens"]:
        console.show(f"tokens    {result['tokens']:,}")
    if result["unclear"]:
        console.complain("warning", f"{result['unclear']} answers had no verdict; they are ties")
    if least < _FEW:
        console.complain(
            "warning",
            f"the win rate is over {least} prompts only, so it may be far off, as its interval "
            f"shows; judge at least {_FEW}",
        )
    done = "wrote" if result["status"] == "done" else "nothing to do:"
    console.show(f"{done} {result['output']}")


def _warn_of_own_head(options: argparse.Namespace, console: Console) -> None:
    """Say so where the judge is what guided the replies."""
    note = Path(f"{options.replies}.json")
    own = options.judge == f"{_FIELD}reward"
    if note.is_file() and Path(options.judge).is_file():
        own |= read_json(note).get("settings", {}).get("head") == digest_of_file(options.judge)
    if own:
        console.complain(
            "warning",
            "the head that chose or guided the replies judges them here, which says little "
            "about them; take a judge that had no part in them",
        )
