"""What is out of range is refused before any work, as the library would refuse it later."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvxnn import COALAPreferenceHead
from cvxnn.cli.main import COMMANDS, build, main
from cvxnn.cli.option_building import OptionGroup
from cvxnn.cli.option_groups import FINE_TUNING, GUIDANCE, HEAD, OBJECTIVE_GROUPS
from cvxnn.cli.option_types import real, whole
from cvxnn.comparison.results import Comparison
from cvxnn.llm import FineTuningConfig, Guidance

NUMBERS = ["-1", "-0.5", "0", "1e-9", "0.5", "1", "1.5", "2", "100", "nan", "inf", "-inf"]


def check_head(**values: Any) -> None:
    COALAPreferenceHead(**values)._check_parameters()


def number_options(group: OptionGroup) -> dict[str, Any]:
    """Options that take a number, by the parameter that they set."""
    parser = argparse.ArgumentParser()
    group.add_to(parser)
    return {a.dest: a for a in parser._actions if callable(a.type) and not a.choices}


LIBRARY = [
    (name, check, action)
    for check, group in ((check_head, HEAD), (Guidance, GUIDANCE), (FineTuningConfig, FINE_TUNING))
    for name, action in number_options(group).items()
]


@pytest.mark.parametrize(
    ("name", "check", "action"), LIBRARY, ids=[f"{c.__name__}-{n}" for n, c, _ in LIBRARY]
)
def test_ranges_are_those_of_the_library(name: str, check: Callable[..., Any], action: Any) -> None:
    for text in NUMBERS:
        try:
            value = action.type(text)
        except (ValueError, argparse.ArgumentTypeError):
            number = int(text) if text.lstrip("-").isdigit() else float(text)
            with pytest.raises((ValueError, OverflowError)):
                check(**{name: number})
        else:
            check(**{name: value})


@pytest.mark.parametrize("method", OBJECTIVE_GROUPS)
def test_ranges_of_objectives_are_those_of_the_library(method: str) -> None:
    for action in number_options(OBJECTIVE_GROUPS[method]).values():
        name = action.option_strings[0].rpartition("-")[2]
        for text in NUMBERS:
            try:
                action.type(text)
            except argparse.ArgumentTypeError:
                with pytest.raises(ValueError, match=name):
                    FineTuningConfig(objective=method, **{name: float(text)})
            else:
                FineTuningConfig(objective=method, **{name: float(text)})


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_takes_what_is_no_number(command: str) -> None:
    _, parsers = build([command])
    for action in parsers[command]._actions:
        if action.option_strings and callable(action.type) and action.metavar in ("N", "X", "GIB"):
            for text in ("nan", "inf", "-inf", "many"):
                with pytest.raises((ValueError, argparse.ArgumentTypeError)):
                    action.type(text)


def test_messages_name_the_range() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"2 .* above 0 and of at most 1$"):
        real(above=0, most=1)("2")
    with pytest.raises(argparse.ArgumentTypeError, match=r"-1 .* of at least 0 and below 1$"):
        real(least=0, below=1)("-1")
    with pytest.raises(argparse.ArgumentTypeError, match="a finite number"):
        real()("nan")
    with pytest.raises(argparse.ArgumentTypeError, match=r"70000 is too large; .* at most 65535"):
        whole(0, 65535)("70000")


@pytest.mark.parametrize("command", ["extract", "compare"])
@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("3", "--layer 3: the model has 2 blocks"),
        ("-4", "--layer -4: the model has 2 blocks"),
        ("1,-2", "--layer 1,-2 names a layer twice"),
    ],
)
def test_layers_are_looked_up_before_the_model_is_loaded(
    run: Callable[..., dict[str, Any]],
    data: str,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    layer: str,
    said: str,
) -> None:
    monkeypatch.setattr("cvxnn.llm.loading.load_model", None)
    output = tmp_path / "new" / "folder"
    arguments = [data, "--model", model, "--output", output, f"--layer={layer}"]
    assert said in run(command, *arguments, code=2)["error"]
    assert not output.parent.exists()


def test_a_command_that_fails_leaves_no_empty_folders(
    data: str, model: str, features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr("cvxnn.llm.loading.load_model", fail)
    monkeypatch.setattr("cvxnn.cli.fit._fit", fail)
    output = tmp_path / "new" / "folder"
    for command in (["extract", data, "--model", model], ["compare", data, "--model", model]):
        assert main([*command, "--output", str(output)]) == 1
        assert not output.parent.exists()
    assert main(["fit", features, "--output", str(output / "head.safetensors")]) == 1
    assert not output.parent.exists()
    output.mkdir(parents=True)
    (output / "mine.txt").touch()  # what was there before stays
    assert main(["extract", data, "--model", model, "--output", str(output)]) == 1
    assert [file.name for file in output.iterdir()] == ["mine.txt"]


OUTPUTS = ("--output", "--report", "--card-only")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no such place on this system")
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (command, action.option_strings[0])
        for command in COMMANDS
        for action in build([command])[1][command]._actions
        if action.option_strings and action.option_strings[0] in OUTPUTS
    ],
)
def test_a_place_for_no_results_is_refused_first_and_in_words(
    command: str,
    option: str,
    head: str,
    data: str,
    model: str,
    features: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cvxnn.llm.loading.load_model", None)
    monkeypatch.setattr("cvxnn.comparison.report.render_report", None)
    monkeypatch.chdir(tmp_path)
    replies = {"prompt": "a", "replies": {"plain": {"text": "b"}, "guided": {"text": "c"}}}
    rows, compared = tmp_path / "replies.jsonl", tmp_path / "comparison.json"
    rows.write_text(json.dumps(replies) + "\n", encoding="utf-8")
    Comparison({}, {}, {}, {}, (), ()).write(compared)
    shown = tmp_path / "shown.jsonl"
    shown.write_text('{"prompt": "a", "response": "b"}\n', encoding="utf-8")
    words = {
        "extract": [data],
        "fit": [features],
        "score": [head, data],
        "best": [head, rows],
        "generate": [head, "--prompt", "a"],
        "make": ["dialogues"],
        "compare": [data],
        "joint": [features, shown],
        "evaluate": [rows, "--judge", head],
        "study": [rows],
        "report": [compared],
        "push": [head, "a/b"],
    }[command]
    os.mkfifo("pipe.jsonl")
    for place in ("/proc/new/out.jsonl", "/proc/out.jsonl", f"{shown}/out.jsonl", "pipe.jsonl"):
        arguments = [command, *map(str, words), option, place]
        if any(action.dest == "model" for action in build([command])[1][command]._actions):
            arguments += ["--model", model]
        assert main(arguments) == 1
        said = capsys.readouterr().err.strip().split("\n")[-1]
        assert said.startswith(f"error: cannot write {'in ' * ('write in' in said)}{place[:5]}")
        assert said.count("; ") == 1
        assert "Errno" not in said
    assert not any(file.is_dir() for file in tmp_path.iterdir())


def test_a_port_that_is_taken_is_refused_before_the_model_is_loaded(
    head: str, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvxnn.llm.loading.load_model", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", head, "--model", model, "--port", str(port)]) == 1
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err
    assert main(["serve", head, "--model", model, "--port", "99999"]) == 2
    assert "99999 is too large" in capsys.readouterr().err
