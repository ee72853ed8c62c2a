"""Questions of judges for three public benchmarks, in words of this project.

The texts ask for what the benchmarks ask for, with their scales and forms of an answer. They are
not the benchmarks' texts: for numbers that are to stand in a leaderboard, take those (a file
replaces each template).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ALPACA_EVAL = """\
You rank answers of language models by how much people would like them.

Request:
{prompt}

Answer of model m:
{first}

Answer of model M:
{second}

Which answer would most people who made this request prefer? Judge what is said, not how long it is
and not which model comes first. End with one line of exactly this form:
Verdict: m
or
Verdict: M
"""
"""Which of two answers people prefer, without ties."""

ARENA_HARD = """\
You are an impartial judge of two assistants that were given the same task. Solve the task yourself
first, briefly. Then compare both answers with yours: name mistakes, and say which answer is more
useful, which is more to the point, and whether something important is missing. The order of the
answers and their length are no reasons.

[Task]
{prompt}

[Assistant A]
{first}

[Assistant B]
{second}

End with exactly one of these verdicts:
[[A>>B]] if A is much better
[[A>B]] if A is somewhat better
[[A=B]] if both are about as good
[[B>A]] if B is somewhat better
[[B>>A]] if B is much better
"""
"""Two answers on five levels, after an answer of the judge's own."""

MT_BENCH = """\
You grade an assistant in a conversation. Grade its answer to the last message of the user: is it
helpful, relevant, correct, deep and detailed enough? {reference}

{conversation}

First give a short reason. Then grade from 1 (useless) to 10 (could not be better), in exactly this
form: [[grade]], for example [[5]].
"""
"""A grade from 1 to 10 for the answer to one turn, earlier turns being shown."""

PAIR_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {"alpaca-eval": ALPACA_EVAL, "arena-hard": ARENA_HARD}
)
"""Templates that compare two answers, by the name of the benchmark; for `EndpointJudge`."""
