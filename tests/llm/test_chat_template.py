"""Chat templates: the fixed date, and the token that ends a turn."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.llm import Embedder, FineTuningConfig, LanguageModel, response_log_probabilities
from cvxnn.llm.chat_template import end_of_turn, render
from cvxnn.llm.fine_tuning.training_data import training_sides
from cvxnn.llm.log_probabilities import encode_pairs

tokenizers = pytest.importorskip("tokenizers")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")

TURNS = (
    "{{% for m in messages %}}{{{{ m['role'] + ' ' + m['content'] | trim }}}}{end}{{% endfor %}}"
    "{{% if add_generation_prompt %}}assistant {{% endif %}}"
)
EMPTY = tokenizers.Tokenizer(tokenizers.models.WordLevel({}, unk_token="u"))
HELLO = [{"role": "user", "content": "a b"}]
DAY = datetime.date(2024, 7, 26)


@pytest.fixture
def lm(tiny_lm: Callable[..., LanguageModel]) -> LanguageModel:
    """A model whose letters t and s serve as the special tokens of turns."""
    lm = tiny_lm()
    lm.tokenizer.add_special_tokens({"additional_special_tokens": ["t", "s"]})
    return lm


def token(lm: LanguageModel, word: str) -> int:
    return int(lm.tokenizer.convert_tokens_to_ids(word))


# The end of a turn


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (" t\n", "t"),  # <end_of_turn>\n of Gemma, <|im_end|>\n of ChatML
        (" <eos> s", "<eos>"),  # </s><s> of Llama 2
        ("\n t <eos>", "t"),
        ("\n", "<eos>"),  # nothing but white space between turns
        (" a b\n", "<eos>"),  # Alpaca: words
        ("{{ raise_exception('no') }}", "<eos>"),
    ],
)
def test_end_of_turn_is_the_first_special_token_after_a_reply(
    lm: LanguageModel, end: str, expected: str
) -> None:
    assert lm.end_of_turn == token(lm, "<eos>")
    lm.tokenizer.chat_template = TURNS.format(end=end)
    assert end_of_turn(lm.tokenizer, DAY) == lm.end_of_turn == token(lm, expected)
    lm.model.generation_config.eos_token_id = [token(lm, "s"), 10**6]
    ends = {token(lm, "s"), token(lm, "<eos>"), token(lm, expected)}
    assert lm.end_tokens == sorted(ends)


def test_without_any_end(lm: LanguageModel) -> None:
    lm.tokenizer.eos_token = None
    lm.model.generation_config.eos_token_id = None
    assert lm.end_of_turn is None
    assert lm.end_tokens == []
    [item] = encode_pairs(lm, ["a"], ["b c"])
    assert item.tokens.tolist() == [token(lm, word) for word in "abc"]


def test_what_is_learnt_ends_as_the_template_ends_turns(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = TURNS.format(end=" t ")
    sides = training_sides(lm, FineTuningConfig(objective="sft"), None, [("a", "b c")])
    [item] = sides["supervised"].items
    assert item.tokens[item.start :].tolist() == [token(lm, word) for word in "bct"]
    values, lengths = response_log_probabilities(lm, ["a"], ["b c"])
    with torch.no_grad():
        logits = lm.model(torch.from_numpy(item.tokens)[None]).logits[0].log_softmax(-1)
    steps = range(item.start, len(item.tokens))
    expected = sum(float(logits[i - 1, item.tokens[i]]) for i in steps)
    np.testing.assert_allclose(values, [expected], rtol=1e-4)
    assert lengths.tolist() == [3]


@pytest.mark.parametrize("given_end", ["", " <eos>", " t", " <eos> <eos>", " t <eos>"])
def test_a_reply_ends_once(lm: LanguageModel, given_end: str) -> None:
    lm.tokenizer.chat_template = TURNS.format(end=" t ")
    [item] = encode_pairs(lm, ["a"], [f"b <eos> c{given_end}"])
    words = [token(lm, word) for word in ("b", "<eos>", "c", "t")]
    assert item.tokens[item.start :].tolist() == words
    [item] = encode_pairs(lm, ["a"], [f"b c{given_end}"], end_of_turn=False)
    assert item.tokens[item.start :].tolist() == lm.encode_responses([f"b c{given_end}"])[0]


def test_an_end_that_the_model_does_not_know(lm: LanguageModel) -> None:
    lm.tokenizer.add_special_tokens({"eos_token": "<end>"})
    with pytest.raises(ValueError, match=r"'<end>'\), but the embedding matrix .* 23 rows .* 24"):
        encode_pairs(lm, ["a"], ["b"])
    assert lm.end_tokens == [2]


# The date


@given(
    date=st.dates(datetime.date(1000, 1, 1)),
    format=st.lists(
        st.sampled_from([*(f"%{c}" for c in "aAbBdHIjmMpSyYFUW"), " ", "-", ", ", "Today: "])
    ).map("".join),
)
def test_dates_are_written_as_strftime_does(date: datetime.date, format: str) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=EMPTY)
    tokenizer.chat_template = "\n {{ strftime_now(messages[0]['content']) }}|"
    moment = datetime.datetime.combine(date, datetime.time())
    text = render(tokenizer, [{"role": "user", "content": format}], date)
    assert text == f"\n {moment.strftime(format)}|"


def test_directives_without_leading_zeros(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = "{{ strftime_now('%-d.%-m.%y %-H %-j %d') }}"
    assert render(lm.tokenizer, HELLO, datetime.date(2005, 3, 4)) == "4.3.05 0 63 04"


@pytest.mark.parametrize(
    "template",
    [
        "{%- set today = strftime_now('%d %B %Y') -%} {{ today }}{{ messages[0]['content'] }}",
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
        "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}"
        "{%- set date_string = 'never' %}{%- endif %}{%- endif %}\n"
        "Today Date: {{ date_string }}\n{{ messages[0]['content'] }}",
    ],
    ids=["SmolLM3", "Llama-3.2"],
)
def test_prompts_are_the_same_tomorrow(
    lm: LanguageModel, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime.datetime:
            return cls(2099, 1, 1)

    lm.tokenizer.chat_template = template
    today = render(lm.tokenizer, HELLO, DAY)
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    assert "2099" in lm.tokenizer.apply_chat_template(HELLO, tokenize=False)
    assert render(lm.tokenizer, HELLO, DAY) == today
    assert "26 Jul" in today
    assert "1 Feb" in render(lm.tokenizer, HELLO, datetime.date(2031, 2, 1))


def test_embeddings_keep_their_date(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = (
        "{{ ' '.join(strftime_now('%d')) | replace('0', 'a') | replace('1', 'b') }}"
        " {{ messages[0]['content'] }} "
    )
    first = dataclasses.replace(lm, date=datetime.date(2026, 5, 10))
    assert first.encode_prompts(["c"]) == [[token(lm, word) for word in "bac"]]
    embedder = Embedder(first)
    assert embedder.description["date"] == "2026-05-10"
    again = Embedder.from_description(lm, embedder.description)  # lm has another date
    vectors = again.embed(["c"], ["d"])
    np.testing.assert_array_equal(vectors, embedder.embed(["c"], ["d"]))
    assert np.abs(vectors - Embedder(lm).embed(["c"], ["d"])).max() > 1e-3
    with pytest.raises(ValueError, match=r"embedding\['date'\] is 'today'; expected a date"):
        Embedder.from_description(lm, {**embedder.description, "date": "today"})
