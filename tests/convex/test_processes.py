"""Compiled code and the life of processes: interrupted ones that end, and forked ones."""

import os
import subprocess
import sys

import pytest

# What is registered first runs last: it measures how long compiled code goes on at the very end.
INTERRUPTED = """
import atexit, signal, time
import jax.numpy as jnp, numpy as np
from cvxnn.convex import ConvexProgram, GatedOperator, ProximalGradient, sample_patterns, solve

def seconds_left():
    began = time.perf_counter()
    (jnp.zeros(3) * 2).block_until_ready()
    return time.perf_counter() - began

def interrupt(*_):
    raise KeyboardInterrupt

rng = np.random.default_rng(0)
X, y = rng.normal(size=(200, 4)), rng.normal(size=(200, 1))
operator = GatedOperator(X, sample_patterns(X, 8, random_state=0).mask)
program = ConvexProgram(operator, y, 1e-4, formulation="gated")
seconds_left()  # compiles
atexit.register(lambda: print("at exit", seconds_left()))

def run(n_steps):
    began = time.perf_counter()
    solver = ProximalGradient(tol=0.0, max_iter=10**8, check_every=n_steps)
    solve(program, solver, callback=lambda *_: True)
    return time.perf_counter() - began

run(10)
n_steps = 1000
while (seconds := run(n_steps)) < 0.2:
    n_steps *= 2
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    run(int(2 * n_steps / seconds))
except KeyboardInterrupt:
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("caught")
"""


# Fits that compile nothing, and predictions, work in a child whose parent has compiled.
FORKED = r"""
import os, warnings
import numpy as np
from cvxnn import ConvexReLURegressor
from cvxnn.convex import Cronos

warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
X = np.random.default_rng(0).normal(size=(30, 2))
y = np.abs(X[:, 0])
direct = ConvexReLURegressor(n_patterns=4, random_state=0)
inner = ConvexReLURegressor(formulation="relu", n_patterns=4, random_state=0)
compiled = ConvexReLURegressor(**inner.get_params()).set_params(solver=Cronos(tol=0.1))
BEFORE
child = os.fork()
if child == 0:
    direct.fit(X, y).predict(X)
    inner.fit(X, y).predict(X)
    AFTER
    try:
        compiled.fit(X, y)
    except RuntimeError as error:
        print(error, flush=True)
    else:
        print("fitted", flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0
"""


def run(code: str) -> str:
    """Return the standard output of a script in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_says_what_it_cannot_do_and_does_the_rest():
    code = FORKED.replace("BEFORE", "compiled.fit(X, y)").replace("AFTER", "compiled.predict(X)")
    assert "spawn" in run(code)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_forked_before_anything_was_compiled_does_everything():
    assert run(FORKED.replace("BEFORE", "direct.fit(X, y)").replace("AFTER", "pass")) == "fitted"


@pytest.mark.slow
def test_a_process_ends_after_the_computation_that_an_interrupt_left_running():
    caught, at_exit = run(INTERRUPTED).splitlines()
    assert caught == "caught"
    assert float(at_exit.removeprefix("at exit ")) < 0.2  # two seconds without the hook
