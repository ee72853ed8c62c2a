"""One of each kind of file that cvxnn writes and reads again, and jobs that write them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
# Measured in each run, or different where a part was already done.
VARYING = {
    "seconds",
    "times",
    "costs",
    "flops",
    "peak_memory",
    "tokens_evaluated",
    "digest",
    "output",
}


class Kept(NamedTuple):
    """Files of one kind in a folder, and the way to read them."""

    folder: Path
    read: Callable[[Path], Any]
    """Function from the folder to something that can be compared."""


def estimator(folder: Path) -> Kept:
    import cvxnn

    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, 4))
    head = cvxnn.LinearPreferenceHead().fit_pairs(X[:12] + 1, X[12:])
    cvxnn.save(head, folder / "head.safetensors")

    def read(folder: Path) -> Any:
        found = cvxnn.load(folder / "head.safetensors")
        cvxnn.save(found, folder / "again")
        return (folder / "again").read_bytes()

    return Kept(folder, read)


def features(folder: Path) -> Kept:
    from cvxnn.costs import CostMeter
    from cvxnn.features import Description, FeatureWriter, read_pair_features
    from cvxnn.features.pair_digests import extraction_settings
    from cvxnn.files.json_files import write_json
    from cvxnn.preference import PreferenceTriplet, write_preferences

    pairs = [PreferenceTriplet(f"p{i}", f"good {i}", f"bad {i}", f"g{i}") for i in range(12)]
    names = ("fingerprint", "fingerprint_float16", "fingerprint_bfloat16", "dtype", "model")
    numbers = {"layer": 1, "max_length": 16, "context": 0, "width": 4}
    description = Description(
        **{name: name for name in names}, **numbers, pooling="mean", date="2024-07-26"
    )
    rows = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    with FeatureWriter(folder / "features.npy", description) as writer:
        for start in (0, 8, 16):
            writer.append(rows[start : start + 8], str(start))
        writer.finish()
    write_preferences(folder / "pairs.jsonl.gz", pairs, format="conversational")
    meter = CostMeter()
    with meter.phase("embed"):
        pass
    settings = extraction_settings(description, pairs)
    write_json(folder / "features.json", {"settings": settings, "costs": meter.to_dict()})

    def read(folder: Path) -> Any:
        found = read_pair_features(folder)
        rows = np.array(found.chosen).tobytes(), np.array(found.rejected).tobytes()
        return rows, list(found.pairs), found.embedding, found.costs

    return Kept(folder, read)


def comparison(folder: Path) -> Kept:
    from cvxnn.comparison.results import Comparison

    values = {
        "model": {"name": "m", "parameters": 3},
        "data": {"training_pairs": 4, "held_out_pairs": 2},
        "settings": {"seed": 0},
        "baselines": {"longer": {"accuracy": 0.5, "interval": [0.1, 0.9]}},
        "results": (),
        "groups": ["a", "b"],
    }
    Comparison(**values).write(folder / "comparison.json")

    def read(folder: Path) -> Any:
        return Comparison.read(folder / "comparison.json").to_dict()

    return Kept(folder, read)


def key(folder: Path) -> Kept:
    from cvxnn.evaluation.study_key import read_key
    from cvxnn.evaluation.study_sheet import StudyQuestion, make_study, write_study

    questions = [
        StudyQuestion(f"q{i}", {"One-1": f"yes {i}", "Two-2": f"no {i}"}) for i in range(3)
    ]
    write_study(make_study(questions, seed=0), folder / "sheet", folder / "key.json")
    return Kept(folder, lambda folder: read_key(folder / "key.json"))


def log(folder: Path) -> Kept:
    from cvxnn.evaluation.judge_log import JudgeLog

    with JudgeLog(folder / "log.jsonl") as answers:
        answers.add([(f"k{i}", "ab", i / 7) for i in range(8)])

    def read(folder: Path) -> Any:
        with JudgeLog(folder / "log.jsonl") as answers:
            return dict(answers.known)

    return Kept(folder, read)


def cache(folder: Path) -> Kept:
    pytest.importorskip("torch")
    from cvxnn.llm import EmbeddingCache

    vectors = {bytes([i]) * 32: np.full(8, i, np.float32) for i in range(40)}
    with EmbeddingCache(folder / "cache.sqlite") as kept:
        kept.put(vectors)

    def read(folder: Path) -> Any:
        with EmbeddingCache(folder / "cache.sqlite") as kept:
            return {name: vector.tobytes() for name, vector in kept.get(vectors).items()}

    return Kept(folder, read)


def checkpoint(folder: Path) -> Kept:
    torch = pytest.importorskip("torch")
    from cvxnn.llm.fine_tuning.run_checkpoint import read_state, restore, write_checkpoint

    def new() -> Any:
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 3)
        return layer, torch.optim.AdamW(layer.parameters(), 0.1)

    layer, optimizer = new()
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    weights = dict(layer.named_parameters())
    settings = {"seed": 1, "model": "m"}
    write_checkpoint(folder / "c.safetensors", weights, optimizer, settings, {"step": 2})

    def read(folder: Path) -> Any:
        state = read_state(folder / "c.safetensors", settings)
        layer, optimizer = new()
        restore(folder / "c.safetensors", dict(layer.named_parameters()), optimizer)
        moments = json.dumps(optimizer.state_dict()["state"], default=lambda x: x.tolist())
        return state, [weight.tolist() for weight in layer.parameters()], moments

    return Kept(folder, read)


def adapter(folder: Path) -> Kept:
    pytest.importorskip("peft")
    import torch
    import transformers

    from cvxnn.llm import FineTuningConfig, LanguageModel, load_adapter
    from cvxnn.llm.fine_tuning.adapters import add_adapter, save_adapter
    from cvxnn.llm.identity import describe_model

    config = transformers.GPT2Config(
        vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()

    class Tokenizer:
        chat_template = None

        def get_vocab(self) -> dict[str, int]:
            return {}

    lm = LanguageModel(model, Tokenizer(), "gpt2")
    adapted = add_adapter(lm, FineTuningConfig(lora_r=2))
    save_adapter(adapted, folder / "adapter", describe_model(lm))

    def read(folder: Path) -> Any:
        found = load_adapter(lm, folder / "adapter").model
        return [weight.tolist() for weight in found.parameters()], found.peft_config["default"]

    return Kept(folder, read)


KINDS = (estimator, features, comparison, key, log, cache, checkpoint, adapter)


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kept]:
    """Give one of a kind."""
    makers = {make.__name__: make for make in KINDS}

    @functools.cache
    def get(kind: str) -> Kept:
        return makers[kind](tmp_path_factory.mktemp(kind))

    return get


def plain(value: Any) -> Any:
    """Leave out what differs between equal runs."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items() if key not in VARYING}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


class Jobs:
    """Jobs of ``jobs.py``, each in processes of its own.

    Parameters
    ----------
    server : subprocess.Popen
        The program.
    work : Path
        Folder for what all jobs need, and for the results of undisturbed ones.
    """

    def __init__(self, server: subprocess.Popen, work: Path) -> None:
        self.server = server
        self.work = work
        self.known: dict[str, tuple[dict[str, Any], int, float]] = {}
        self.run("prepare", work)

    def run(self, job: str, folder: Path, *ends: Any) -> list[list[Any]]:
        """Run a job; give for each process its exit code, its operations and its error."""
        return self._run(job, folder, *ends)[0]

    def _run(self, job: str, folder: Path, *ends: Any) -> tuple[list[list[Any]], float]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps([job, str(folder), ends or [None]]) + "\n")
        self.server.stdin.flush()
        found, seconds = json.loads(self.server.stdout.readline())
        for end, (code, _, error) in zip(ends or [None], found, strict=True):
            allowed = {0}
            if end is not None:
                allowed.add(1 if end.keys().isdisjoint({"operation", "seconds"}) else -9)
            assert code in allowed, (job, end, error)
        return found, seconds

    def undisturbed(self, job: str) -> tuple[dict[str, Any], int, float]:
        """Give what a job leaves that nobody disturbs, its number of operations, its seconds."""
        if job not in self.known:
            folder = self.work / f"undisturbed-{job}"
            folder.mkdir()
            [[_, n, _]], seconds = self._run(job, folder)
            assert not list(folder.rglob(".*"))
            self.known[job] = self.left(folder), n, seconds
        return self.known[job]

    @staticmethod
    def left(folder: Path) -> dict[str, Any]:
        """Read all that a job has left, by the name of the file."""
        found: dict[str, Any] = {}
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_dir() or name.startswith(".") or "/." in name:  # what a killed process began
                continue
            if path.suffix == ".json":
                found[name] = plain(json.loads(path.read_text("utf-8")))
            elif path.name == "checkpoint.safetensors":
                with safe_open(path, framework="numpy") as file:
                    tensors = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
                    state = json.loads(file.metadata()["state"])
                found[name] = [tensors, plain(state)]
            elif path.suffix != ".sqlite":
                found[name] = path.read_bytes()
        return found


@pytest.fixture(scope="session")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Start the program that runs jobs."""
    for package in ("torch", "peft"):
        pytest.importorskip(package)
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked")
    work = tmp_path_factory.mktemp("work")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(work / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, str(Path(__file__).with_name("jobs.py")), str(work)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield Jobs(server, work)
        assert server.stdin is not None
        server.stdin.close()
