"""
How does the cost of an iteration grow?
=======================================

An iteration of CRONOS on large data is a handful of products of the data with the weights of all
patterns. Its time should therefore grow in proportion to the number of rows, of features and of
patterns. We stretch each of the three by a factor of ten and look.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

from cvxnn.convex import ConvexProgram, Cronos, GatedOperator, solve

# %%
# Every solve runs a fixed number of iterations with a fixed number of inner ones, twice: the first
# run compiles, the second is timed.

base = {"rows n": 4000, "features d": 48, "patterns P": 16}
solver = Cronos(
    tol=0, max_iter=10, check_every=10, balance=False, linear_solver="mean_field", cg_max_iter=3
)


def seconds_per_iteration(n, d, P):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n, d)) / np.sqrt(d)).astype(np.float32)
    mask = X @ rng.standard_normal((d, P)).astype(np.float32) >= 0
    program = ConvexProgram(GatedOperator(X, mask), X[:, :1].copy(), 1e-3)
    solve(program, solver)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        solve(program, solver)
        times.append(time.perf_counter() - began)
    return np.median(times) / 10


# %%
# On logarithmic axes a straight line of slope one is growth in proportion; below it, small
# problems have not yet filled the machine.

fig, ax = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
factors = np.array([1, 3, 10])
for name in base:
    seconds = []
    for factor in factors:
        sizes = dict(base)
        sizes[name] *= int(factor)
        seconds.append(seconds_per_iteration(*sizes.values()))
    ax.loglog(factors, 1e3 * np.array(seconds), "o-", label=name)
ax.loglog(factors, 1e3 * seconds[0] * factors, "k--", lw=1, label="slope one")
ax.set(
    xlabel="factor on n = 4,000, d = 48 or P = 16",
    ylabel="milliseconds an iteration",
    title="Linear in rows, features and patterns",
)
ax.set_xticks(factors, [str(factor) for factor in factors])
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()
