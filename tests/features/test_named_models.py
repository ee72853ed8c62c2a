"""Short names of the papers' models, and the layers that LoRA adapts in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvxnn.features import NAMED_MODELS, hub_name

GUIDE = Path(__file__).parents[2] / "docs" / "user_guide" / "language_models.md"


@pytest.mark.parametrize("name", NAMED_MODELS)
def test_short_names_lead_to_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pytest.importorskip("cvxnn.llm.model_files")
    model = NAMED_MODELS[name]
    assert hub_name(name) == hub_name(name.upper()) == hub_name(model.hub) == model.hub
    assert files.ModelFiles.find(name) == (model.hub, None)
    assert f"| `{name}` | {model.hub} | {model.licence}" in GUIDE.read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert files.ModelFiles.find(name).source == name  # a folder of that name comes first


def test_the_help_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    from cvxnn.cli.main import main

    main(["extract", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ", ".join(NAMED_MODELS) in shown


N_WEIGHTS = {  # as papers and pages state them; of dolphin-7b, two more tokens
    "smollm2-135m": 134_515_008,
    "distilgpt2": 81_912_576,
    "gpt2-774m": 774_030_080,
    "mistral-7b": 7_241_732_096,
    "dolphin-7b": 7_241_748_480,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3-8b": 8_030_261_248,
    "pythia-1b": 1_011_781_632,
    "opt-1.3b": 1_315_758_080,
}


@pytest.mark.parametrize("name", NAMED_MODELS)
def test_their_sizes_are_known(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    shapes = pytest.importorskip("cvxnn.llm.model_shape")
    config = transformers.AutoConfig.for_model(**NAMED_MODELS[name].config)
    assert shapes.shape_of(config, None).n_parameters == N_WEIGHTS[name]


@pytest.mark.parametrize(("gib", "code"), [(4, 3), (24, 0)])
def test_a_plan_needs_no_network(
    gib: int,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("transformers")
    from cvxnn.cli.main import main

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))  # where its files are not
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "abcd", "chosen": "abcdefgh", "rejected": "ä"}\n', "utf-8")
    words = f"extract {data} --model meta-llama/Llama-3.1-8B --plan-only --memory {gib}"
    assert main(words.split()) == code
    said = capsys.readouterr().out
    assert "meta-llama/Llama-3.1-8B is not on this machine: its sizes are known" in said
    assert "about 4 tokens (5 if prompts cannot be shared) of 1 pair," in said
    assert ("does not fit in 4 GiB" in said) == (code == 3)
