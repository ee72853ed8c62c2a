"""What all commands have in common: help, exit codes, streams, the file of settings."""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import shlex
import subprocess
import sys
import warnings

import pytest

from cvxnn import __version__
from cvxnn.cli import option_groups
from cvxnn.cli.console import Console
from cvxnn.cli.main import COMMANDS, build, main
from cvxnn.cli.option_building import option_from
from cvxnn.comparison import METHODS
from cvxnn.preference import OBJECTIVES


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_parses(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    for example in text.partition("example:\n")[2].strip().splitlines():
        assert example.strip().startswith(f"cvxnn {command} ")
        options = build()[0].parse_args(shlex.split(example)[1:])
        assert options.command == command


def actions(command):
    return [action for action in build([command])[1][command]._actions if action.option_strings]


def plain(value):
    return tuple(value) if isinstance(value, list) else value


def test_options_have_the_defaults_of_the_library(monkeypatch):
    """Every default is read from a signature, or belongs to the command line alone."""
    made = {}

    def record(function, parameter):
        option = option_from(function, parameter)
        made[function, parameter] = option["default"]
        return option

    for name, module in list(sys.modules.items()):
        if name.startswith("cvxnn.cli.") and hasattr(module, "option_from"):
            monkeypatch.setattr(module, "option_from", record)
    build()
    assert len(made) > 50
    for (function, parameter), default in made.items():
        signature = inspect.signature(pkgutil.resolve_name(function))
        expected = signature.parameters[parameter].default
        assert plain(default) == plain(expected), (function, parameter)
    monkeypatch.undo()
    own = {"config", "output", "head", "plain", "engine", "overwrite", "json", "quiet", "debug"}
    own |= {"help"}
    known = [plain(default) for default in made.values()]
    for command in COMMANDS:
        for action in actions(command):
            assert plain(action.default) in known or action.dest in own, (command, action.dest)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_states_each_default(command, capsys):
    assert main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for action in actions(command):
        value = action.default
        assert action.help, (action.dest, "has no text")
        if action.dest != "help" and value is not None and value is not False and value != []:
            shown = ",".join(value) if isinstance(value, tuple) else value
            stated = " ".join(f"{action.help % vars(action)} (default: {shown})".split())
            assert stated in text.replace(", ", ",") or stated in text, action.dest


def test_hyper_parameters_of_objectives_are_those_of_the_library():
    for method, group in option_groups.OBJECTIVE_GROUPS.items():
        names = [f"--{method.replace('_', '-')}-{name}" for name in group.options]
        options = build(["compare"])[0].parse_args(["compare"])
        assert group.values(options) == dict(OBJECTIVES[method].parameters)
        assert set(names) <= {a.option_strings[0] for a in actions("compare")}


def test_a_value_of_zero_is_not_hidden_in_the_help(capsys):
    assert main(["generate", "--help"]) == 0
    assert "Seed of all random numbers (default: 0)" in " ".join(capsys.readouterr().out.split())


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cvxnn {__version__}\n"


def test_methods_of_compare_are_those_of_the_library():
    arguments = ["compare", "--methods", ",".join(METHODS)]
    assert build()[0].parse_args(arguments).methods == METHODS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (
            ["fti"],
            "evaluate, study, report, serve, push; did you mean 'fit'? (see cvxnn --help)",
        ),
        (["fit", "x", "--strenght", "1"], "--strenght 1; did you mean '--strength'? (see cvxnn"),
        (["fit", "x", "--zzz"], "unrecognized arguments: --zzz (see cvxnn fit --help)"),
        (["fit"], "missing: FEATURES"),
        (["fit", "x", "--alhpa", "1"], "--alhpa"),
        (["fit", "x", "--strength", "much"], "--strength"),
        (["fit", "x", "--n-patterns", "0"], "expected at least 1"),
        (["extract", "x", "--pooling", "max"], "invalid choice: 'max'"),
        (["extract", "x", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["extract", "x", "--fields", "prompt"], "'prompt' is not of the form NAME=FIELD"),
        (["extract", "x", "--fields", "chosn=winner"], "did you mean 'chosen'?"),
        (["extract", "x", "--format", "csv"], "invalid choice: 'csv'"),
        (["extract", "x", "--max-tokens", "9"], "did you mean '--batch-tokens' or '--max-length'?"),
        (["compare", "x", "--methods", "coala,dop"], "did you mean 'dpo'?"),
        (["compare", "x", "--methods", ","], "expected one or more of"),
    ],
)
def test_usage_errors(arguments, said, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.strip().split("\n")
    assert line.startswith("error: ")
    assert said in line


def test_errors_are_one_line_and_with_debug_a_traceback(tmp_path, capsys):
    arguments = ["fit", str(tmp_path / "none")]
    assert main(arguments) == 1
    quiet = capsys.readouterr()
    assert quiet.err == (
        f"error: no such folder of features: {tmp_path / 'none'}; cvxnn extract makes one\n"
    )
    assert main([*arguments, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_errors_are_json_too(tmp_path, run):
    found = run("report", tmp_path / "none.json", code=1)
    assert found["exit_code"] == 1
    assert "no such file" in found["error"]


def test_interruption(monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS["report"], "run", stop)
    assert main(["report", "x"]) == 130
    said = "nothing was kept; the same command begins again"
    assert capsys.readouterr().err == f"interrupted: {said}\n"


def test_a_bug_is_distinguished_from_bad_data(monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(COMMANDS["report"], "run", fail)
    assert main(["report", "x"]) == 1
    assert (
        capsys.readouterr().err
        == "error: ZeroDivisionError: division by zero (--debug shows where)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "head", "--prompt", "a", "--prompt", "b\udcff"], "prompt 'b\\udcff'"),
        (["generate", "head", "--stop", "\ud83d"], "stop '\\ud83d'"),
        (["score", "head", "caf\udce9.jsonl"], "data 'caf\\udce9.jsonl'"),
    ],
)
def test_arguments_that_are_not_text(arguments, message, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {message} is not valid Unicode: character ")


def test_json_keeps_what_others_print_off_stdout(monkeypatch, capsys):
    def chat(options: object, console: Console) -> dict[str, float]:
        print("a library chats")
        console.show("a line for people")
        console.progress("a step")
        return {"value": float("nan"), "text": "é"}

    monkeypatch.setattr(COMMANDS["report"], "run", chat)
    assert main(["report", "x", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"value": None, "text": "é"}
    assert "a library chats" in captured.err
    assert "a line for people" not in captured.err
    assert main(["report", "x", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "a library chats\na line for people\n"
    assert captured.err == ""


def test_warnings_for_users_are_lines(monkeypatch, capsys):
    def warn(*_: object) -> dict[str, str]:
        for _ in range(3):  # shown once
            warnings.warn("two\nlines", UserWarning, stacklevel=1)
        warnings.warn("for programmers", DeprecationWarning, stacklevel=1)
        return {}

    monkeypatch.setattr(COMMANDS["report"], "run", warn)
    assert main(["report", "x"]) == 0
    assert capsys.readouterr().err == "warning: two lines\n"


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("extract", "Increase max_length (now 64) if", "Increase --max-length (now 64) if"),
        ("extract", "beyond max_length=64 tokens", "beyond --max-length 64 tokens"),
        ("score", "Increase max_length (now 64)", "Increase --max-length of extract (now 64)"),
        ("score", "load_model(..., dtype='bfloat16') gives", "--dtype bfloat16 gives"),
        ("score", "load_model(..., bits=4) gives", "load_model(..., bits=4) gives"),
        ("fit", "(strength='auto'): decrease strength", "(--strength auto): decrease strength"),
        (
            "fit",
            "more patterns (n_patterns), ridge=1e-8.",
            "more patterns (--n-patterns), --ridge 1e-8.",
        ),
        ("fit", "name them (groups=), or set C=10", "name them (groups=), or set C=10"),
        ("fit", "folder/max_iter/n_patterns.json", "folder/max_iter/n_patterns.json"),
        ("fit", "parameters.n_patterns: 8", "parameters.n_patterns: 8"),
        (
            "fit",
            "settings (parameters.ridge: 8 in the file, null requested; head: 1 in the file, 2).",
            "settings (--ridge: 8 in the file, null requested; --head: 1 in the file, 2).",
        ),
        ("fit", "settings (pairs: 8 in the file, 9)", "settings (pairs: 8 in the file, 9)"),
        (
            "generate",
            "cache_dir=FOLDER, or top_p=0.9, top_k",
            "--model-cache FOLDER, or --top-p 0.9, --top-k",
        ),
    ],
)
def test_messages_of_the_library_name_flags(monkeypatch, capsys, command, text, said):
    def fail(*_: object) -> dict[str, str]:
        warnings.warn(text, UserWarning, stacklevel=1)
        raise ValueError(text)

    monkeypatch.setattr(COMMANDS[command], "run", fail)
    assert main([command, "x", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"warning: {said}\nerror: {said}\n"
    assert json.loads(captured.out)["error"] == said


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def parsed(monkeypatch, command, *arguments):
    """Options that a command would get."""
    seen = []
    monkeypatch.setattr(COMMANDS[command], "run", lambda o, _: seen.append(o) or {})
    assert main([command, *arguments]) == 0
    return seen[0]


def test_settings_of_a_file_are_the_flags(tmp_path, monkeypatch):
    file = write(
        tmp_path / "run.toml",
        """
        [compare]
        data = "pairs.jsonl"
        methods = ["coala", "dpo"]
        layer = -2
        learning_rate = 1e-4
        dpo-beta = 0.05
        gradient-checkpointing = true
        [generate]
        stop = ["a", "b"]
        """,
    )
    options = parsed(monkeypatch, "compare", "--config", file)
    assert options.data == "pairs.jsonl"
    assert options.methods == ("coala", "dpo")
    assert (options.layer, options.learning_rate, options.dpo_beta) == (-2, 1e-4, 0.05)
    assert options.gradient_checkpointing is True
    assert options.epochs == 1
    assert parsed(monkeypatch, "generate", "h", "--config", file).stop == ["a", "b"]


def test_flags_win_over_the_file(tmp_path, monkeypatch):
    file = write(
        tmp_path / "run.toml",
        '[compare]\ndata = "a"\nlayer = 3\ngradient-checkpointing = true\n[generate]\nstop = ["a"]',
    )
    options = parsed(
        monkeypatch, "compare", "b", "--layer=5", "--no-gradient-checkpointing", f"--config={file}"
    )
    assert (options.data, options.layer) == ("b", 5)
    assert options.gradient_checkpointing is False
    options = parsed(monkeypatch, "generate", "h", "--stop", "z", "--config", file)
    assert options.stop == ["z"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[fit]\nstrenght = 1",
            "[fit] strenght: there is no such option; did you mean 'strength'?",
        ),
        ("[fti]\nstrength = 1", "'fti' is not a command; did you mean 'fit'?"),
        ("strength = 1", "'strength' is not a command"),
        ("fit = 1", "'fit' is a value; expected a table [fit]"),
        ("[fit]\nstrength = 'much'", "[fit] argument --strength"),
        ("[fit]\nstrength = true", "expected a string or a number, got True"),
        ("[fit]\nquiet = 'yes'", "expected true or false"),
        ("[fit]\nhead = 'cubic'", "invalid choice: 'cubic'"),
        ("[fit]\nconfig = 'other.toml'", "there is no such option"),
        ("[fit\n", "not valid TOML"),
    ],
)
def test_bad_files_of_settings(tmp_path, capsys, text, said):
    file = write(tmp_path / "run.toml", text)
    assert main(["fit", "features", "--config", file]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {file}: ")
    assert said in line


def test_a_missing_file_of_settings(capsys):
    assert main(["fit", "--config", "none.toml"]) == 1
    assert "no such file of settings: none.toml" in capsys.readouterr().err


def test_exit_codes_and_speed_of_the_program(tmp_path, environment):
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cvxnn", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
        )

    assert call("fit").returncode == 2
    failed = call("report", str(tmp_path / "none.json"), "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["exit_code"] == 1
    before = os.times()
    assert call("--help").returncode == 0
    after = os.times()  # of the processor, which other programs do not slow down
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 1
    heavy = "numpy", "jax", "torch", "sklearn", "transformers"
    code = (
        "import sys\nfrom cvxnn.cli.main import main\nassert main(['fit', '--help']) == 0\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.stderr == "[]\n"
