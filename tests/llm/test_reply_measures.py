"""Length, log-probability and repetition of replies."""

from __future__ import annotations

import numpy as np
import pytest

from cvxnn.llm import ReplyMeasures, measure_replies
from cvxnn.llm.decoding.reply_measures import repetition

torch = pytest.importorskip("torch")


def test_measures_are_those_of_the_logits(tiny_lm):
    lm = tiny_lm()
    prompt, text = "a b c", "d e d e d e"
    empty, found = measure_replies(lm, prompt, [" ", text])
    assert empty == ReplyMeasures(0, None, 0.0)
    [start], [reply] = lm.encode_prompts([prompt]), lm.encode_responses([text])
    with torch.no_grad():
        logits = lm.model(torch.tensor([start + reply])).logits[0].log_softmax(-1)
    each = [float(logits[len(start) - 1 + i, token]) for i, token in enumerate(reply)]
    assert found.n_tokens == len(reply)
    assert found.log_probability == pytest.approx(np.mean(each), rel=1e-4)


@pytest.mark.parametrize(
    ("tokens", "share"),
    [([], 0.0), ([1, 2], 0.0), ([1, 2, 3, 4], 0.0), ([1] * 5, 2 / 3), ([1, 2, 3, 1, 2, 3], 0.25)],
)
def test_repetition_is_the_share_of_runs_that_came_before(tokens, share):
    assert repetition(tokens) == pytest.approx(share)
