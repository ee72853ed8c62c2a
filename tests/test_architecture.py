"""Layers and names: imports go one way, and each name stands for one thing."""

import ast
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cvxnn

# From the foundation to the roof. A package imports only itself and packages above it.
PACKAGES = [
    "_extras",
    "_messages",
    "files",
    "_progress",
    "_public_names",
    "tracking",
    "numerics",
    "costs",
    "convex",
    "network",
    "_model_file",
    "serving",
    "explanation",
    "training",
    "preference",
    "datasets",
    "joint",
    "features",
    "llm",
    "evaluation",
    "estimators",
    "persistence",
    "export",
    "plotting",
    "comparison",
    "sharing",
    "cli",
    "__main__",
]

ROOT = Path(cvxnn.__file__).parent

# Each command of the program is a module with these two functions.
COMMAND_FUNCTIONS = {"add_arguments", "run"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(source: str, package: str, modules: set[str]) -> set[str]:
    """Modules of cvxnn that a source text imports, at any depth: in functions and in blocks too.

    ``from package import name`` is an import of ``package.name`` if that is a module, else of
    ``package``. The version number may be read from anywhere.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                if name != "cvxnn.__version__":
                    found.add(name if name in modules else base)
    return {name for name in found if name.partition(".")[0] == "cvxnn"}


def package_of(module: str) -> str:
    """Return the entry of PACKAGES that a module belongs to; empty for ``cvxnn`` itself."""
    return module.removeprefix("cvxnn").strip(".").partition(".")[0]


@cache
def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return imports(path.read_text("utf-8"), package, set(MODULES))


def packages_below() -> dict[str, set[str]]:
    """Find the packages that each package imports."""
    found: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for module in MODULES:
        if own := package_of(module):
            found[own] |= {package_of(name) for name in imports_of(module)} - {own, ""}
    return found


def arrows(below: dict[str, set[str]]) -> str:
    """Write all imports between packages as one text."""
    return "; ".join(f"{own}: {' '.join(sorted(below[own]))}".strip() for own in PACKAGES)


def test_packages_name_each_root_entry_once():
    assert len(PACKAGES) == len(set(PACKAGES))
    assert {package_of(module) for module in MODULES} - {""} == set(PACKAGES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_come_from_packages_above(module):
    own = package_of(module)
    above = set(PACKAGES[: PACKAGES.index(own)]) | {own} if own else {"_public_names"}
    wrong = sorted(name for name in imports_of(module) if package_of(name) not in above)
    assert not wrong, f"{module} imports {wrong}, which PACKAGES does not place above {own!r}"


def test_figure_of_the_layout_shows_these_imports():
    figure = Path(__file__).parents[1] / "docs" / "_static" / "layout.svg"
    assert arrows(packages_below()) in figure.read_text("utf-8"), "run python docs/make_layout.py"


def test_no_module_imports_itself_through_others():
    graph = {module: imports_of(module) for module in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize(
    "stub", sorted(ROOT.rglob("__init__.pyi")), ids=lambda path: path.parent.name
)
def test_no_submodule_hides_an_exported_name(stub):
    """The import of ``package.name`` would put the module in the place of an exported ``name``."""
    exported = {
        alias.asname or alias.name
        for node in ast.parse(stub.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert exported
    assert not exported & {path.stem for path in stub.parent.iterdir()}


def repeated(names):
    return {name for name, count in Counter(names).items() if count > 1}


@cache
def definitions() -> tuple[list[str], list[str]]:
    """Return the names of all classes, at any depth, and of the functions of modules."""
    classes, functions = [], []
    for path in MODULES.values():
        tree = ast.parse(path.read_text("utf-8"))
        classes += [n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
        functions += [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    return classes, functions


@pytest.mark.parametrize("module", MODULES)
def test_warnings_name_the_line_of_a_user(module):
    """Those of ``warnings.warn`` name one that is a fixed number of calls away."""
    calls = [n for n in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))) if is_warn(n)]
    assert not calls, f"{module}: call cvxnn._messages.warn"


def is_warn(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "warnings.warn"


def test_no_two_classes_share_a_name():
    classes, _ = definitions()
    assert repeated(name.lstrip("_") for name in classes) == set()


def test_no_two_modules_share_a_name():
    """A leading underscore tells no two things apart, and ``__init__`` is not a name."""
    stems = [path.stem.lstrip("_") for path in MODULES.values() if path.stem[:2] != "__"]
    assert repeated(stems) == set()


def test_no_two_public_functions_share_a_name():
    _, functions = definitions()
    assert repeated(name for name in functions if name[0] != "_") == COMMAND_FUNCTIONS


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy as np\nfrom cvxnnx import a", set()),
        ("import cvxnn.a.b", {"cvxnn.a.b"}),
        ("from cvxnn.a import b", {"cvxnn.a.b"}),
        ("from cvxnn.a import something", {"cvxnn.a"}),
        ("from . import b", {"cvxnn.a.b"}),
        ("from .b import something", {"cvxnn.a.b"}),
        ("from ..c import something", {"cvxnn.c"}),
        ("from .. import c, __version__", {"cvxnn.c"}),
        ("from cvxnn import __version__", set()),
        ("def f():\n    if True:\n        from cvxnn import c", {"cvxnn.c"}),
    ],
)
def test_imports_are_found(source, expected):
    assert imports(source, "cvxnn.a", {"cvxnn", "cvxnn.a", "cvxnn.a.b", "cvxnn.c"}) == expected


def private_imports(source: str, module: str) -> set[str]:
    """Private modules and names that belong to a package which does not hold ``module``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cvxnn"):
            for name in node.names:
                path = [*node.module.split("."), name.name]
                at = [k for k, part in enumerate(path) if part[0] == "_" and part[:2] != "__"]
                if at and module.split(".")[: at[0]] != path[: at[0]]:
                    found.add(".".join(path))
    return found


def test_no_module_imports_what_is_private_to_another_package():
    texts = {module: path.read_text("utf-8") for module, path in MODULES.items()}
    found = {module: private_imports(text, module) for module, text in texts.items()}
    assert not {module: names for module, names in found.items() if names}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from cvxnn.a._b import c", {"cvxnn.a._b.c"}),
        ("from cvxnn.a.b import _c", {"cvxnn.a.b._c"}),
        ("from cvxnn._a import b", set()),
        ("from cvxnn.d._b import c", set()),
        ("from cvxnn import __version__", set()),
    ],
)
def test_private_imports_are_found(line, expected):
    assert private_imports(f"def f():\n    {line}", "cvxnn.d.e") == expected
