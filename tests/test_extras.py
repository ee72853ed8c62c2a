"""Optional dependencies: checked at a door or where they are used, with the remedy if missing."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cvxnn
from cvxnn._extras import check_packages, require

ROOT = Path(__file__).parents[1]


def test_returns_the_module_itself():
    assert require("json", extra="test") is sys.modules["json"]
    assert require("xml.etree.ElementTree", extra="test") is sys.modules["xml.etree.ElementTree"]


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_missing_module_names_package_and_extra(module):
    with pytest.raises(
        ImportError,
        match=r"""'no_such_package', which could not be imported.*pip install "cvxnn\[llm\]"$""",
    ) as caught:
        require(module, extra="llm")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_blocked_module_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"'matplotlib'.*cvxnn\[plot\]"):
        require("matplotlib", extra="plot")


def test_broken_package_passes_its_own_words_on(tmp_path, monkeypatch):
    (tmp_path / "broken_for_test.py").write_text("raise ImportError('libfoo.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"libfoo\.so is missing.*cvxnn\[llm\]"):
        require("broken_for_test", extra="llm")


def test_other_errors_of_a_package_are_its_own(tmp_path, monkeypatch):
    (tmp_path / "failing_for_test.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        require("failing_for_test", extra="llm")


def test_packages_that_are_there_are_not_imported():
    check_packages("json", "cvxnn", extra="test")
    code = (
        "import sys; from cvxnn._extras import check_packages\n"
        "check_packages('sqlite3', 'wave', extra='test')\n"
        "assert not {'sqlite3', 'wave'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("blocked", [True, False])
def test_door_names_the_package_and_the_extra(monkeypatch, blocked):
    if blocked:
        monkeypatch.setitem(sys.modules, "no_such_package", None)
    message = r"""'no_such_package', which could not be imported.*pip install "cvxnn\[llm\]"$"""
    with pytest.raises(ImportError, match=message) as caught:
        check_packages("json", "no_such_package", extra="llm")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


HIDDEN = """\
import sys


class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)


sys.meta_path.insert(0, Hidden)
try:
    import {door}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("door", "package"),
    [
        ("cvxnn.llm", "torch"),
        ("cvxnn.llm.memory", "torch"),
        ("cvxnn.llm.fine_tuning.training_loop", "peft"),
    ],
)
def test_doors_of_packages(door, package):
    code = HIDDEN.format(door=door, package=package)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"needs the package {package!r}" in done.stdout
    assert 'pip install "cvxnn[llm]"' in done.stdout


CHECKS = ("require", "check_packages")


def test_optional_packages_are_not_required_inside_llm():
    # The door has checked them, so modules import them at their top. What reads GGUF files is
    # imported by transformers, and only then, and accelerate for models that it divides; vLLM and
    # lm-eval are extras of their own.
    calls = {
        ast.unparse(node)
        for path in (Path(cvxnn.__file__).parent / "llm").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require"
    }
    assert calls == {
        "require('gguf', extra='llm')",
        "require('accelerate', extra='llm')",
        "require('accelerate.utils', extra='llm')",
        "require('lm_eval.api.model', extra='eval')",
        "require('vllm', extra='vllm')",
        "require('vllm.config', extra='vllm')",
        "require('vllm.plugins.io_processors.interface', extra='vllm')",
    }


def extras_named_in_the_package():
    for path in sorted(Path(cvxnn.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in CHECKS:
                (extra,) = (k.value for k in node.keywords if k.arg == "extra")
                yield path.name, ast.literal_eval(extra)


def test_every_extra_that_is_named_exists():
    # What pip reads; the metadata of an editable installation may be older.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = set(project["optional-dependencies"])
    named = list(extras_named_in_the_package())
    assert {extra for _, extra in named} >= {"llm", "plot", "test"}
    assert [(name, extra) for name, extra in named if extra not in known] == []
