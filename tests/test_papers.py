"""The page of the papers: each claim has a verdict, a command that exists, and its evidence."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from cvxnn.cli.main import build

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "papers.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| Paper:"))
]
COMMANDS = sorted(set(re.findall(r"`(cvxnn [^`]+ [^`]+)`", TEXT)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].partition(":")[0])
def test_no_cell_is_empty(row):
    assert len(row) == 4
    assert all(row)
    assert re.match(r"\*\*(Holds|In part|Fails|Missing)\*\*", row[1])
    named = re.findall(r"`((?:asv_bench|tests)/[\w/.]+)(?:::(\w+))?`", row[3])
    assert named or row[3] == "the rows above"
    for path, test in named:
        assert (ROOT / path).exists()
        assert test is None or not test or f"def {test}(" in (ROOT / path).read_text("utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_these_options(command):
    words = [re.sub(r"^[NK]$", "1", word) for word in shlex.split(command)[1:]]
    if words[-1].startswith("--"):
        words.append("alpaca-eval" if words[-1] == "--protocol" else "folder")
    _, unknown = build([words[0]])[0].parse_known_args(words)
    assert not unknown


PAGES = sorted((ROOT / "docs").rglob("*.md"))
SCRIPTS = sorted(
    {
        " ".join(command.split())
        for page in PAGES
        for command in re.findall(r"`(python asv_bench/[^`]+)`", page.read_text("utf-8"))
    }
)


@pytest.mark.parametrize("command", SCRIPTS)
def test_scripts_have_these_options(command):
    """Subcommands are one parser here: which of them needs an option is not looked at."""
    text = (ROOT / command.split()[1]).read_text("utf-8")
    known, required, commands = {"--help"}, set(), False
    for call in ast.walk(ast.parse(text)):
        name = getattr(call.func, "attr", "") if isinstance(call, ast.Call) else ""
        commands |= name == "add_parser"
        if name == "add_argument":
            options = {a.value for a in call.args if isinstance(a, ast.Constant)}
            known |= options
            if any(k.arg == "required" and ast.literal_eval(k.value) for k in call.keywords):
                required |= options
    used = set(re.findall(r"--[a-z][\w-]*", command))
    assert used <= known
    assert commands or "..." in command or "--help" in used or required <= used
