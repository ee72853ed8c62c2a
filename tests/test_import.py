"""Importing cvxnn is cheap and leaves no trace; each check runs in a fresh interpreter."""

import importlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from cvxnn import (
    COALAPreferenceHead,
    COALAPreferenceHeadCV,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
    LinearPreferenceHead,
    save,
)

USE = "import sys, cvxnn; cvxnn.ConvexReLUClassifier\n"
# Not pandas and rich: scikit-learn itself imports them where they are installed.
OPTIONAL = {"cvxpy", "datasets", "gguf", "matplotlib", "onnx", "torch", "transformers"}


def run(code: str) -> str:
    """Standard output of a script in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def traces():
    """What the use of cvxnn leaves in a process that has imported JAX."""
    # jax has no public way to ask for devices; should the private one move, tests fail.
    code = (
        "import jax, json; before = dict(jax.config.values)\n"
        "from jax._src import xla_bridge\n"
        f"{USE}"
        "settings = {k: str(v) for k, v in jax.config.values.items() if before.get(k) != v}\n"
        f"packages = sorted({OPTIONAL} & set(sys.modules))\n"
        "devices = sorted(xla_bridge._backends)\n"
        "print(json.dumps({'settings': settings, 'packages': packages, 'devices': devices}))"
    )
    return json.loads(run(code))


@pytest.mark.slow
def test_optional_packages_stay_out(traces):
    assert traces["packages"] == []


def test_no_device_is_started(traces):
    assert traces["devices"] == []


def test_jax_settings_are_left_alone(traces):
    assert traces["settings"] == {}


@pytest.mark.parametrize(
    "name",
    ["ConvexReLUClassifier", pytest.param("ConvexReLUClassifierCV", marks=pytest.mark.slow)],
)
def test_the_first_fit_of_a_seed_is_like_the_next(name):
    code = (
        f"import numpy as np, cvxnn; model = cvxnn.{name}()\n"
        "X = np.random.default_rng(0).standard_normal((30, 2)); y = X[:, 0] * X[:, 1] > 0\n"
        "def fit():\n"
        "    np.random.seed(0)\n"
        "    return model.fit(X, y).decision_function(X)\n"
        "print(np.array_equal(fit(), fit()))"
    )
    assert run(code) == "True"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_no_package_draws_when_it_is_first_used():
    # Whichever name comes first: each is tried in a fork of a process that has NumPy only.
    code = (
        "import importlib, os, sys, numpy as np, lazy_loader, scipy.sparse, sklearn.base, cvxnn\n"
        "for place in ('convex', 'joint', 'preference', 'training'):\n"
        "    package = importlib.import_module('cvxnn.' + place)\n"
        "    names = package.__all__[1 :: max(1, len(package.__all__) // 2)]\n"
        "    for name in names:\n"
        "        assert 'jax' not in sys.modules\n"
        "        child = os.fork()\n"
        "        if child == 0:\n"
        "            before = np.random.get_state()[1:3]\n"
        "            getattr(package, name)\n"
        "            import jax\n"
        "            after = np.random.get_state()[1:3]\n"
        "            same = np.array_equal(before[0], after[0]) and before[1] == after[1]\n"
        "            os._exit(not same)\n"
        "        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "        assert code == 0, (place, name)\n"
    )
    assert run(code) == ""


DEFAULTS = """
import numpy as np, sys, cvxnn
X = np.random.default_rng(0).standard_normal((60, 3))
labels = (X[:, 0] > 0) + 1 * (X[:, 1] * X[:, 2] > 0.5)
model = cvxnn.{name}()
{fit}
model.predict(X)
getattr(model, "predict_proba", model.predict)(X)
print("jax" in sys.modules)
"""


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("ConvexReLUClassifier", "model.fit(X, labels)"),
        ("ConvexReLURegressor", "model.fit(X, X[:, 0] ** 2)"),
        ("COALAPreferenceHead", "model.fit_pairs(X[:30] + 0.5, X[30:])"),
        ("LinearPreferenceHead", "model.fit_pairs(X[:30] + 0.5, X[30:])"),
    ],
)
def test_a_default_fit_does_without_jax(name, fit):
    """From arrays, with nothing set, in a new process: half a second of import less."""
    assert run(DEFAULTS.format(name=name, fit=fit)) == "False"


def test_jax_knows_classes_that_were_there_before_it():
    code = (
        "import numpy as np, sys; np.random.seed(0)\n"
        "from cvxnn.convex import HuberLoss, Ridge\n"
        "assert 'jax' not in sys.modules; before = list(sys.meta_path)\n"
        "import jax\n"
        "assert jax.tree.leaves(HuberLoss(2.0)) == [2.0]\n"
        "assert jax.tree.leaves(Ridge(tol=0.5, max_iter=7)) == [0.5, 7, 1]\n"
        "assert np.random.rand() == np.random.RandomState(0).rand()\n"
        "assert len(sys.meta_path) == len(before) - 1\n"
        "assert jax.__spec__.loader is jax.__loader__ is not None\n"
        "print(type(jax.__loader__).__name__)"
    )
    assert run(code) == "SourceFileLoader"


@pytest.mark.slow
def test_loading_and_predicting_do_without_jax(tmp_path):
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = (X[:, 0] > 0).astype(int)
    head = COALAPreferenceHead(n_patterns=4, random_state=0)
    classifier = ConvexReLUClassifier(n_patterns=4, random_state=0)
    fitted = [
        classifier.fit(X, y),
        ConvexReLURegressor(n_patterns=4, random_state=0).fit(X, y),
        ConvexReLUClassifierCV(classifier, strengths=[0.1], cv=2).fit(X, y),
        ConvexReLURegressorCV(strengths=[0.1], cv=2).fit(X, y),
        head.fit(X, y),
        COALAPreferenceHeadCV(strengths=[0.1], ridges=[0.1], n_folds=2).fit(X, y),
        LinearPreferenceHead().fit(X, y),
    ]
    for i, model in enumerate(fitted):
        save(model, tmp_path / f"{i}.safetensors")
    code = (
        "import sys, cvxnn, numpy as np\n"
        f"for i in range({len(fitted)}):\n"
        f"    model = cvxnn.load(r'{tmp_path}/' + f'{{i}}.safetensors')\n"
        "    model.predict(np.zeros((2, 3)))\n"
        "    if hasattr(model, 'predict_proba'):\n"
        "        model.predict_proba(np.zeros((2, 3)))\n"
        "    repr(model)\n"
        "print('jax' in sys.modules)"
    )
    assert run(code) == "False"


@pytest.mark.parametrize(
    ("package", "name", "said"),
    [
        ("cvxnn", "to_onnx", "'to_onnx'; it is in cvxnn.export"),
        ("cvxnn", "ConvexReLUClasifier", "did you mean cvxnn.ConvexReLUClassifier?"),
        ("cvxnn.convex", "Embedder", "it is in cvxnn.llm"),
        ("cvxnn.export", "nonsense", "cvxnn.export has no 'nonsense'"),
    ],
)
def test_a_wrong_name_gives_a_hint(package, name, said):
    with pytest.raises(AttributeError, match=re.escape(said)):
        getattr(importlib.import_module(package), name)
