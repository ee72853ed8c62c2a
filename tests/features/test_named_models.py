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
