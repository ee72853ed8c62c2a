"""Means over replies, and the warning of a reward that rises while the text becomes worse."""

from __future__ import annotations

from typing import Any

import pytest

from cvxnn.comparison.reply_table import hacking_text, reply_means, reply_table


def reply(reward: float, log_probability: float | None = -1.0, **fields: Any) -> dict[str, Any]:
    known = {"n_tokens": 4, "repetition": 0.0, "ending": "end"}
    return {"reward": reward, "log_probability": log_probability, **known, **fields}


EXAMPLES = [
    {"prompt": "a", "replies": {"plain": reply(0.0), "guided": reply(1.0, -1.2)}},
    {"prompt": "b", "replies": {"plain": reply(1.0), "guided": reply(3.0, -1.0, ending="length")}},
]


def test_means_over_replies():
    plain, guided = reply_means(EXAMPLES)
    assert (plain.name, plain.n_replies, plain.n_cut, plain.reward) == ("plain", 2, 0, 0.5)
    assert (guided.n_cut, guided.reward, guided.n_tokens) == (1, 2.0, 4.0)
    assert guided.log_probability == pytest.approx(-1.1)
    assert [line.split()[0] for line in reply_table(EXAMPLES)] == ["reward", "plain", "guided"]
    assert reply_table(EXAMPLES)[2].endswith("1 of 2")


def test_replies_of_texts_alone_have_no_measures():
    [row] = reply_means([{"prompt": "a", "replies": {"plain": "text"}}])
    assert (row.reward, row.log_probability, row.n_cut) == (None, None, 0)
    assert hacking_text([{"prompt": "a", "replies": {"plain": "text", "guided": "text"}}]) == ""


@pytest.mark.parametrize(
    ("plain", "guided", "said"),
    [
        (reply(0.0), reply(1.0), ""),
        (reply(0.0), reply(1.0, -1.9), ""),
        (reply(0.0), reply(1.0, -2.1), "falls by 1.10"),
        (reply(0.0), reply(-1.0, -1.9), ""),
        (reply(0.0), reply(1.0, repetition=0.2), "rises by 20 %"),
        (reply(0.0), reply(1.0, None), ""),  # an empty reply
    ],
)
def test_a_reward_that_is_hacked(plain, guided, said):
    text = hacking_text([{"prompt": "a", "replies": {"plain": plain, "guided": guided}}])
    assert (said in text) if said else text == ""
    assert ("guided replies have a higher reward" in text) == bool(said)


def test_replies_that_are_worse_either_way():
    examples = [{"prompt": "a", "replies": {"plain": reply(0.0), "guided": reply(-1.0, -2.1)}}]
    text = hacking_text(examples)
    assert "guided replies have no higher reward than plain ones" in text
    assert "falls by 1.10" in text


def test_every_way_that_is_hacked_is_named():
    replies = {"plain": reply(0.0), "best of 5": reply(1.0, -2.5), "guided": reply(2.0, -3.0)}
    text = hacking_text([{"prompt": "a", "replies": replies}])
    assert text == (
        "best of 5 and guided replies have a higher reward than plain ones, but the "
        "log-probability of a token falls by 1.50 (best of 5), the log-probability of a token "
        "falls by 2.00 (guided): the reward may be hacked. Read some replies; a smaller --weight "
        "or --best-of follows the model more"
    )
    replies["best of 5"] = reply(-1.0, -2.5)
    text = hacking_text([{"prompt": "a", "replies": replies}])
    assert text.startswith("best of 5 replies have no higher reward than plain ones, and the ")
    assert "or a smaller --best-of. guided replies have a higher reward" in text
    assert text.endswith("a smaller --weight follows the model more")
