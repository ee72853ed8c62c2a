"""Importing cvxnn is cheap and leaves no trace; each check runs in a fresh interpreter."""

import subprocess
import sys

USE = "import sys, cvxnn; cvxnn.ConvexReLUClassifier\n"
# Not pandas and rich: scikit-learn itself imports them where they are installed.
OPTIONAL = {"cvxpy", "datasets", "gguf", "matplotlib", "onnx", "torch", "transformers"}


def run(code: str) -> str:
    """Standard output of a script in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_optional_packages_stay_out():
    assert run(f"{USE}print(sorted({OPTIONAL} & set(sys.modules)))") == "[]"


def test_no_device_is_started():
    # jax has no public way to ask; should the private one move, this test says so by failing.
    code = (
        f"{USE}"
        "if 'jax' in sys.modules:\n"
        "    from jax._src import xla_bridge\n"
        "    assert not xla_bridge._backends, xla_bridge._backends\n"
    )
    assert run(code) == ""


def test_jax_settings_are_left_alone():
    code = (
        "import jax; before = dict(jax.config.values)\n"
        f"{USE}"
        "print({k: v for k, v in jax.config.values.items() if before.get(k) != v})"
    )
    assert run(code) == "{}"
