"""Prompts and replies in files: where a line ends, which kinds of file and encodings are read."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.cli.console import Console
from cvxnn.cli.generate import _prompts
from cvxnn.cli.model_threads import choose_threads, cores_allowed
from cvxnn.cli.prompts import read_prompts, read_replies
from cvxnn.cli.reply_file import _finished
from cvxnn.cli.report import read_examples
from cvxnn.evaluation import compare_with_judge
from cvxnn.files.locks import check_room
from cvxnn.preference.row_files import write_rows

torch = pytest.importorskip("torch")

# Characters at which Python ends lines, beside the line feed, and others.
texts = st.text(st.sampled_from("ab \u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r"), min_size=1)
whole = texts.filter(lambda text: text.strip() and not text.endswith("\r"))


@given(prompts=st.lists(whole, min_size=1), end=st.sampled_from(["\n", "\r\n"]), bom=st.booleans())
def test_lines_of_text_end_at_line_feeds_only(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], end: str, bom: bool
) -> None:
    path = tmp_path_factory.mktemp("prompts") / "p.TXT"
    content = ("\ufeff" if bom else "") + "".join(prompt + end for prompt in prompts)
    path.write_bytes(content.encode())
    assert read_prompts(str(path)) == prompts

    class Options:
        prompts = prompt = None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode()), "latin-1"))
        assert _prompts(Options()) == prompts


@given(texts=st.lists(texts.filter(str.strip), min_size=1, unique=True))
def test_files_of_replies_come_back_whole(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    """What `generate --output` writes is resumed, reported, scored and judged."""
    path = tmp_path_factory.mktemp("replies") / "r.jsonl"
    given = [{"prompt": text, "response": f"x{text}", "replies": {}} for text in texts]
    write_rows(path, given)
    assert _finished(path, texts) == given
    assert read_examples(str(path)) == given
    assert read_prompts(str(path)) == texts
    assert read_replies(str(path)) == [(row["prompt"], row["response"], row) for row in given]
    assert _finished(path, ["other", *texts]) == []
    log = path.with_name("log")
    asked = []

    def judge(prompt: str, first: str, second: str) -> float:
        asked.append(prompt)
        return 1.0

    for _ in range(2):
        compare_with_judge(judge, texts, ["a"] * len(texts), ["b"] * len(texts), log=log)
    assert asked == texts


@pytest.mark.parametrize("name", ["p.ndjson", "P.JSONL", "p.json", "p.jsonl.gz", "P.PARQUET"])
def test_kinds_of_rows(tmp_path: Path, name: str) -> None:
    if "parquet" in name.lower():
        pytest.importorskip("pyarrow")
    write_rows(tmp_path / name, [{"prompt": "a", "response": "b"}])
    assert read_prompts(str(tmp_path / name)) == ["a"]
    assert read_replies(str(tmp_path / name)) == [("a", "b", {"prompt": "a", "response": "b"})]


@pytest.mark.parametrize("name", ["p.xls", "p.txt.gz", "p.docx"])
def test_other_kinds_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("prompt\na\n")
    with pytest.raises(ValueError, match=rf"{name}: cannot tell what the file holds"):
        read_prompts(str(tmp_path / name))


def test_threads_leave_busy_cores_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(4)  # the fixture sets them back
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("cvxnn.cli.model_threads.cores_allowed", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for load, expected in ((0.3, 4), (5.6, 2), (30.0, 1)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        choose_threads(Console())
        assert torch.get_num_threads() == expected
    assert capsys.readouterr().err.count("other programs keep cores busy") == 2
    torch.set_num_threads(4)
    monkeypatch.setattr("cvxnn.cli.model_threads.cores_allowed", lambda: 3)
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.0, 0.0))
    choose_threads(Console())
    assert torch.get_num_threads() == 3
    assert "3 of 4, since this container may use no more cores" in capsys.readouterr().err
    torch.set_num_threads(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    choose_threads(Console())
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p.json"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
def test_encodings(tmp_path: Path, name: str, encoding: str) -> None:
    path = tmp_path / name
    row = json.dumps({"prompt": "caf\u00e9"}, ensure_ascii=False)
    path.write_bytes(("caf\u00e9" if name == "p.txt" else row).encode(encoding))
    if encoding == "utf-8-sig":
        assert read_prompts(str(path)) == ["caf\u00e9"]
    else:
        with pytest.raises(ValueError, match=rf"{name}:1: the byte 0x.. is not text in UTF-8"):
            read_prompts(str(path))


def test_settings_in_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cvxnn.cli.main import main

    path = tmp_path / "s.toml"
    path.write_bytes("[fit]\n# caf\u00e9\n".encode("latin-1"))
    assert main(["fit", "--config", str(path)]) == 1
    assert "s.toml:2: the byte 0xe9 is not text in UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "FILE"], "file is a file; expected a folder of features"),
        (["fit", "FOLDER"], "folder holds no features (it has no features.json)"),
        (["report", "FOLDER"], "folder holds no comparison (it has no comparison.json)"),
        (["best", "FILE", "FOLDER"], "no such file of replies"),
    ],
)
def test_files_in_place_of_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    from cvxnn.cli.main import main

    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    names = {"FILE": str(tmp_path / "file"), "FOLDER": str(tmp_path / "folder")}
    assert main([names.get(argument, argument) for argument in arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "place: the disk is full; free some space, and begin again (7 are kept)"),
        (errno.EACCES, "place: permission denied; choose another place"),
        (errno.EROFS, "place: the file system is read-only"),
    ],
)
def test_errors_of_the_system_have_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, said: str
) -> None:
    from cvxnn.cli.main import COMMANDS, main

    def fail(options: object, console: Console) -> None:
        console.kept = lambda: "7 are kept"
        raise OSError(code, "reason", "place")

    monkeypatch.setattr(COMMANDS["report"], "run", fail)
    assert main(["report", "x"]) == 1
    assert said in capsys.readouterr().err


def test_there_has_to_be_room(tmp_path: Path) -> None:
    check_room(tmp_path, 1)
    with pytest.raises(OSError, match="MiB are free; free some space"):
        check_room(tmp_path, 2**62)


@pytest.mark.parametrize("command", ["extract", "compare"])
def test_a_place_that_cannot_be_written_is_refused_first(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    command: str,
) -> None:
    from cvxnn.cli.main import main

    monkeypatch.setattr("cvxnn.llm.loading.load_model", None)
    file = tmp_path / "file"
    file.touch()
    output = str(file / "folder")
    assert main([command, "tutoring", "--output", output, "--model", model]) == 1
    assert output in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("150000 100000", 2), ("20000 100000", 1), ("max 100000", 8), ("", 8), (None, 8)],
)
def test_a_container_may_use_fewer_cores(tmp_path, monkeypatch, limit, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    file = tmp_path / "cpu.max"
    if limit is not None:
        file.write_text(limit, encoding="ascii")
    assert cores_allowed(file) == expected
