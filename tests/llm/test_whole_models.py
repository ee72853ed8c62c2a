"""Fine-tuning of all weights: against a plain loop, resumed, saved as a model of its own."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from cvxnn.comparison.fine_tuned import fine_tuning_config
from cvxnn.llm import FineTuningConfig, fine_tune, load_adapter, load_model
from cvxnn.llm.fine_tuning.presets import preset

from .test_fine_tuning import (
    QUICK,
    Killed,
    killer,
    logits,
    make_lm,
    make_pairs,
    run,
    two_steps_of_dpo,
)

torch = pytest.importorskip("torch")
ALL = FineTuningConfig("dpo", **QUICK, trained="all", steps=6)


def test_steps_of_all_weights_by_hand() -> None:
    lm, pairs = make_lm(), make_pairs(4)
    config = dataclasses.replace(ALL, accumulation=1, beta=0.3, steps=2, max_gradient_norm=1e9)
    tuned = fine_tune(lm, config, preferences=pairs)
    mine = dataclasses.replace(lm, model=copy.deepcopy(lm.model).requires_grad_(True))
    two_steps_of_dpo(mine, lm, mine.model.parameters(), pairs)
    for (name, ours), theirs in zip(
        tuned.lm.model.named_parameters(), mine.model.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4, msg=name)
    assert torch.equal(logits(lm), logits(make_lm()))  # the given model stays as it is
    assert not torch.equal(logits(lm), logits(tuned.lm))
    assert not any(weight.requires_grad for weight in tuned.lm.model.parameters())


def test_an_interrupted_run_of_all_weights_is_the_same(tmp_path: Path) -> None:
    whole = run(ALL)
    for step in (1, 4):
        with pytest.raises(Killed):
            run(ALL, folder=tmp_path, progress=killer(step))
    resumed = run(ALL, folder=tmp_path)
    assert resumed.history == whole.history
    for ours, theirs in zip(
        resumed.lm.model.parameters(), whole.lm.model.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_whole_models_are_saved_and_loaded(tmp_path: Path) -> None:
    tuned, folder = run(ALL), tmp_path / "tuned"
    for _ in range(2):  # the second replaces the first
        tuned.save(folder)
    assert torch.equal(logits(load_model(folder)), logits(tuned.lm))
    record = json.loads((folder / "fine_tuning.json").read_text())
    assert record["config"]["trained"] == "all"
    with pytest.raises(ValueError, match="load it with load_model"):
        load_adapter(make_lm(), folder)
    merged = tuned.merge()
    assert torch.equal(logits(merged), logits(tuned.lm))
    again = run(ALL, merged)
    assert again.history[0]["eval_rewards/margins"] == 0.0  # the reference is the tuned model


@pytest.mark.slow
def test_more_is_learnt_than_by_adapters_at_the_same_loss_function() -> None:
    """All weights have more room: the training loss after the same steps is no higher."""
    adapters = run(dataclasses.replace(ALL, trained="adapters", steps=12))
    everything = run(dataclasses.replace(ALL, steps=12))
    assert everything.history[-1]["loss"] < 0.9 * adapters.history[1]["loss"]
    assert everything.history[-1]["loss"] <= adapters.history[-1]["loss"]


def test_who_cannot_train_all_weights() -> None:
    half = make_lm()
    half.model.to(torch.bfloat16)
    with pytest.raises(ValueError, match="small steps of all weights are lost"):
        fine_tune(half, ALL, preferences=make_pairs(2))
    with pytest.raises(ValueError, match="trained is 'some'; expected one of"):
        FineTuningConfig(trained="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has adapters already"):
        fine_tune(
            run(dataclasses.replace(ALL, trained="adapters")).lm, ALL, preferences=make_pairs(2)
        )
    with pytest.raises(ValueError, match="a comparison keeps adapters"):
        fine_tuning_config("dpo", {"trained": "all"}, {}, 0)
    assert preset("opt-1.3b")["trained"] == "all"
