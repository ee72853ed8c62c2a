"""Fine-tuning on tiny random models: what is learnt, exact resumption, strategies, bad input."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.llm import (
    FINE_TUNING_OBJECTIVES,
    FineTuned,
    FineTuningConfig,
    LanguageModel,
    fine_tune,
    load_adapter,
    load_model,
)
from cvxnn.llm.fine_tuning import (
    adapters,
    joint_strategies,
    reference_scores,
    training_data,
    training_loop,
)
from cvxnn.llm.fine_tuning.presets import PRESETS, preset
from cvxnn.llm.log_probabilities import response_log_probabilities, score_items
from cvxnn.llm.response_scorer import ResponseScorer
from cvxnn.preference import PreferenceTriplet

from ..tiny_models import tiny_model, tiny_tokenizer

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
safetensors_torch = pytest.importorskip("safetensors.torch")

LETTERS = list("abcdefghijklmnopqrst")
WORDS = ["<pad>", "<unk>", "<eos>", *LETTERS]
ATTENTION = {"num_key_value_heads": 1, "num_attention_heads": 2, "intermediate_size": 24}
SIZES: dict[str, dict[str, Any]] = {
    "llama": ATTENTION,
    "gpt2": {"num_attention_heads": 2},
    "bloom": {"num_attention_heads": 2},
}
QUICK: dict[str, Any] = {
    "learning_rate": 5e-3,
    "lora_r": 4,
    "lora_alpha": 8,
    "micro_batch": 4,
    "accumulation": 2,
    "evaluate_every": 2,
    "checkpoint_every": 2,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_lm(family: str = "llama", *, seed: int = 0, **options: Any) -> LanguageModel:
    """A random model of one block without padding token and chat template."""
    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1}
    sizes.update(bos_token_id=1, eos_token_id=2)
    if family != "bloom":
        sizes["max_position_embeddings"] = 64
    model = tiny_model(family, seed=seed, **{**sizes, **SIZES[family], **options})
    return LanguageModel(model, tiny_tokenizer(WORDS, eos_token="<eos>"), family)


def make_pairs(n: int = 20, seed: int = 0) -> list[PreferenceTriplet]:
    """Replies with the letters a to j are preferred to those with k to t."""
    rng = np.random.default_rng(seed)

    def text(letters: list[str]) -> str:
        return " ".join(rng.choice(letters, rng.integers(1, 5)))

    return [
        PreferenceTriplet(text(LETTERS), text(LETTERS[:10]), text(LETTERS[10:])) for _ in range(n)
    ]


def make_replies(n: int = 12) -> list[tuple[str, str]]:
    return [(pair.prompt, pair.rejected) for pair in make_pairs(n, seed=9)]  # type: ignore[misc]


def logits(lm: LanguageModel) -> Any:
    with torch.no_grad():
        return lm.model(torch.arange(3, 15)[None]).logits


class Killed(Exception):  # noqa: N818 (it tells of a death, not of an error)
    pass


def killer(step: int) -> Callable[[dict[str, float]], None]:
    def kill(entry: dict[str, float]) -> None:
        if entry["step"] == step:
            raise Killed

    return kill


# What is learnt


# The others take half a second each.
QUICKLY = ("dpo", "simpo")


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(name, marks=[] if name in QUICKLY else pytest.mark.slow)
        for name in FINE_TUNING_OBJECTIVES
    ],
)
def test_methods_learn(objective: str) -> None:
    config = FineTuningConfig(objective, **QUICK, steps=12)
    told: list[dict[str, float]] = []
    tuned = fine_tune(
        make_lm(),
        config,
        preferences=make_pairs(),
        held_out=make_pairs(10, 1),
        progress=told.append,
    )
    first, *steps = tuned.history
    assert told == tuned.history
    assert [entry["step"] for entry in steps] == list(range(1, 13))
    assert steps[-1]["eval_loss"] < first["eval_loss"]
    assert steps[-1]["eval_rewards/margins"] > first["eval_rewards/margins"]
    assert ("rewards/margins" in steps[0]) == (objective != "sft")
    evaluated = [entry["step"] for entry in tuned.history if "eval_loss" in entry]
    assert evaluated == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("family", SIZES)
def test_the_given_model_stays_as_it_is(family: str) -> None:
    lm = make_lm(family)
    modules = [type(module) for module in lm.model.modules()]
    fingerprint, before, state = lm.fingerprint, logits(lm), torch.random.get_rng_state()
    tuned = fine_tune(lm, FineTuningConfig(**QUICK, steps=2), preferences=make_pairs(8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert lm.fingerprint == fingerprint
    assert torch.equal(logits(lm), before)
    assert [type(module) for module in lm.model.modules()] == modules
    assert all(weight.requires_grad for weight in lm.model.parameters())
    assert not torch.allclose(logits(tuned.lm), before)
    assert not any(weight.requires_grad for weight in tuned.lm.model.parameters())
    assert all(weight.grad is None for weight in tuned.lm.model.parameters())
    own = {weight.data_ptr() for weight in lm.model.parameters()}
    new = [w for w in tuned.lm.model.parameters() if w.data_ptr() not in own]
    assert sum(w.numel() for w in new) == sum(
        w.numel() for w in adapters.trained_weights(tuned.lm).values()
    )


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("gpt2", {"c_attn", "c_proj"}),
        ("bloom", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    ],
)
def test_layers_with_adapters(family: str, expected: set[str]) -> None:
    adapted = adapters.add_adapter(make_lm(family), FineTuningConfig())
    found = {
        name.split(".lora_")[0].rpartition(".")[2] for name in adapters.trained_weights(adapted)
    }
    assert found == expected
    assert {w.dtype for w in adapters.trained_weights(adapted).values()} == {torch.float32}


def test_one_step_by_hand(tmp_path: Path) -> None:
    """The gradient of the mean DPO loss over the batch, with slopes by the whole model."""
    lm, pairs = make_lm(), make_pairs(6)
    quick = {**QUICK, "micro_batch": 2, "accumulation": 3, "max_gradient_norm": 1e9}
    config = FineTuningConfig("dpo", **quick, beta=0.3, lora_dropout=0.0, steps=2)
    fine_tune(lm, config, preferences=pairs, folder=tmp_path)
    adapted = adapters.add_adapter(lm, config)
    weights = adapters.trained_weights(adapted)
    optimizer = two_steps_of_dpo(adapted, lm, weights.values(), pairs)
    kept = safetensors_torch.load_file(tmp_path / "checkpoint.safetensors")
    for name, weight in weights.items():
        moment = optimizer.state[weight]["exp_avg"]
        torch.testing.assert_close(kept[f"exp_avg/{name}"], moment, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(kept[f"weight/{name}"], weight.detach(), rtol=1e-2, atol=1e-4)


def two_steps_of_dpo(
    trained: LanguageModel,
    reference: LanguageModel,
    weights: Iterable[Any],
    pairs: list[PreferenceTriplet],
) -> Any:
    """Take two steps on all pairs in a plain loop, with beta .3; return the optimizer."""
    optimizer = torch.optim.AdamW(weights, lr=5e-3, weight_decay=0.01)
    for factor in (1.0, 0.5):  # without warm-up the rate falls linearly
        total = 0.0
        for pair in pairs:
            sums = [
                one_sum(model, pair.prompt, reply)
                for model in (trained, reference)
                for reply in (pair.chosen, pair.rejected)
            ]
            margin = sums[0] - sums[2].detach() - sums[1] + sums[3].detach()
            total = total - torch.nn.functional.logsigmoid(0.3 * margin) / len(pairs)
        optimizer.zero_grad()
        total.backward()
        optimizer.param_groups[0]["lr"] = 5e-3 * factor
        optimizer.step()
    return optimizer


def one_sum(lm: LanguageModel, prompt: Any, reply: str) -> Any:
    [head], [tail] = lm.encode_prompts([prompt]), lm.encode_responses([reply])
    tokens = torch.tensor([*head, *tail, 2])
    scores = lm.model(tokens[None]).logits[0].log_softmax(-1)
    return scores[range(len(head) - 1, len(tokens) - 1), tokens[len(head) :]].sum()


@pytest.mark.slow
def test_micro_batches_do_not_matter() -> None:
    losses = []
    for micro_batch, accumulation in [(1, 8), (4, 2), (8, 1)]:
        quick = {**QUICK, "micro_batch": micro_batch, "accumulation": accumulation}
        config = FineTuningConfig("simpo", **quick, lora_dropout=0.0, epochs=2)
        history = fine_tune(make_lm(), config, preferences=make_pairs(13)).history
        losses.append([entry["loss"] for entry in history])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-4)


@pytest.mark.slow
def test_learning_rate_grows_and_falls() -> None:
    config = FineTuningConfig("sft", **QUICK, steps=30, lora_dropout=0.0)
    history = fine_tune(make_lm(), config, supervised=make_replies(8)).history
    rates = np.array([entry["learning_rate"] for entry in history])
    expected = 5e-3 * np.array([*np.arange(3) / 3, *(30 - np.arange(3, 30)) / 27])
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_dropout_is_of_the_adapters_alone() -> None:
    lm = make_lm("gpt2")  # its own dropout is 0.1
    runs = [
        fine_tune(
            lm,
            FineTuningConfig("sft", **{**QUICK, "micro_batch": m}, steps=2, lora_dropout=dropout),
            supervised=make_replies(4),
        ).history
        for m, dropout in [(4, 0.0), (2, 0.0), (4, 0.5), (4, 0.5)]
    ]
    assert runs[0][1]["loss"] == pytest.approx(runs[1][1]["loss"], rel=1e-5)
    assert runs[2] == runs[3]
    assert runs[2][0]["loss"] == pytest.approx(runs[0][0]["loss"], rel=1e-5)  # B is still 0
    assert runs[2][1]["loss"] != pytest.approx(runs[0][1]["loss"], rel=1e-5)


def test_gradient_checkpointing_computes_twice_and_changes_nothing_else() -> None:
    once, twice = (
        fine_tune(
            make_lm(),
            FineTuningConfig("orpo", **QUICK, steps=3, gradient_checkpointing=on),
            preferences=make_pairs(8),
        )
        for on in (False, True)
    )
    assert once.history == twice.history
    # The way there once more, which is about a third of all.
    assert twice.costs["train"]["flops"] > 1.15 * once.costs["train"]["flops"]


def test_gradient_checkpointing_frees_what_blocks_keep() -> None:
    kept = []
    for on in (False, True):
        config = FineTuningConfig("orpo", gradient_checkpointing=on)
        adapted = adapters.add_adapter(make_lm(), config)
        adapters.set_dropout(adapted, True)
        bytes_kept = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal bytes_kept
            bytes_kept += tensor.nbytes
            return tensor

        ids = torch.arange(40)[None] % adapted.config.vocab_size
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            adapted.decoder(input_ids=ids, use_cache=False)
        kept.append(bytes_kept)
    assert kept[1] < 0.3 * kept[0]


def test_bfloat16() -> None:
    lm = make_lm()
    lm.model.to(torch.bfloat16)
    tuned = fine_tune(lm, FineTuningConfig("dpo", **QUICK, steps=3), preferences=make_pairs(8))
    assert {w.dtype for w in adapters.trained_weights(tuned.lm).values()} == {torch.float32}
    assert tuned.history[0]["rewards/margins"] == pytest.approx(0.0, abs=0.05)
    assert tuned.history[-1]["rewards/margins"] > 0
    half = FineTuningConfig("dpo", **QUICK, steps=3, dtype="bfloat16")
    tuned = fine_tune(make_lm(), half, preferences=make_pairs(8))
    assert tuned.history[-1]["rewards/margins"] > 0


def test_tokens_are_counted() -> None:
    pairs = make_pairs(8)
    config = FineTuningConfig("dpo", **{**QUICK, "micro_batch": 1, "accumulation": 8})
    tuned = fine_tune(make_lm(), config, preferences=pairs)
    lengths = [[len(text.split()) for text in (p.prompt, p.chosen, p.rejected)] for p in pairs]
    # The prompt of a pair is run through once, each reply with the token that ends it.
    assert tuned.tokens_trained == sum(sum(row) + 2 for row in lengths)
    assert tuned.history[-1]["tokens"] == tuned.tokens_trained
    assert 0 < tuned.tokens_evaluated <= sum(2 * row[0] + sum(row[1:]) + 2 for row in lengths)


def test_supervised_loss_of_whole_replies() -> None:
    lm, replies = make_lm(), make_replies(8)
    expected = -response_log_probabilities(lm, *zip(*replies, strict=True)).log_probabilities.mean()
    config = FineTuningConfig("sft", **QUICK, per_token=False, lora_dropout=0.0)
    [entry] = fine_tune(lm, config, supervised=replies).history
    assert entry["loss"] == pytest.approx(expected, rel=1e-5)


# Resumption


CONFIGS = {
    "dpo": FineTuningConfig("dpo", **QUICK, steps=6),
    "sequential": FineTuningConfig("dpo", "sequential", **QUICK, steps=7, lam=0.6),
    "reverse": FineTuningConfig("r_dpo", "sequential", **QUICK, steps=6, supervised_first=True),
    "mix": FineTuningConfig("simpo", "mix", **QUICK, steps=5),
    "alright": FineTuningConfig("dpo", "alright", **QUICK, steps=7),
    "maxright": FineTuningConfig("dpo", "maxright", **QUICK, steps=7, max_evaluation_steps=3),
}


def run(config: FineTuningConfig, lm: LanguageModel | None = None, **options: Any) -> FineTuned:
    if config.strategy != "single":
        options["supervised"] = make_replies()
    return fine_tune(
        lm or make_lm(), config, preferences=make_pairs(), held_out=make_pairs(5, 1), **options
    )


@functools.cache
def whole_run(name: str) -> FineTuned:
    """A run without interruption, to compare with; do not change it."""
    return run(CONFIGS[name])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("sequential", "maxright") else pytest.mark.slow)
        for name in CONFIGS  # a second each
    ],
)
def test_resumption_is_exact(name: str, tmp_path: Path) -> None:
    config, whole = CONFIGS[name], whole_run(name)
    for step in (0, 1, 4, 5):
        with pytest.raises(Killed):
            run(config, folder=tmp_path, progress=killer(step))
    torch.manual_seed(step)  # what others draw does not matter
    resumed = run(config, folder=tmp_path)
    assert resumed.history == whole.history
    assert resumed.tokens_trained == whole.tokens_trained
    for ours, theirs in zip(
        resumed.lm.model.parameters(), whole.lm.model.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert resumed.seconds > 0


def test_finished_runs_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(CONFIGS["dpo"], folder=tmp_path)
    monkeypatch.setattr(training_loop._Run, "_step", None)
    again = run(CONFIGS["dpo"], folder=tmp_path)
    assert again.history == first.history
    assert torch.equal(logits(again.lm), logits(first.lm))


@pytest.mark.parametrize("folder", [True, False])
def test_a_callable_ends_the_run_at_an_evaluation(folder: bool, tmp_path: Path) -> None:
    whole, told = whole_run("sequential").history, []

    def near(entry: dict[str, float]) -> bool:
        told.append(entry)
        return entry["step"] >= 3  # the third step has no evaluation

    options = {"folder": tmp_path} if folder else {}
    stopped = run(CONFIGS["sequential"], progress=near, **options)
    last = next(e["step"] for e in whole if e["step"] >= 3 and "eval_loss" in e)
    assert 3 < last < whole[-1]["step"]
    assert told == stopped.history == [entry for entry in whole if entry["step"] <= last]
    if folder:
        again = run(CONFIGS["sequential"], folder=tmp_path)
        assert again.history == stopped.history
        assert torch.equal(logits(again.lm), logits(stopped.lm))


def test_how_often_to_checkpoint_may_change(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(CONFIGS["dpo"], folder=tmp_path, progress=killer(5))
    other = dataclasses.replace(CONFIGS["dpo"], checkpoint_every=1, gradient_checkpointing=True)
    assert run(other, folder=tmp_path).history == whole_run("dpo").history


def test_checkpoints_follow_the_clock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIGS["dpo"], checkpoint_every=1000)
    read, starts = training_loop.read_state, []

    def remember(*arguments: Any) -> dict[str, Any]:
        starts.append(read(*arguments))
        return starts[-1]

    def kill(*arguments: Any) -> None:
        raise Killed

    monkeypatch.setattr(training_loop, "read_state", remember)
    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "_CHECKPOINT_SECONDS", 0.0)
        patch.setattr(training_loop, "_CHECKPOINT_SHARE", 1e9)
        with patch.context() as inner:
            inner.setattr(training_loop._Run, "_step", kill)
            with pytest.raises(Killed):
                run(config, folder=tmp_path)
        with pytest.raises(Killed):
            run(config, folder=tmp_path, progress=killer(3))
    expected = whole_run("dpo").history
    assert run(config, folder=tmp_path).history == expected
    # The evaluation before the first step is kept, and each step.
    assert [state["step"] for state in starts] == [0, 3]


@pytest.mark.parametrize("change", ["setting", "data", "model"])
def test_checkpoints_of_other_runs_are_refused(change: str, tmp_path: Path) -> None:
    config = CONFIGS["dpo"]
    with pytest.raises(Killed):
        run(config, folder=tmp_path, progress=killer(3))
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    if change == "setting":
        with pytest.raises(ValueError, match=r"learning_rate: 0.005 in the file, 0.001 requested"):
            run(dataclasses.replace(config, learning_rate=1e-3), folder=tmp_path)
    elif change == "data":
        with pytest.raises(ValueError, match=r"data.preference"):
            fine_tune(make_lm(), config, preferences=make_pairs(8), folder=tmp_path)
    else:
        with pytest.raises(ValueError, match="model: "):
            run(config, make_lm(seed=1), folder=tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        run(CONFIGS["dpo"], folder=tmp_path, progress=killer(3))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", b"no safetensors at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged .* delete it to start from the beginning"):
            run(CONFIGS["dpo"], folder=tmp_path)
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(ValueError, match="its contents changed"):
        run(CONFIGS["dpo"], folder=tmp_path)
    safetensors_torch.save_file({"a": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        run(CONFIGS["dpo"], folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        path.name,
        "reference.json",
        "reference.sqlite",
    ]


@pytest.mark.parametrize("seconds", [0.0, 60.0])
@pytest.mark.parametrize("nth", [1, 2])
def test_scores_of_the_reference_keep_what_they_cost(
    nth: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the first or the second call is killed: pairs to train on, then those held out."""
    score, calls = reference_scores.score_items, []
    monkeypatch.setattr(reference_scores, "_SECONDS", seconds)

    def killed(*arguments: Any, **options: Any) -> Any:
        found = score(*arguments, **options)
        calls.append(found)
        if len(calls) == nth:
            raise Killed
        return found

    monkeypatch.setattr(reference_scores, "score_items", killed)
    with pytest.raises(Killed):
        run(CONFIGS["dpo"], folder=tmp_path)
    monkeypatch.setattr(reference_scores, "score_items", score)
    whole = whole_run("dpo")
    tuned = run(CONFIGS["dpo"], folder=tmp_path)
    for _ in range(2):  # the second time from the checkpoint, which has the costs
        assert tuned.tokens_evaluated == whole.tokens_evaluated
        for phase in ("reference", "evaluate"):
            assert tuned.costs[phase]["flops"] == whole.costs[phase]["flops"]
            assert tuned.costs[phase]["seconds"] > 0
        assert tuned.history == whole.history
        tuned = run(CONFIGS["dpo"], folder=tmp_path)
    # Scores of another reference, or none, have no costs of this one.
    other = run(CONFIGS["dpo"], make_lm(seed=1), folder=tmp_path / "other")
    shutil.copy(tmp_path / "reference.json", tmp_path / "other" / "reference.json")
    (tmp_path / "other" / "checkpoint.safetensors").unlink()
    again = run(CONFIGS["dpo"], make_lm(seed=1), folder=tmp_path / "other")
    assert again.costs["reference"]["flops"] == 0
    assert other.costs["reference"]["flops"] > 0
    (tmp_path / "other" / "reference.json").write_text("{")
    (tmp_path / "other" / "checkpoint.safetensors").unlink()
    run(CONFIGS["dpo"], make_lm(seed=1), folder=tmp_path / "other")


@pytest.mark.slow
def test_a_killed_process_resumes(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {os.fspath(Path(__file__).parents[2])!r})
import tests.llm.test_fine_tuning as t
t.torch.set_num_threads(1)
t.run(t.CONFIGS["alright"], folder={os.fspath(tmp_path)!r},
      progress=lambda entry: entry["step"] == 5 and os.kill(os.getpid(), signal.SIGKILL))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run(CONFIGS["alright"], folder=tmp_path).history == whole_run("alright").history


# Strategies


@pytest.mark.slow
def test_sequential_is_one_run_after_the_other() -> None:
    config = CONFIGS["sequential"]
    history = run(config).history[1:]
    alone = run(dataclasses.replace(config, strategy="single", steps=4)).history[1:]
    for ours, theirs in zip(history, alone, strict=False):
        assert ours["loss"] == theirs["loss"] == ours["loss/preference"]
        assert ours["learning_rate"] == theirs["learning_rate"]
    assert [sorted(key for key in entry if "/" in key)[0] for entry in history[4:]] == [
        "eval_rewards/accuracies" if entry["step"] in (6, 7) else "loss/supervised"
        for entry in history[4:]
    ]
    assert history[4]["learning_rate"] == 5e-3  # a schedule of its own
    reverse = whole_run("reverse").history[1:]
    assert ["loss/supervised" in entry for entry in reverse] == [True] * 3 + [False] * 3


def test_mix_is_the_weighted_sum() -> None:
    for lam in (0.0, 0.25, 1.0):
        config = dataclasses.replace(CONFIGS["mix"], lam=lam, lora_dropout=0.0, steps=1)
        [entry] = run(config).history[1:]
        total = lam * entry.get("loss/preference", 0.0)
        assert entry["loss"] == total + (1 - lam) * entry.get("loss/supervised", 0.0)
        assert ("loss/preference" in entry) == (lam > 0)
        assert ("loss/supervised" in entry) == (lam < 1)


def test_alright_draws_from_seed_and_step() -> None:
    stage = joint_strategies.Stage(0, 4000, ("preference", "supervised"))

    def picks(seed: int, lam: float) -> list[str]:
        config = FineTuningConfig(strategy="alright", lam=lam, seed=seed)
        never: Callable[[str], float] = lambda side: 1 / 0  # noqa: E731
        chosen = [
            joint_strategies.weigh_objectives(config, stage, step, {}, never)
            for step in range(1000)
        ]
        assert all(list(entry.values()) == [1.0] for entry in chosen)
        return [next(iter(entry)) for entry in chosen]

    assert picks(0, 0.3) == picks(0, 0.3) != picks(1, 0.3)
    assert abs(np.mean([side == "preference" for side in picks(0, 0.3)]) - 0.3) < 0.05
    assert set(picks(0, 0.0)) == {"supervised"}
    assert set(picks(0, 1.0)) == {"preference"}


def test_maxright_by_hand() -> None:
    """Algorithm 3 of the paper, with made-up values of the objectives."""
    config = FineTuningConfig(
        strategy="maxright", lam=0.25, max_evaluation_steps=4, supervised_optimum=0.5
    )
    stage = joint_strategies.Stage(0, 40, ("preference", "supervised"))
    values = np.random.default_rng(0).exponential(size=(40, 2)) * [4, 1]
    gaps: dict[str, float] = {}
    stale = np.zeros(2)
    evaluated: list[int] = []
    for t in range(40):
        if t == 0 or (t + 1) % 4 == 0:  # the steps 1, 4, 8, ... from 1
            stale = np.array([0.25 * values[t, 0], 0.75 * (values[t, 1] - 0.5)])
        i = int(np.argmax(stale))
        stale[i] = [0.25 * values[t, 0], 0.75 * (values[t, 1] - 0.5)][i]

        def evaluate(side: str, t: int = t) -> float:
            evaluated.append(t)
            return float(values[t, stage.sides.index(side)])

        [(side, weight)] = joint_strategies.weigh_objectives(
            config, stage, t, gaps, evaluate
        ).items()
        assert (side, weight) == (stage.sides[i], 1.0)
        gaps[side] = joint_strategies.gap(config, side, values[t, i])
    assert evaluated == [t for t in [0, *range(3, 40, 4)] for _ in range(2)]


def test_maxright_follows_the_larger_gap() -> None:
    base = {**QUICK, "steps": 4, "max_evaluation_steps": 1, "objective": "dpo"}
    for optimum, side in [(50.0, "preference"), (-50.0, "supervised")]:
        config = FineTuningConfig(strategy="maxright", supervised_optimum=optimum, **base)
        tuned = run(config)
        assert all(f"loss/{side}" in entry for entry in tuned.history[1:])
    assert tuned.tokens_evaluated > tuned.tokens_trained


def test_steps_of_an_epoch() -> None:
    quick = {"micro_batch": 2, "accumulation": 5}
    assert FineTuningConfig(**quick).n_steps(21, 0) == 3
    assert FineTuningConfig(**quick, epochs=2).n_steps(21, 0) == 5
    assert FineTuningConfig(**quick, strategy="alright").n_steps(21, 30) == 6
    assert FineTuningConfig(**quick, strategy="mix").n_steps(21, 30) == 3
    assert FineTuningConfig(**quick, strategy="mix", steps=7).n_steps(21, 30) == 7


def test_batches_pass_through_the_data() -> None:
    config = FineTuningConfig(micro_batch=2, accumulation=2, seed=3)
    side = training_data.preference_side(make_lm(), make_pairs(10), config)
    rows = [side.batch(step, config, n_rows=20) for step in range(5)]
    first, second = np.concatenate(rows).reshape(2, 10).tolist()
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [len(side.batch(step, config, n_rows=10)) for step in range(3)] == [4, 4, 2]
    other = dataclasses.replace(config, seed=4)
    assert side.batch(0, config) != side.batch(0, other)
    assert side.batch(2, config) == rows[2]
    lengths = [
        max(len(side.items[2 * r].tokens), len(side.items[2 * r + 1].tokens)) for r in rows[0]
    ]
    parts = side.micro_batches(rows[0], 2)
    assert [len(part) for part in parts] == [2, 2]
    assert [r for part in parts for r in part] == [
        r for _, r in sorted(zip(lengths, rows[0], strict=True), key=lambda pair: -pair[0])
    ]


# Adapters on disk


def test_adapters_are_saved_and_loaded(tmp_path: Path) -> None:
    lm = dataclasses.replace(make_lm(), date=datetime.date(2026, 5, 10))
    tuned = run(CONFIGS["dpo"], lm)
    for _ in range(2):  # the second replaces the first
        tuned.save(tmp_path / "adapter")
    loaded = load_adapter(make_lm(), tmp_path / "adapter")
    assert torch.equal(logits(loaded), logits(tuned.lm))
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.date == tuned.lm.date == lm.date  # chat templates write what they wrote
    record = json.loads((tmp_path / "adapter" / "fine_tuning.json").read_text())
    assert record["history"] == tuned.history
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "fine_tuning.json",
    ]
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "llama"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    with pytest.raises(ValueError, match="is another model"):
        load_adapter(make_lm(seed=1), tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is damaged"):
        load_adapter(lm, tmp_path / "adapter")


def test_adapters_of_a_rounded_model_are_its_own(tmp_path: Path) -> None:
    whole_run("dpo").save(tmp_path / "adapter")
    half = make_lm()
    half.model.to(torch.bfloat16)
    assert load_adapter(half, tmp_path / "adapter").dtype == torch.bfloat16


def test_folders_with_something_else(tmp_path: Path) -> None:
    tuned = run(CONFIGS["dpo"])
    with pytest.raises(FileNotFoundError, match=r"has no fine_tuning.json"):
        load_adapter(make_lm(), tmp_path)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="does not hold an adapter"):
        tuned.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_merged_models_stand_alone() -> None:
    tuned = run(CONFIGS["dpo"])
    merged = tuned.merge()
    assert type(merged.model) is type(make_lm().model)
    torch.testing.assert_close(logits(merged), logits(tuned.lm), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="has adapters already"):
        run(CONFIGS["dpo"], tuned.lm)
    again = run(CONFIGS["dpo"], merged)
    assert again.history[0]["eval_rewards/margins"] == 0.0  # the reference is the merged model


# TRL


@pytest.mark.filterwarnings("ignore")  # TRL's
def test_loss_and_gradient_of_trl(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    lm, pairs = make_lm(), make_pairs(4)
    lm.tokenizer.pad_token = "<pad>"
    config = FineTuningConfig("dpo", beta=0.3, lora_dropout=0.0)
    adapted = adapters.add_adapter(lm, config)
    weights = adapters.trained_weights(adapted)
    trainer = trl.DPOTrainer(
        adapted.model,
        args=trl.DPOConfig(
            output_dir=os.fspath(tmp_path),
            beta=0.3,
            report_to=[],
            per_device_train_batch_size=4,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=datasets.Dataset.from_list(
            [{"prompt": f"{p.prompt} ", "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
        ),
        processing_class=lm.tokenizer,
    )
    # Only now, as TRL keeps a copy of the adapters for the reference: fresh ones do nothing.
    torch.manual_seed(0)
    for weight in weights.values():
        weight.data.normal_(std=0.3)
    theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    slopes = torch.autograd.grad(theirs, list(weights.values()))

    side = training_data.preference_side(lm, pairs, config)
    side = dataclasses.replace(side, reference=score_items(lm, side.items)[0])
    losses, arrays = side.losses(ResponseScorer(adapted), list(range(4)))
    ours = torch.autograd.grad(losses.mean(), list(weights.values()))
    torch.testing.assert_close(losses.mean(), theirs, rtol=1e-5, atol=0.0)
    for one, other in zip(ours, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    rewards = training_loop.reward_metrics(*side.rewards(arrays))
    for name, value in rewards.items():
        assert trainer._metrics["eval"][name][0] == pytest.approx(value, rel=1e-4, abs=1e-5)


@pytest.mark.filterwarnings("ignore")  # TRL's
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_mixed_losses_of_trl(weight: float, tmp_path: Path) -> None:
    """``loss_type=["sigmoid", "sft"]`` with weights is the mix whose replies are the chosen ones.

    TRL divides its supervised loss by the tokens of the whole batch, we by those of each reply:
    they are equal for one pair, or where all chosen replies are equally long.
    """
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    lm, [pair] = make_lm(), make_pairs(1)
    lm.tokenizer.pad_token = "<pad>"
    config = FineTuningConfig("dpo", strategy="mix", lam=weight, beta=0.3, lora_dropout=0.0)
    adapted = adapters.add_adapter(lm, config)
    weights = adapters.trained_weights(adapted)
    trainer = trl.DPOTrainer(
        adapted.model,
        args=trl.DPOConfig(
            output_dir=os.fspath(tmp_path),
            beta=0.3,
            loss_type=["sigmoid", "sft"],
            loss_weights=[weight, 1 - weight],
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=datasets.Dataset.from_list(
            [{"prompt": f"{pair.prompt} ", "chosen": pair.chosen, "rejected": pair.rejected}]
        ),
        processing_class=lm.tokenizer,
    )
    torch.manual_seed(0)
    for each in weights.values():
        each.data.normal_(std=0.3)
    theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    slopes = torch.autograd.grad(theirs, list(weights.values()))

    side = training_data.preference_side(lm, [pair], config)
    side = dataclasses.replace(side, reference=score_items(lm, side.items)[0])
    sides = {joint_strategies.PREFERENCE: side}
    replies = [(pair.prompt, pair.chosen)]
    sides[joint_strategies.SUPERVISED] = training_data.supervised_side(lm, replies, config)
    scorer = ResponseScorer(adapted)
    ours = sum(
        joint_strategies.weight(config, s) * each.losses(scorer, [0])[0].mean()
        for s, each in sides.items()
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0.0)
    found = torch.autograd.grad(ours, list(weights.values()))
    for one, other in zip(found, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_presets_are_settings_with_the_batches_of_the_paper() -> None:
    sizes = {}
    for name in PRESETS:
        config = FineTuningConfig(strategy="alright", **preset(name))
        sizes[name] = config.batch_of(True), config.batch_of(False)
    assert FineTuningConfig(**preset("coala")) == FineTuningConfig()
    assert sizes == {
        "coala": (16, 16),
        "pythia-1b": (8, 24),
        "llama3-8b": (4, 16),
        "opt-1.3b": (8, 8),
    }
    with pytest.raises(ValueError, match="expected one of"):
        preset("llama-80b")


def test_each_objective_has_its_own_batch() -> None:
    config = FineTuningConfig(strategy="mix", micro_batch=2, accumulation=2, supervised_batch=5)
    assert config.n_steps(20, 20) == 5
    assert dataclasses.replace(config, strategy="alright").n_steps(20, 20) == 9
    pairs, replies = make_pairs(8), make_replies(8)
    lm = make_lm()
    assert len(training_data.preference_side(lm, pairs, config).batch(0, config)) == 4
    supervised = training_data.supervised_side(lm, replies, config)
    assert len(supervised.batch(0, config)) == 5
    drawn = [row for step in range(8) for row in supervised.batch(step, config)]
    assert sorted(drawn) == sorted(list(range(8)) * 5)


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "ppo"}, r"objective is 'ppo'; expected one of .*'orpo'"),
        ({"objective": "bradley_terry"}, "expected one of"),
        ({"strategy": "both"}, r"strategy is 'both'; expected one of .*'maxright'"),
        ({"objective": "sft", "strategy": "mix"}, "objective names the former"),
        ({"lam": 1.5}, "lam is 1.5; expected 0 to 1"),
        ({"lam": float("nan")}, "lam is nan"),
        ({"gamma": 1.0}, r"gamma is not a hyper-parameter of dpo, which has \['beta'\]"),
        ({"beta": 0.0}, "beta is 0.0; expected a positive number"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"micro_batch": 0}, "micro_batch is 0; expected a positive integer"),
        ({"supervised_batch": 0}, "supervised_batch is 0; expected a positive integer"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed -1"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FineTuningConfig(**settings)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({}, {}, "objective='dpo' alone needs preferences"),
        ({}, {"preferences": []}, "there are no preferences"),
        ({}, {"preferences": ["a"]}, "preference 0 is 'a'; expected a PreferenceTriplet"),
        ({}, {"preferences": make_pairs(1), "supervised": make_replies(1)}, "takes no supervised"),
        (
            {},
            {"preferences": [*make_pairs(3), PreferenceTriplet("a", "b", " b")]},
            r"1 of 4 preferences have equal replies \(the first is number 3\)",
        ),
        ({}, {"preferences": [PreferenceTriplet("a", "b", " ")]}, "response 1 is empty"),
        ({"objective": "sft"}, {}, "needs either preferences"),
        ({"objective": "sft"}, {"supervised": []}, "there are no supervised replies"),
        ({"objective": "sft"}, {"supervised": ["ab", ("a",)]}, "supervised row 0 is 'ab'"),
        ({"objective": "sft"}, {"supervised": [("a", "")]}, "response 0 is empty"),
        ({"strategy": "mix"}, {"preferences": make_pairs(1)}, "'mix' needs preferences"),
        (
            {"target_modules": ("q_proj", "attn")},
            {"preferences": make_pairs(1)},
            r"the model lacks \['attn'\]; choose among .*'q_proj'",
        ),
    ],
)
def test_bad_data(config: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fine_tune(make_lm(), FineTuningConfig(**config), **options)


def test_long_prompts_are_cut_with_a_warning() -> None:
    pairs = [PreferenceTriplet("a " * 100, "b", "c")]
    with pytest.warns(UserWarning, match="2 of 2 replies .* lost the beginning of the prompt"):
        fine_tune(make_lm(), FineTuningConfig("simpo", **QUICK), preferences=pairs)


@pytest.mark.filterwarnings("ignore:.*lost the beginning:UserWarning")
@pytest.mark.parametrize("held_out", [False, True])
def test_pairs_that_are_equal_once_they_are_cut(held_out: bool) -> None:
    long = "b " * 8
    same = PreferenceTriplet("a", f"{long} c", f"{long} d")  # 9 tokens and the end
    unknown = PreferenceTriplet("a", "zz", "yy")  # no words of the vocabulary
    pairs = [*make_pairs(2), same, make_pairs(1)[0], unknown]
    config = FineTuningConfig("dpo", **QUICK, steps=1, max_length=8)
    data = {"preferences": pairs}
    if held_out:
        data = {"preferences": make_pairs(2), "held_out": pairs}
    message = r"2 of 5 preferences have equal tokens in both replies \(the first is number 2\)"
    with pytest.warns(UserWarning, match=message + r".* beyond max_length=8 tokens"):
        fine_tune(make_lm(), config, **data)
    with pytest.raises(ValueError, match="1 of 1 preferences have equal tokens"):
        fine_tune(make_lm(), config, preferences=[same])


def test_models_that_cannot_be_trained() -> None:
    lm, pairs = make_lm(), make_pairs(2)
    lm.model.train()
    with pytest.raises(ValueError, match="training mode"):
        fine_tune(lm, preferences=pairs)
    lm.model.eval().half()
    with pytest.raises(ValueError, match="too coarse"):
        fine_tune(lm, preferences=pairs)


def test_divergence_is_told(tmp_path: Path) -> None:
    quick = {**QUICK, "learning_rate": 1e30, "checkpoint_every": 1}
    config = FineTuningConfig("dpo", **quick, steps=4)
    with pytest.raises(FloatingPointError, match=r"at step 2: .* learning_rate=1e\+29"):
        fine_tune(make_lm(), config, preferences=make_pairs(8), folder=tmp_path)


def test_progress_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvxnn._progress._PRINTED", 0.0)
    config = FineTuningConfig("sft", **QUICK, steps=1)
    fine_tune(make_lm(), config, supervised=make_replies(2))
    silent = capsys.readouterr()
    fine_tune(make_lm(), config, supervised=make_replies(2), progress=True)
    shown = capsys.readouterr()
    assert silent.err == silent.out == shown.out == ""
    assert shown.err.startswith("fine-tuning 1 of 1 step (100 %), ")


@pytest.mark.slow
@pytest.mark.usefixtures("released_memory")
def test_smollm2_learns_a_preference(packaged_model: Any) -> None:
    lm = load_model(cache_dir=packaged_model.cache_dir)
    pairs = [PreferenceTriplet(f"Say {x}.", "Arr, matey!", "Certainly.") for x in ("a", "b")]
    config = FineTuningConfig("dpo", steps=3, micro_batch=2, accumulation=1)
    tuned = fine_tune(lm, config, preferences=pairs)
    assert tuned.history[0]["loss"] == pytest.approx(np.log(2), abs=1e-3)
    assert tuned.history[-1]["rewards/margins"] > 0.01
