"""The way of imports: a file of cvxnn imports only from files above it in LAYERS."""

import ast
from pathlib import Path

import pytest

import cvxnn

# From the foundation to the roof. A package's name stands for its __init__.py, and so comes after
# the files that it gathers.
LAYERS = [
    "cvxnn._files",
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
    "cvxnn.solvers.newton",
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
    "cvxnn.preference.population",
    "cvxnn.preference.formats._format",
    "cvxnn.preference.formats._alpaca_eval",
    "cvxnn.preference.formats._hh_rlhf",
    "cvxnn.preference.formats._trl",
    "cvxnn.preference.formats._ultrafeedback",
    "cvxnn.preference.formats",
    "cvxnn.datasets",
    "cvxnn.preference.objectives",
    "cvxnn.preference.metrics",
    "cvxnn.preference.evaluation._rates",
    "cvxnn.preference.evaluation._length_control",
    "cvxnn.preference.evaluation",
    "cvxnn.preference.judges._log",
    "cvxnn.preference.judges._text",
    "cvxnn.preference.judges._comparison",
    "cvxnn.preference.judges._reward_model",
    "cvxnn.preference.judges",
    "cvxnn.preference.leaderboards._checks",
    "cvxnn.preference.leaderboards._alpaca_eval",
    "cvxnn.preference.leaderboards._mt_bench",
    "cvxnn.preference.leaderboards._reward_bench",
    "cvxnn.preference.leaderboards",
    "cvxnn.preference.human_study._answers",
    "cvxnn.preference.human_study._key",
    "cvxnn.preference.human_study._scores",
    "cvxnn.preference.human_study._sheet",
    "cvxnn.preference.human_study",
    "cvxnn.preference.candidates",
    "cvxnn.preference.policy",
    "cvxnn.preference.pareto",
    "cvxnn.preference.descent",
    "cvxnn.preference.joint",
    "cvxnn.preference.coala",
    "cvxnn.preference",
    "cvxnn.llm.costs.memory",
    "cvxnn.llm.costs.meter",
    "cvxnn.llm.costs",
    "cvxnn.llm.packing",
    "cvxnn.llm.cache",
    "cvxnn.llm.guidance.reply_text",
    "cvxnn.llm.guidance.settings",
    "cvxnn.llm.fine_tuning.checkpoint",
    "cvxnn.llm.fine_tuning.config",
    "cvxnn.llm.fine_tuning.strategies",
    "cvxnn.llm.fingerprint",
    "cvxnn.llm.models",
    "cvxnn.llm.fine_tuning.adapters",
    "cvxnn.llm.hidden_states",
    "cvxnn.llm.pooling",
    "cvxnn.llm.guidance.branches",
    "cvxnn.llm.guidance.candidates",
    "cvxnn.llm.description",
    "cvxnn.llm.features",
    "cvxnn.llm.batches",
    "cvxnn.llm.token_embeddings",
    "cvxnn.llm.embeddings",
    "cvxnn.llm.generation",
    "cvxnn.llm.guidance.scoring",
    "cvxnn.llm.guidance.logits_processor",
    "cvxnn.llm.guidance.writing",
    "cvxnn.llm.guidance",
    "cvxnn.llm.log_probabilities",
    "cvxnn.llm.fine_tuning.data",
    "cvxnn.llm.fine_tuning.loop",
    "cvxnn.llm.fine_tuning",
    "cvxnn.llm",
    "cvxnn.estimators._preference_head",
    "cvxnn.estimators.preference",
    "cvxnn.estimators.preference_cv",
    "cvxnn.estimators.linear_preference",
    "cvxnn.estimators.policy",
    "cvxnn.estimators",
    "cvxnn.persistence",
    "cvxnn.export",
    "cvxnn.plotting._shared",
    "cvxnn.plotting.convergence",
    "cvxnn.plotting.patterns",
    "cvxnn.plotting.regions",
    "cvxnn.plotting.rewards",
    "cvxnn.plotting.strengths",
    "cvxnn.plotting.pareto",
    "cvxnn.plotting",
    "cvxnn",
    "cvxnn.comparison.replies",
    "cvxnn.comparison.results",
    "cvxnn.comparison.fine_tuned",
    "cvxnn.report.charts",
    "cvxnn.report.page",
    "cvxnn.cli.console",
    "cvxnn.cli.options",
    "cvxnn.cli.inputs",
    "cvxnn.cli.plan",
    "cvxnn.cli.generate",
    "cvxnn.pair_features",
    "cvxnn.comparison.heads",
    "cvxnn.comparison",
    "cvxnn.report",
    "cvxnn.cli.extract",
    "cvxnn.cli.fit",
    "cvxnn.cli.compare",
    "cvxnn.cli.report",
    "cvxnn.cli.score",
    "cvxnn.cli",
    "cvxnn.cli.__main__",
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
