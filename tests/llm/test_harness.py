"""The adapter for lm-eval against plain loops, and in the harness itself where it is installed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import processors

from cvxnn.llm import (
    Embedder,
    Guidance,
    HarnessModel,
    LanguageModel,
    generate_greedy,
    generate_guided,
    harness_model,
)

from .conftest import make_tiny_lm

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return make_tiny_lm(max_position_embeddings=24)


class Head:
    """A head that prefers a direction of the embeddings of a model."""

    def __init__(self, lm: LanguageModel) -> None:
        self.embedder = Embedder(lm)
        self.embedding = self.embedder.description
        self.direction = np.random.default_rng(0).normal(size=32)

    def reward(self, X: np.ndarray) -> np.ndarray:
        return X @ self.direction


def request(*args: Any) -> Any:
    return SimpleNamespace(args=args)


def one_by_one(lm: LanguageModel, tokens: list[int], n: int) -> tuple[list[float], bool]:
    """Log-probabilities of the last tokens, each by a call of its own."""
    found, greedy = [], True
    for k in range(len(tokens) - n, len(tokens)):
        with torch.no_grad():
            logits = lm.model(torch.tensor([tokens[:k]])).logits[0, -1]
        found.append(float(logits.log_softmax(-1)[tokens[k]]))
        greedy &= int(logits.argmax()) == tokens[k]
    return found, greedy


def ids(lm: LanguageModel, text: str) -> list[int]:
    return list(lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_log_likelihoods_by_a_loop(lm: LanguageModel) -> None:
    likeliest = generate_tokens(lm, ids(lm, "a b c"), 2)
    pairs = [
        ("a b c", " d e"),
        ("a b ", "c"),
        ("", "d e f"),
        ("a b c", f" {likeliest}"),
        (" ".join("abcdefghij" * 3), " k l"),  # longer than the context
    ]
    expected = []
    for context, continuation in pairs:
        head, rest = ids(lm, context), ids(lm, continuation)
        tokens = ((head or [2]) + rest)[-25:]
        sums, greedy = one_by_one(lm, tokens, len(rest))
        expected.append((sum(sums), greedy))
    assert [greedy for _, greedy in expected][3]
    for batch_tokens in (1, 30, 1000):
        model = HarnessModel(lm, batch_tokens=batch_tokens)
        found = model.loglikelihood([request(*pair) for pair in pairs])
        np.testing.assert_allclose([s for s, _ in found], [s for s, _ in expected], rtol=1e-4)
        assert [g for _, g in found] == [g for _, g in expected]


def generate_tokens(lm: LanguageModel, tokens: list[int], n: int) -> str:
    for _ in range(n):
        with torch.no_grad():
            tokens = [*tokens, int(lm.model(torch.tensor([tokens])).logits[0, -1].argmax())]
    return str(lm.tokenizer.decode(tokens[-n:]))


def reply_by_a_loop(lm: LanguageModel, tokens: list[int], n: int) -> list[str]:
    return generate_tokens(lm, tokens, n).partition("<eos>")[0].split()


def test_whole_texts_are_scored_once_with_all_context_that_fits(lm: LanguageModel) -> None:
    text = " ".join("abcdefghijklmnopqrst" * 3)[: 2 * 57 - 1]
    tokens = [2, *ids(lm, text)]
    total = 0.0
    for first in range(1, len(tokens), 24):  # windows of 24 tokens, the last with a whole context
        end = min(first + 24, len(tokens))
        total += sum(one_by_one(lm, tokens[max(end - 25, 0) : end], end - first)[0])
    [found] = HarnessModel(lm).loglikelihood_rolling([request(text)])
    assert found == pytest.approx(total, rel=1e-4)
    with pytest.raises(ValueError, match="gives a text no likelihood"):
        HarnessModel(lm, Head(lm)).loglikelihood_rolling([request(text)])


def test_options_are_chosen_as_guided_decoding_would(lm: LanguageModel) -> None:
    head, options = Head(lm), [" d e", " f", " g h i"]
    guidance = Guidance(weight=0.7, likelihood=0.3)
    found = HarnessModel(lm, head, guidance).loglikelihood([request("a b", o) for o in options])
    for (score, _), option in zip(found, options, strict=True):
        rest = ids(lm, option)
        mean = np.mean(one_by_one(lm, ids(lm, "a b") + rest, len(rest))[0])
        [reward] = head.reward(head.embedder.embed(["a b"], [option.strip()]))
        assert score == pytest.approx(0.3 * mean + 0.7 * reward, rel=1e-3)


def test_replies(lm: LanguageModel) -> None:
    asked = [request("a b", {"until": ["\n\n"], "max_gen_toks": 6}), request("c", {"until": "e"})]
    guidance = Guidance(max_new_tokens=4, n_candidates=3, segment=2)
    plain = HarnessModel(lm, guidance=guidance).generate_until(asked)
    assert plain[0].split() == reply_by_a_loop(lm, ids(lm, "a b"), 6) != []
    written = reply_by_a_loop(lm, ids(lm, "c"), 4)
    assert plain[1].split() == written[: written.index("e") if "e" in written else 4]
    head = Head(lm)
    guided = HarnessModel(lm, head, guidance).generate_until(asked[:1])
    own = Guidance(max_new_tokens=6, n_candidates=3, segment=2, stop=("\n\n",))
    assert guided == [generate_guided(lm, head, "a b", own).text]
    drawn = request("a b", {"do_sample": True, "temperature": 5.0, "max_gen_toks": 6})
    model = HarnessModel(lm)
    assert model.generate_until([drawn]) == model.generate_until([drawn]) != plain[:1]


def test_conversations_are_answered_as_such(lm: LanguageModel) -> None:
    tokenizer = make_tiny_lm().tokenizer
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} <eos> {% endfor %}"
        "{% if add_generation_prompt %}t{% endif %}"
    )
    chatty = dataclasses.replace(lm, tokenizer=tokenizer)
    model = HarnessModel(chatty)
    messages = [{"role": "user", "content": "a b"}, {"role": "user", "content": "c"}]
    text = model.apply_chat_template(messages)
    assert text == "a b <eos> c <eos> t"
    [reply] = model.generate_until([request(text, {"max_gen_toks": 5})])
    assert reply == generate_greedy(chatty, messages, 5)  # type: ignore[arg-type]
    assert not model.apply_chat_template(messages, add_generation_prompt=False).endswith("t")


def test_a_text_is_continued_as_it_is_and_begins_as_the_tokenizer_says(lm: LanguageModel) -> None:
    """As lm-eval's own model without a chat template; Llama's tokenizer puts one token first."""
    tokenizer = make_tiny_lm().tokenizer
    tokenizer.chat_template = "{{ messages[-1]['content'] }} f f f"
    beginning = dataclasses.replace(lm, tokenizer=tokenizer)
    [reply] = HarnessModel(beginning).generate_until([request("a b", {"max_gen_toks": 5})])
    assert reply.split() == reply_by_a_loop(lm, ids(lm, "a b"), 5) != []
    tokenizer.bos_token = "v"
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="v $A", special_tokens=[("v", 1)]
    )
    assert beginning.encode_text("a b") == beginning.encode_text("v a b") == [1, *ids(lm, "a b")]
    model = HarnessModel(beginning)
    for context in ("a b", "v a b", ""):
        [(found, _)] = model.loglikelihood([request(context, " d e")])
        tokens = [1, *ids(lm, context.removeprefix("v")), *ids(lm, "d e")]
        assert found == pytest.approx(sum(one_by_one(lm, tokens, 2)[0]), rel=1e-4)
    [whole] = model.loglikelihood_rolling([request("a b d")])
    assert whole == pytest.approx(sum(one_by_one(lm, [1, *ids(lm, "a b d")], 3)[0]), rel=1e-4)
    [reply] = model.generate_until([request("a b", {"max_gen_toks": 5})])
    assert reply.split() == reply_by_a_loop(lm, [1, *ids(lm, "a b")], 5) != []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_in_the_harness_on_a_task_of_our_own(lm: LanguageModel, tmp_path: Path) -> None:
    """``acc`` of lm-eval on a local file of questions, counted by hand; base model and guided."""
    lm_eval = pytest.importorskip("lm_eval")
    questions = {"a b": "hij", "c": "klm", "d e f": "nop", "g": "qrs"}
    rows = [
        {"question": question, "options": list(options), "answer": k % 3}
        for k, (question, options) in enumerate(questions.items())
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {
        "task": "letters",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(tmp_path / "cache")},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    head = Head(lm)
    for model in (harness_model(lm), harness_model(lm, head, Guidance(weight=3.0))):
        found = lm_eval.simple_evaluate(model, tasks=[task], bootstrap_iters=0)
        right = []
        for row in rows:
            asked = [request(row["question"], f" {option}") for option in row["options"]]
            scores = [score for score, _ in model.loglikelihood(asked)]
            right.append(int(np.argmax(scores)) == row["answer"])
        assert found["results"]["letters"]["acc,none"] == np.mean(right)
