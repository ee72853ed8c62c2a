"""A tiny language model on disk, and pairs that a head can tell apart."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..tiny_models import tiny_model, tiny_tokenizer

torch = pytest.importorskip("torch")

WORDS = ["<pad>", "<unk>", "<eos>", "<user>", "<assistant>", "<bos>", *"abcdefghijklmnopqrst"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Command line and file of settings must not depend on the folder that tests run in.
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_model(folder: Path, seed: int = 0) -> Path:
    """A random LLaMA of two blocks that knows the letters a to t."""
    tokenizer = tiny_tokenizer(WORDS, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>")
    tokenizer.chat_template = TEMPLATE
    model = tiny_model(
        "llama",
        seed=seed,
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=5,
        eos_token_id=2,
        pad_token_id=0,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows(n: int = 40, seed: int = 0) -> list[dict[str, str]]:
    """Pairs: chosen replies are made of early letters, rejected ones of late letters."""
    rng = np.random.default_rng(seed)

    def say(letters: str) -> str:
        return " ".join(rng.choice(list(letters), size=rng.integers(2, 6)))

    return [
        {
            "prompt": f"{say('abcdefghijklmnopqrst')} {'abcdefghijklmnopqrst'[i % 20]}",
            "chosen": f"{say('abcdefghij')} a",
            "rejected": f"{say('klmnopqrst')} t",
            "conversation_id": f"c{i // 2}",
        }
        for i in range(n)
    ]


def write_rows(path: Path, values: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in values), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("models") / "other", seed=1))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_rows(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows()))


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory, model: str, data: str) -> str:
    """A folder of cvxnn extract."""
    from cvxnn.cli.main import main

    folder = tmp_path_factory.mktemp("extracted") / "features"
    assert main(["extract", data, "--model", model, "--output", str(folder), "--quiet"]) == 0
    return str(folder)


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory, features: str) -> str:
    """A head of cvxnn fit."""
    from cvxnn.cli.main import main

    file = tmp_path_factory.mktemp("fitted") / "head.safetensors"
    assert main(["fit", features, "--output", str(file), "--n-patterns", "8", "--quiet"]) == 0
    return str(file)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a command with --json; give its object, with the exit code in it."""
    from cvxnn.cli.main import main

    def call(*arguments: object, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == code
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        result: dict[str, Any] = json.loads(out)
        return result

    return call


@pytest.fixture
def environment() -> dict[str, str]:
    """For subprocesses: this checkout, one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
