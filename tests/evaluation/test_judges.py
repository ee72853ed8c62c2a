"""Judges: their questions, resumed runs, and failures."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from cvxnn.evaluation import (
    JudgedComparison,
    RewardModelJudge,
    compare_with_judge,
    text_judge,
    win_rate,
)
from cvxnn.preference import PreferenceTriplet, as_text

N = 12
PROMPTS = [f"question {i}" for i in range(N)]
OURS = [f"our reply {i}" for i in range(N)]
THEIRS = [f"their reply {i}" for i in range(N)]


class Recorder:
    """Judge that records the questions that it is asked."""

    def __init__(self, answer: float = 1.0, fail_at: int | None = None) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.answer, self.fail_at = answer, fail_at

    def __call__(self, prompt: str, first: str, second: str) -> float:
        if len(self.seen) == self.fail_at:
            raise ConnectionError("no answer")
        self.seen.append((prompt, first, second))
        return self.answer


def likes_ours(prompt: str, first: str, second: str) -> float:
    return float(first.startswith("our"))


def compare(judge: object, **settings: object) -> JudgedComparison:
    return compare_with_judge(judge, PROMPTS, OURS, THEIRS, **settings)


@pytest.mark.parametrize("both_orders", [False, True])
def test_preference_belongs_to_the_reply_not_to_its_place(both_orders: bool) -> None:
    result = compare(likes_ours, both_orders=both_orders, systems=("m", "n"))
    assert (result.preferences == 1.0).all()
    assert [j.output_a for j in result.judgements] == OURS
    assert {(j.system_a, j.system_b) for j in result.judgements} == {("m", "n")}
    assert result.position_bias is not None
    if both_orders:
        assert result.position_bias.first.rate == 0.5
        assert result.position_bias.consistency == 1.0
        assert {j.shown for j in result.judgements} == {"both"}
    else:
        assert math.isnan(result.position_bias.consistency)
        assert {j.shown for j in result.judgements} == {"ab", "ba"}
    lengths = [len(a) - len(b) for a, b in zip(OURS, THEIRS, strict=True)]
    assert result.length_differences.tolist() == lengths


def test_order_is_random_but_repeatable() -> None:
    judge = Recorder()
    results = [compare(judge, seed=seed) for seed in (0, 0, 1)]
    shown = [[j.shown for j in result.judgements] for result in results]
    assert shown[0] == shown[1] != shown[2]
    # What a question is shown as does not depend on the others.
    alone = compare_with_judge(judge, PROMPTS[3:4], OURS[3:4], THEIRS[3:4])
    assert alone.judgements[0].shown == shown[0][3]


def test_orders_are_balanced() -> None:
    n = 2000
    prompts = [str(i) for i in range(n)]
    result = compare_with_judge(Recorder(), prompts, ["a"] * n, ["b"] * n)
    share = np.mean([judgement.shown == "ab" for judgement in result.judgements])
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(n)


def test_position_bias_is_measured_and_averaged_out() -> None:
    result = compare(Recorder(answer=1.0), both_orders=True)
    assert result.position_bias is not None
    assert result.position_bias.first.rate == 1.0
    assert result.position_bias.consistency == 0.0
    assert win_rate(result.preferences).ties == N
    once = compare(Recorder(answer=1.0))
    assert once.position_bias is not None
    assert once.position_bias.first.rate == 1.0
    assert 0 < once.preferences.mean() < 1


def test_equal_replies_are_a_tie_without_asking() -> None:
    judge = Recorder()
    result = compare_with_judge(judge, PROMPTS, OURS, OURS)
    assert judge.seen == []
    assert result.preferences.tolist() == [0.5] * N
    assert result.position_bias is None


def test_failure_names_the_prompt_and_the_log_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(RuntimeError, match=r"failed on prompt 5 \('question 5'\).*no answer"):
        compare(Recorder(fail_at=5), log=log)
    again = Recorder()
    result = compare(again, log=log)
    assert [prompt for prompt, _, _ in again.seen] == PROMPTS[5:]
    assert result == compare(Recorder())
    assert compare(Recorder(fail_at=0), log=log) == result  # all is there: nobody is asked


@pytest.mark.parametrize("cut", [1, 20, 56])
def test_last_line_that_was_cut_short_is_dropped(tmp_path: Path, cut: int) -> None:
    log = tmp_path / "log.jsonl"
    whole = compare(Recorder(), log=log)
    content = log.read_bytes()
    log.write_bytes(content[:-cut])
    again = Recorder()
    assert compare(again, log=log) == whole
    assert len(again.seen) == 1
    assert log.read_bytes() == content


def test_last_line_that_is_no_answer_is_dropped(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    compare(Recorder(), log=log)
    content = log.read_bytes()
    log.write_bytes(content + b'{"key": "k", "sho\n')
    compare(Recorder(fail_at=0), log=log)
    assert log.read_bytes() == content


@pytest.mark.parametrize("bad", [b"not json\n", b'{"key": "k", "shown": "ab", "first": 7}\n'])
def test_damage_in_the_middle_is_named(tmp_path: Path, bad: bytes) -> None:
    log = tmp_path / "log.jsonl"
    compare(Recorder(), log=log)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:3], bad, *lines[3:]]))
    with pytest.raises(ValueError, match=r"log\.jsonl:4: the log is damaged"):
        compare(Recorder(), log=log)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "notes.txt"
    log.write_text("my notes")
    with pytest.raises(ValueError, match="not a log of judgements"):
        compare(Recorder(), log=log)
    assert log.read_text() == "my notes"


def test_killed_while_the_first_line_was_written(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"format": "cv')
    assert compare(Recorder(), log=log) == compare(Recorder())


def test_log_tells_judges_and_repeated_questions_apart(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    compare(Recorder(1.0), log=log, judge_name="first")
    second = Recorder(0.0)
    compare(second, log=log, judge_name="second")
    assert len(second.seen) == N
    twice = Recorder()
    compare_with_judge(twice, PROMPTS[:1] * 3, OURS[:1] * 3, THEIRS[:1] * 3, log=log)
    assert len(twice.seen) == 3
    answers = iter([0.25, 0.5, 1.0])
    noisy = compare_with_judge(lambda *_: next(answers), ["p"] * 3, ["a"] * 3, ["b"] * 3)
    sides = [j.preference if j.shown == "ab" else 1 - j.preference for j in noisy.judgements]
    assert sides == [0.25, 0.5, 1.0]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rows) == 1 + 2 * N + 3


class Batched:
    def __init__(self, sizes: list[int], lacking: int = 0) -> None:
        self.sizes, self.lacking = sizes, lacking

    def batch(self, prompts: Sequence, firsts: Sequence, seconds: Sequence) -> list[float]:
        self.sizes.append(len(prompts))
        answers = [likes_ours(*question) for question in zip(prompts, firsts, seconds, strict=True)]
        return answers[self.lacking :]


def test_batches() -> None:
    sizes: list[int] = []
    result = compare(Batched(sizes), batch_size=5, both_orders=True)
    assert sizes == [5, 5, 5, 5, 4]
    assert result == compare(likes_ours, both_orders=True)
    with pytest.raises(ValueError, match=r"gave 4 answers on prompt 0 .* and the 4 after it"):
        compare(Batched([], lacking=1), batch_size=5)


@pytest.mark.parametrize("answer", [1.5, -0.1, math.nan, None, "A"])
def test_answers_that_are_no_preferences(answer: object) -> None:
    with pytest.raises(ValueError, match=r"answered .* on prompt 0 \('question 0'\)"):
        compare(Recorder(answer))


def test_refused_arguments() -> None:
    with pytest.raises(ValueError, match="1 prompt, 2 outputs and 1 baseline reply"):
        compare_with_judge(likes_ours, ["p"], ["a", "b"], ["c"])
    with pytest.raises(ValueError, match="no prompts"):
        compare_with_judge(likes_ours, [], [], [])
    with pytest.raises(ValueError, match="batch_size"):
        compare(likes_ours, batch_size=0)


def test_progress(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvxnn._progress._PRINTED", 0.0)
    compare(likes_ours)
    assert capsys.readouterr() == ("", "")
    compare(likes_ours, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    n_questions = int(last.split()[1].replace(",", ""))
    assert n_questions >= N
    assert last.startswith(f"judging   {n_questions:,} of {n_questions:,} questions (100 %)")


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=5), st.integers(0, 5), st.data())
def test_reward_model_judge_is_antisymmetric(scores: list, margin: float, data: object) -> None:
    temperature = data.draw(st.none() | st.floats(0.1, 10))
    names = [f"r{i}" for i in range(len(scores))]
    table = dict(zip(names, scores, strict=True))
    judge = RewardModelJudge(
        lambda prompts, replies: [table[reply] for reply in replies],
        margin=margin,
        temperature=temperature,
    )
    for a in names:
        for b in names:
            there, back = judge("p", a, b), judge("p", b, a)
            assert there == pytest.approx(1 - back)
            assert (there == 0.5) or abs(table[a] - table[b]) > margin
            assert there == 0.5 or (there > 0.5) == (table[a] > table[b])
            if temperature is not None and abs(table[a] - table[b]) > margin:
                expected = 1 / (1 + math.exp(-(table[a] - table[b]) / temperature))
                assert there == pytest.approx(expected)


def test_reward_model_judge_takes_a_pipeline_of_texts() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression())
    model.fit(["good sun", "bad rain", "good day", "bad night"], [1, 0, 1, 0])
    judge = RewardModelJudge(model)
    assert judge("How was it?", "good", "bad") == 1.0
    messages = [{"role": "user", "content": "How was it?"}]
    assert judge(messages, "bad", "good") == 0.0
    assert judge("How was it?", "good", "good") == 0.5


def test_reward_model_judge_takes_a_head_on_embeddings() -> None:
    class Head:
        def reward(self, X: np.ndarray) -> np.ndarray:
            return X[:, 0]

        def predict(self, X: np.ndarray) -> np.ndarray:
            raise AssertionError("reward comes first")

    def embed(prompts: list, replies: list) -> np.ndarray:
        return np.array([[float(len(reply))] for reply in replies])

    judge = RewardModelJudge(Head(), features=embed)
    assert judge("p", "longer", "short") == 1.0
    assert judge.score(["p", "p"], ["ab", "abc"]).tolist() == [2.0, 3.0]


def test_reward_model_judge_refuses() -> None:
    with pytest.raises(TypeError, match="expected a callable"):
        RewardModelJudge(3)
    with pytest.raises(ValueError, match="margin"):
        RewardModelJudge(len, margin=-1)
    with pytest.raises(ValueError, match="temperature"):
        RewardModelJudge(len, temperature=0)
    with pytest.raises(ValueError, match="one finite number for each reply"):
        RewardModelJudge(lambda prompts, replies: [math.nan] * 2)("p", "a", "b")


def test_text_judge_learns_words_not_prompts() -> None:
    pairs = [PreferenceTriplet(f"p{i}", f"thanks friend {i}", f"go away {i}") for i in range(8)]
    judge = text_judge(pairs)
    assert judge("new", "thanks", "go") == 1.0
    assert judge("go away", "thanks", "go") == judge("thanks", "thanks", "go")
    assert text_judge(pairs[:1])("new", "go", "thanks") == 0.0
    with pytest.raises(ValueError, match="no triplets"):
        text_judge([])


def test_text_judge_is_a_bradley_terry_fit() -> None:
    """The weights minimise the ridge-penalised log loss of the margins of the pairs."""
    pairs = [PreferenceTriplet("p", "aa bb", "bb cc"), PreferenceTriplet("q", "cc aa", "cc cc")] * 3
    words, model = text_judge(pairs, C=2.0).model
    margins = (
        words.transform([row.chosen for row in pairs])
        - words.transform([row.rejected for row in pairs])
    ).toarray()
    w = model.coef_[0]
    gradient = w / 2.0 - margins.T @ (1 / (1 + np.exp(margins @ w)))
    np.testing.assert_allclose(gradient, 0, atol=1e-3)


def test_as_text_of_a_conversation() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert as_text(messages) == "User: Hi\n\nAssistant: Hello"
    assert as_text("Hi") == "Hi"
