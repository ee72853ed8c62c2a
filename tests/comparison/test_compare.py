"""Methods on the same pairs: implied rewards, what is kept, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import cvxnn
from cvxnn.comparison import (
    HEADS,
    METHODS,
    RESULT_FILE,
    Comparison,
    MethodResult,
    compare,
    summarise_seeds,
)
from cvxnn.comparison.fine_tuned import FINE_TUNED, fine_tuning_config, implied_rewards
from cvxnn.comparison.grid import folds_of, grid_of
from cvxnn.comparison.heads import fit_head, named_solver
from cvxnn.comparison.replies import side_by_side
from cvxnn.comparison.seeds import seeds_text
from cvxnn.features.extraction import extract_pairs
from cvxnn.files.json_files import OtherSettingsError
from cvxnn.llm import Embedder, FineTuningConfig, Guidance, fine_tune
from cvxnn.preference import pair_accuracy

torch = pytest.importorskip("torch")

FAST = {"lora_r": 2, "micro_batch": 2, "accumulation": 3, "learning_rate": 1e-3}
OWN = {"coala": {"n_patterns": 8}, "linear": {"C": 0.1}}


def log_probability(lm, pair, reply):
    """Of one reply and its end, all by itself; and its number of tokens."""
    [head], [tokens] = lm.encode_prompts([pair.prompt]), lm.encode_responses([reply])
    tokens = [*tokens, lm.tokenizer.eos_token_id]
    ids = torch.tensor([head + tokens])
    with torch.no_grad():
        scores = lm.model(ids).logits[0].double().log_softmax(-1)
    steps = range(len(head) - 1, ids.shape[1] - 1)
    return sum(float(scores[t, ids[0, t + 1]]) for t in steps), len(tokens)


def rewards(method, config, tuned, lm, pair):
    """Implied rewards of both replies, from the papers."""
    found = []
    for reply in (pair.chosen, pair.rejected):
        value, length = log_probability(tuned.lm, pair, reply)
        reference = log_probability(lm, pair, reply)[0]
        found.append(
            {
                "sft": value / length,
                "dpo": config.parameters.get("beta", 0) * (value - reference),
                "orpo": config.parameters.get("weight", 0) * value / length,
                "simpo": config.parameters.get("beta", 0) * value / length,
            }[method]
        )
    return found


@pytest.mark.parametrize("method", ["sft", "dpo", "orpo", "simpo"])
def test_implied_rewards_are_those_of_the_papers(lm, pairs, method, tmp_path):
    config = FineTuningConfig(objective=method, steps=2, **FAST)
    tuned = fine_tune(lm, config, preferences=pairs)
    won, lost = implied_rewards(lm, tuned, pairs[:5], cache=tmp_path / "cache.sqlite")
    expected = np.array([rewards(method, config, tuned, lm, pair) for pair in pairs[:5]])
    np.testing.assert_allclose(np.column_stack([won, lost]), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_heads_and_fine_tuning_in_one_table(lm, pairs, tmp_path):
    train, test = pairs[:16], pairs[16:]
    said: list[str] = []
    weights = {name: w.detach().clone() for name, w in lm.model.named_parameters()}
    comparison = compare(
        lm,
        train,
        test,
        ("coala", "linear", "dpo"),
        folder=tmp_path,
        fine_tuning=FAST,
        parameters=OWN,
        say=said.append,
    )
    assert all(torch.equal(weights[name], w) for name, w in lm.model.named_parameters())
    assert comparison.methods == ["coala", "linear", "dpo"]
    assert said[0].split() == ["coala", "begins"]
    for result in comparison.results:
        assert result.accuracy == pytest.approx(pair_accuracy(result.margins))
        assert result.metrics["rewards/margins"] == pytest.approx(np.mean(result.margins))
        assert len(result.margins) == len(test)
        assert all(value >= 0 for value in result.seconds.values())
    lengths = [np.sign(len(pair.chosen) - len(pair.rejected)) for pair in test]
    assert comparison.baselines["longer reply wins"]["accuracy"] == pair_accuracy(lengths)
    coala, dpo = comparison.results[0], comparison.results[2]
    assert coala.flops["embeddings"] > 0
    assert coala.certificate["phase II"]["gap"] < 1e-3
    assert coala.history["step"][-1] >= len(coala.history["step"]) - 1
    # Held-out pairs are measured at the start and at the end, and only there in so few steps.
    course = dpo.history["eval_rewards/margins"]
    assert [i for i, value in enumerate(course) if value is not None] == [0, len(course) - 1]
    assert course[0] == pytest.approx(0, abs=1e-6)
    assert course[-1] == pytest.approx(dpo.metrics["rewards/margins"], abs=1e-4)
    head = cvxnn.load(tmp_path / "coala.safetensors")
    X = Embedder.from_description(lm, head.embedding).embed(
        [p.prompt for p in test] * 2, [p.chosen for p in test] + [p.rejected for p in test]
    )
    np.testing.assert_allclose(
        head.reward_margin(*np.split(X, 2)), coala.margins, rtol=1e-3, atol=1e-4
    )
    assert Comparison.read(tmp_path / RESULT_FILE).results == comparison.results
    again = compare(
        lm,
        train,
        test,
        ("dpo", "coala"),
        folder=tmp_path,
        fine_tuning=FAST,
        parameters=OWN,
        say=said.append,
    )
    assert [line.split()[1] for line in said[-2:]] == ["kept", "kept"]
    assert again.get("dpo") == dpo


@pytest.mark.slow
def test_other_data_or_settings_are_refused_before_any_work(lm, pairs, tmp_path):
    train, test = pairs[:16], pairs[16:]
    compare(lm, train, test, ("linear",), folder=tmp_path, parameters=OWN)
    files = sorted(tmp_path.rglob("*"))
    cases = {
        "train": {"train": train[1:]},
        "seed: 0 in the file, 1 requested": {"seed": 1},
        r"head\.C: 0\.1 in the file, null requested": {"parameters": {}},
        r"embedding\.layer": {"embedding": {"layer": 1}},
    }
    for said, changed in cases.items():
        options = {"train": train, "parameters": OWN, **changed}
        with pytest.raises(OtherSettingsError, match=said):
            compare(lm, test=test, methods=("coala", "linear"), folder=tmp_path, **options)
        assert sorted(tmp_path.rglob("*")) == files
    found = compare(
        lm, train, test, ("linear",), folder=tmp_path, embedding={"layer": 1}, overwrite=True
    )
    assert found.settings["embedding"] == {"layer": 1}


def test_bad_requests(lm, pairs, tmp_path):
    with pytest.raises(ValueError, match="expected some of"):
        compare(lm, pairs, pairs, ("coala", "dop"), folder=tmp_path)
    with pytest.raises(ValueError, match="expected some of"):
        compare(lm, pairs, pairs, ("coala",), folder=tmp_path, parameters={"dop": {}})
    with pytest.raises(ValueError, match="0 training and 24 held-out"):
        compare(lm, [], pairs, ("coala",), folder=tmp_path)
    with pytest.raises(ValueError, match="only heads on features need none"):
        compare(None, pairs, pairs, ("coala",), folder=tmp_path)
    with pytest.raises(ValueError, match=r"\['epoch'\] are not settings of fine-tuning"):
        compare(lm, pairs, pairs, ("dpo",), folder=tmp_path, fine_tuning={"epoch": 1})
    with pytest.raises(ValueError, match="beta is not a hyper-parameter of orpo"):
        fine_tuning_config("orpo", {}, {"beta": 1.0}, 0)
    assert set(METHODS) == {*HEADS, *FINE_TUNED}
    assert not list(tmp_path.iterdir())


def test_features_of_other_settings_do_not_mix(lm, pairs, tmp_path):
    one, other = (
        extract_pairs(Embedder(lm, layer=layer), pairs, tmp_path / str(layer)) for layer in (1, 2)
    )
    with pytest.raises(ValueError, match="embedded differently"):
        fit_head("coala", one, other)
    with pytest.raises(ValueError, match="expected one of"):
        fit_head("cubic", one, one)
    # A lower layer costs less, in proportion.
    assert one.costs.flops * 2 == pytest.approx(other.costs.flops, rel=0.05)


def test_replies_side_by_side(lm, pairs, tmp_path):
    embedder = Embedder(lm)
    features = extract_pairs(embedder, pairs, tmp_path)
    head, _ = fit_head("coala", features, features, {"n_patterns": 8})
    pieces: list[str] = []
    guidance = Guidance(max_new_tokens=6, segment=2)
    replies = list(side_by_side(head, embedder, "a b", guidance, best_of=4, stream=pieces.append))
    assert [reply.name for reply in replies] == ["plain", "best of 4", "guided"]
    assert "".join(pieces) == replies[2].text
    for reply in replies:
        if reply.text.strip():
            expected = head.reward(embedder.embed(["a b"], [reply.text]))[0]
            assert reply.reward == pytest.approx(expected, rel=1e-3, abs=1e-4)
            [tokens] = lm.encode_responses([reply.text])
            assert len(tokens) <= reply.n_tokens <= 6  # some tokens have no text
            assert reply.ending in ("end", "length")
        else:
            assert reply.reward is None
    sampled = replace(guidance, seed=1)
    assert list(side_by_side(head, embedder, "a", sampled, plain=False, guided=False)) == []


@pytest.mark.slow
def test_hyper_parameters_are_chosen_on_folds_of_the_training_pairs(lm, pairs, tmp_path):
    train, test = pairs[:16], pairs[16:]
    options = {"fine_tuning": {**FAST, "steps": 1}, "grid_folds": 2, "folder": tmp_path}
    found = compare(lm, train, test, ("dpo",), **options)
    result = found.get("dpo")
    points = result.settings["grid"]
    assert [row["parameters"] for row in points] == [{"beta": b} for b in (0.01, 0.05, 0.1)]
    means = [np.mean(row["accuracies"]) for row in points]
    assert result.settings["beta"] == points[int(np.argmax(means))]["parameters"]["beta"]
    assert result.flops["search"] > 2 * result.flops["train"]  # three points on half of the pairs
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("grid/dpo/*.json")}
    assert len(files) == 6
    (tmp_path / "dpo.json").unlink()
    again = compare(lm, train, test, ("dpo",), **options)
    assert again.get("dpo").accuracy == result.accuracy
    assert files == {path: path.stat().st_mtime_ns for path in files}  # what is known is kept
    with pytest.raises(OtherSettingsError, match="grid"):
        compare(lm, train, test, ("dpo",), **{**options, "grid_folds": 3})


def test_folds_divide_no_group_and_no_prompt(pairs):
    sides = list(folds_of(pairs, 3, seed=0))
    assert sorted(pair.chosen for _, part in sides for pair in part) == sorted(
        pair.chosen for pair in pairs
    )
    for train, test in sides:
        for key in ("group", "prompt"):
            assert not {getattr(p, key) for p in train} & {getattr(p, key) for p in test}
    with pytest.raises(ValueError, match="folds of"):
        list(folds_of(pairs[:2], 3, seed=0))
    assert grid_of("simpo", {"beta": 2.0})[0] == {"gamma": 0.3}
    assert grid_of("sft", {}) == []


def test_margins_of_held_out_pairs_over_time(lm, pairs, tmp_path):
    features = extract_pairs(Embedder(lm), pairs, tmp_path)
    train, test = features.split(0.3, 0)
    head, result = fit_head("coala", train, test, {"n_patterns": 8})
    history = result.history
    assert len({len(values) for values in history.values()}) == 1
    assert np.all(np.diff(history["seconds"]) >= 0)
    assert history["eval_rewards/margins"][-1] == pytest.approx(
        result.metrics["rewards/margins"], rel=1e-3
    )
    assert history["rewards/margins"][-1] == pytest.approx(
        np.mean(head.reward_margin(np.asarray(train.chosen), np.asarray(train.rejected))), rel=1e-3
    )


def test_solvers_by_name_take_the_tolerance_that_is_given():
    named = named_solver({"solver": "cronos", "tol": 1e-2, "max_iter": 20, "beta": 1.0})
    assert (type(named).__name__, named.tol, named.max_iter) == ("Cronos", 1e-2, 20)
    with pytest.raises(ValueError, match="expected one of"):
        named_solver({"solver": "cvxpy"})


def test_seeds_by_hand():
    def comparison(*margins):
        results = [
            MethodResult(name, pair_accuracy(m), None, [0, 1], 1.0, {"rewards/margins": 0.0}, m)
            for name, m in zip(("coala", "dpo"), margins, strict=True)
        ]
        return Comparison({}, {}, {}, {}, tuple(results), list("aabbcc"))

    first = comparison([1, 1, 1, 1, 1, -1], [1, -1, 1, -1, 1, 1])
    second = comparison([1, 1, 1, 1, -1, -1], [1, -1, 1, 1, 1, 1])
    one, other = summarise_seeds([first, second])
    assert one["accuracies"] == pytest.approx([5 / 6, 4 / 6])
    assert one["mean"] == pytest.approx(0.75)
    assert one["spread"] == pytest.approx(np.std([5 / 6, 4 / 6], ddof=1))
    # Pair by pair, averaged over both seeds; then sums of each group, as one sample of three.
    gains = np.array([0, 1, 0, 0.5, -0.5, -1]).reshape(3, 2)
    assert other["difference"] == pytest.approx(gains.mean())
    test = stats.ttest_1samp(gains.sum(axis=1), 0.0)
    assert other["p"] == pytest.approx(test.pvalue)
    assert "COALA has +0.000" in seeds_text([one, other])
    with pytest.raises(ValueError, match="the same methods and pairs"):
        summarise_seeds([first, comparison([1] * 6, [1] * 6).__class__({}, {}, {}, {}, (), [])])
