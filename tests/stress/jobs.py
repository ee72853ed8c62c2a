"""Jobs that write files, each in a process of its own, which can be killed at any moment.

``python jobs.py FOLDER`` imports what the jobs need, once. For each line of its standard input, a
JSON list ``[job, folder, ends]``, it runs the job in as many processes at once as there are ends,
forked from this one. An end is null, ``{"operation": k}`` (the process kills itself before its
k-th operation on a file of the folder), ``{"seconds": t}`` (it is killed after that time),
``{"bytes": n}`` (no file can grow beyond), ``{"rights": 0}`` (it may do only what the permissions
of files allow, as if it were not root) or ``{"disk": 0}`` (the folder is small). The answer, a line
of JSON, has for each process its exit code (-9 if it was killed), the number of its operations and
the message of its error.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import cvxnn
import cvxnn.features.blocks
from cvxnn.cli.main import main
from cvxnn.comparison import compare
from cvxnn.evaluation import compare_with_judge
from cvxnn.features import extract_pairs
from cvxnn.llm import (
    Embedder,
    FineTuningConfig,
    LanguageModel,
    fine_tune,
    load_model,
)
from cvxnn.llm.log_probabilities import score_items
from cvxnn.preference import PreferenceTriplet

LETTERS = "abcdefghijklmnopqrst"
EVENTS = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "sqlite3.connect",
}
WORK = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


def pairs(n: int) -> list[PreferenceTriplet]:
    rng = np.random.default_rng(0)

    def text(letters: str) -> str:
        return " ".join(rng.choice(list(letters), rng.integers(2, 6)))

    return [
        PreferenceTriplet(text(LETTERS), text("abcdefghij"), text("klmnopqrst"), f"g{i}")
        for i in range(n)
    ]


def make_model(folder: Path) -> None:
    """Write a random LLaMA of two blocks that knows the letters a to t."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    names = ["<u>", "<eos>", *LETTERS]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(names)}, unk_token="<u>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    config = transformers.LlamaConfig(
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def language_model() -> LanguageModel:
    return load_model(WORK / "model", device="cpu")


def prepare(_: Path) -> None:
    """Write what other jobs read: the model, two heads, and prompts."""
    make_model(WORK / "model")
    embedder = Embedder(language_model())
    features = extract_pairs(embedder, pairs(16), WORK / "features")
    for name, half in (("one", slice(8)), ("two", slice(8, 16))):
        head = cvxnn.LinearPreferenceHead(embedding=features.embedding)
        head.fit_pairs(np.array(features.chosen[half]), np.array(features.rejected[half]))
        cvxnn.save(head, WORK / f"{name}.safetensors")
    prompts = "".join(f"{pair.prompt}\n" for pair in pairs(6))
    (WORK / "prompts.txt").write_text(prompts, encoding="utf-8")


def extraction(folder: Path) -> None:
    cvxnn.features.blocks.BLOCK = 4
    extract_pairs(Embedder(language_model(), batch_tokens=32), pairs(24), folder / "features")


def extraction_with_cache(folder: Path) -> None:
    embedder = Embedder(language_model(), batch_tokens=32, cache=folder / "cache.sqlite")
    prompts, replies = zip(*((pair.prompt, pair.chosen) for pair in pairs(24)), strict=True)
    np.save(folder / "result.npy", embedder.embed(prompts, replies))


def fine_tuning(folder: Path) -> None:
    score_items.__kwdefaults__["batch_tokens"] = 32  # several batches, also of so few tokens
    config = FineTuningConfig(
        steps=6, micro_batch=2, accumulation=1, checkpoint_every=1, evaluate_every=3, lora_r=2
    )
    data = pairs(12)
    tuned = fine_tune(
        language_model(), config, preferences=data[:8], held_out=data[8:], folder=folder / "run"
    )
    tuned.save(folder / "adapter")


def comparison(folder: Path) -> None:
    data = pairs(24)
    compare(
        language_model(),
        data[:16],
        data[16:],
        ("linear", "simpo"),
        folder=folder / "comparison",
        fine_tuning={"steps": 2, "micro_batch": 2, "accumulation": 1, "lora_r": 2},
    )


def saving(folder: Path) -> None:
    one, two = (cvxnn.load(WORK / f"{name}.safetensors") for name in ("one", "two"))
    for _ in range(10):
        cvxnn.save(one, folder / "head.safetensors")
        cvxnn.save(two, folder / "head.safetensors")


def command(*arguments: object) -> None:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        options = ["--model", str(WORK / "model"), "--quiet", "--device", "cpu"]
        code = main([*map(str, arguments), *options])
    if code != 0:
        raise RuntimeError(f"exit code {code}: {errors.getvalue()}")


def generation(folder: Path) -> None:
    arguments = ["--prompts", WORK / "prompts.txt", "--output", folder / "replies.jsonl"]
    command("generate", WORK / "one.safetensors", *arguments, "--max-new-tokens", 4, "--segment", 2)


def scoring(folder: Path) -> None:
    file = WORK / "features" / "pairs.jsonl.gz"
    command("score", WORK / "one.safetensors", file, "--output", folder / "rewards.csv")


def judging(folder: Path) -> None:
    def judge(prompt: str, first: str, second: str) -> float:
        return len(first) / (len(first) + len(second))

    data = pairs(24)
    texts = ([getattr(pair, name) for pair in data] for name in ("prompt", "chosen", "rejected"))
    result = compare_with_judge(judge, *texts, both_orders=True, log=folder / "log.jsonl")
    np.save(folder / "result.npy", result.preferences)


JOBS: dict[str, Callable[[Path], None]] = {
    job.__name__: job
    for job in (
        extraction,
        extraction_with_cache,
        fine_tuning,
        comparison,
        saving,
        generation,
        scoring,
        judging,
    )
}


@contextlib.contextmanager
def counted(folder: Path, last: int | None) -> Iterator[Callable[[], int]]:
    """Count operations on files of a folder; kill this process before the given one."""
    n, active = 0, True

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n
        if not active or event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        if str(arguments[0]).startswith(str(folder)):
            n += 1
            if n == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    yield lambda: n
    active = False


def run(job: str, folder: Path, end: dict[str, float] | None, answer: int) -> None:
    """Run a job in this process, which ends with it."""
    code, n, error = 1, int, None
    try:
        hinder(end or {})
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore", message="waiting for another process")
        with counted(folder, int((end or {}).get("operation", 0)) or None) as n:
            (prepare if job == "prepare" else JOBS[job])(folder)
        code = 0
    except BaseException as reason:
        error = f"{type(reason).__name__}: {reason}"
        if not end:
            error += "".join(traceback.format_exception(reason))
    finally:
        os.write(answer, json.dumps([n(), error and error[-4000:]]).encode())
        os._exit(code)


def hinder(end: dict[str, float]) -> None:
    """Take away what this process may do."""
    if "bytes" in end:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(end["bytes"]), most))
    if "rights" in end and os.geteuid() == 0:
        # root may write anywhere because of its capabilities; without them, it is like anybody.
        version, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(version, none) == 0


def serve() -> None:
    """Run the jobs that standard input names."""
    print("ready", flush=True)
    for line in sys.stdin:
        job, folder, ends = json.loads(line)
        children = []
        began = time.monotonic()
        for end in ends:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                for stream in (1, 2):  # else they would count among the files that cannot grow
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
                run(job, Path(folder), end, writer)
            os.close(writer)
            children.append((child, reader))
        for (child, _), end in zip(children, ends, strict=True):
            if end and "seconds" in end:
                time.sleep(max(0.0, began + end["seconds"] - time.monotonic()))
                os.kill(child, signal.SIGKILL)
        found = []
        for child, reader in children:
            _, status = os.waitpid(child, 0)
            with os.fdopen(reader, "rb") as file:
                n, error = json.loads(file.read() or b"[0, null]")
            found.append([os.waitstatus_to_exitcode(status), n, error])
        print(json.dumps([found, time.monotonic() - began]), flush=True)
    os._exit(0)  # PyTorch takes seconds to end


if __name__ == "__main__":
    serve()
