"""Features are read, and heads fitted to them, in a process that has no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cvxnn.features import FeatureWriter
from cvxnn.features.pair_digests import extraction_settings
from cvxnn.preference import PreferenceTriplet, write_preferences

from .stand_in import DESCRIPTION

BLOCK = """\
import sys
ABSENT = ("torch", "transformers", "peft", "tokenizers")


class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of features as ``cvxnn extract`` does, of 24 pairs in 12 groups."""
    path = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(48, 4)).astype(np.float32)
    rows[0::2, 0] += 2.0
    with FeatureWriter(path / "features.npy", DESCRIPTION) as writer:
        writer.append(rows, "all")
        writer.finish()
    pairs = [PreferenceTriplet(f"p{i}", f"good {i}", f"bad {i}", f"g{i // 2}") for i in range(24)]
    write_preferences(path / "pairs.jsonl.gz", pairs, format="conversational")
    note = {"settings": extraction_settings(DESCRIPTION, pairs), "costs": {}}
    (path / "features.json").write_text(json.dumps(note), "utf-8")
    return path


@pytest.fixture
def run() -> Callable[..., str]:
    """Run code in a new interpreter without torch, and return what it prints."""

    def run(code: str, *arguments: object) -> str:
        command = [sys.executable, "-c", BLOCK + code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.slow
def test_names_load_features_are_read_and_a_head_is_fitted(
    run: Callable[..., str], folder: Path
) -> None:
    packages = ["cvxnn", "cvxnn.estimators", "cvxnn.features", "cvxnn.costs"]
    code = (
        "import importlib\n"
        f"for place in {packages}:\n"
        "    package = importlib.import_module(place)\n"
        "    names = getattr(package, '__all__', ())\n"
        "    assert all(getattr(package, name) is not None for name in names)\n"
        "from cvxnn import LinearPreferenceHead\n"
        "from cvxnn.features import read_features, read_pair_features\n"
        "features = read_pair_features(sys.argv[1])\n"
        "train, test = features.split(0.25, 0)\n"
        "head = LinearPreferenceHead(embedding=features.embedding)\n"
        "head.fit_pairs(train.chosen, train.rejected)\n"
        "rows, description = read_features(sys.argv[1] + '/features.npy')\n"
        "assert description == features.embedding and rows.shape == (48, 4)\n"
        "print((head.reward(test.chosen) > head.reward(test.rejected)).mean() > 0.5)\n"
    )
    assert run(code, folder) == "True"


@pytest.mark.slow
def test_the_command_fits_both_heads(run: Callable[..., str], folder: Path, tmp_path: Path) -> None:
    code = (
        "from cvxnn.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "assert not any(sys.modules.get(name) for name in ABSENT)\n"
        "sys.exit(code)\n"
    )
    output = tmp_path / "head.safetensors"
    found = json.loads(run(code, "fit", folder, "--output", output, "--json"))
    assert found["status"] == "done"
    assert found["baselines"].keys() >= {"linear head"}
    assert found["measured"]["seconds"].keys() == {"phase I", "phase II"}
    assert found["measured"]["peak_memory"] > 0
    assert output.is_file()
