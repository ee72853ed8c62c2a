"""The way of imports: a file of cvxnn imports only from files above it in LAYERS."""

import ast
from pathlib import Path

import pytest

import cvxnn

# From the foundation to the roof. A package's name stands for its __init__.py, and so comes after
# the files that it gathers.
LAYERS = [
    "cvxnn._extras",
    "cvxnn._namespace",
    "cvxnn.patterns",
    "cvxnn.arrangement",
    "cvxnn.operators",
    "cvxnn.losses",
    "cvxnn.penalties",
    "cvxnn.problem",
    "cvxnn.network",
    "cvxnn.explanation",
    "cvxnn.pricing",
    "cvxnn.decomposition",
    "cvxnn.solvers._padding",
    "cvxnn.solvers._loop",
    "cvxnn.solvers._linear",
    "cvxnn.solvers._cones",
    "cvxnn.solvers._newton",
    "cvxnn.solvers._central_path",
    "cvxnn.solvers.cronos",
    "cvxnn.solvers.interior_point",
    "cvxnn.solvers.proximal_gradient",
    "cvxnn.solvers._kernel",
    "cvxnn.solvers.ridge",
    "cvxnn.solvers.ridge_path",
    "cvxnn.strength",
    "cvxnn.solvers.accelerated_gradient",
    "cvxnn.solvers.automatic",
    "cvxnn.solvers.working_set",
    "cvxnn.solvers",
    "cvxnn.reference",
    "cvxnn.local_search",
    "cvxnn.training",
    "cvxnn.path",
    "cvxnn.estimators._defaults",
    "cvxnn.estimators._monitor",
    "cvxnn.estimators._rows",
    "cvxnn.estimators._reports",
    "cvxnn.estimators._base",
    "cvxnn.estimators.classifier",
    "cvxnn.estimators.regressor",
    "cvxnn.estimators._folds",
    "cvxnn.estimators._cross_validation",
    "cvxnn.estimators.cv",
    "cvxnn.preference.rows",
    "cvxnn.preference.data",
    "cvxnn.datasets",
    "cvxnn.preference.objectives",
    "cvxnn.preference.metrics",
    "cvxnn.preference",
    "cvxnn.estimators.preference",
    "cvxnn.estimators.preference_cv",
    "cvxnn.estimators",
    "cvxnn.llm.models",
    "cvxnn.llm.packing",
    "cvxnn.llm.cache",
    "cvxnn.llm.embeddings",
    "cvxnn.llm.generation",
    "cvxnn.llm",
    "cvxnn.persistence",
    "cvxnn.export",
    "cvxnn.plotting._shared",
    "cvxnn.plotting.convergence",
    "cvxnn.plotting.patterns",
    "cvxnn.plotting.regions",
    "cvxnn.plotting.rewards",
    "cvxnn.plotting.strengths",
    "cvxnn.plotting",
    "cvxnn",
]

ROOT = Path(cvxnn.__file__).parent


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


def test_layers_name_each_module_once():
    assert len(LAYERS) == len(set(LAYERS))
    unplaced = sorted(MODULES.keys() - set(LAYERS))
    assert not unplaced, f"give these modules a place in LAYERS of this file: {unplaced}"
    gone = sorted(set(LAYERS) - MODULES.keys())
    assert not gone, f"LAYERS names modules that do not exist: {gone}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_come_from_above(module):
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    above = set(LAYERS[: LAYERS.index(module)]) if module in LAYERS else set()
    wrong = sorted(imports(path.read_text("utf-8"), package, set(MODULES)) - above)
    assert not wrong, f"{module} imports {wrong}, which LAYERS does not place above it"


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
