"""
Can a certified optimum lose to plain training?
===============================================

Yes, if the activation patterns are bad: the certificate speaks of networks *with the given
patterns*, and the best of those may be far above what local training finds. Over the patterns
that a short local training proposes, the convex program is never worse than that training, and it
says how little is left to gain there.
"""

import matplotlib.pyplot as plt
import numpy as np

from cvxnn.convex import Cronos
from cvxnn.training import train

# %%
# A teacher with five neurons labels 200 Gaussian rows in ten dimensions.

rng = np.random.default_rng(0)
X = rng.standard_normal((200, 10)) / np.sqrt(10)
y = np.maximum(X @ rng.standard_normal((10, 5)), 0) @ np.array([1.0, -1, 1, -1, 1])
y = ((y - y.mean()) / y.std())[:, None]

# %%
# For each number of patterns: the program over random (Gaussian) patterns, and over those of a
# locally trained network of as many neurons. ``certify="program"`` goes on until the bound is
# close to the optimum of the convex program itself, cone constraints included.

alpha, counts = 1e-3, [10, 30, 90]
solver = Cronos(tol=1e-2, max_iter=1500, certify="program")
random = [train(X, y, alpha, n, patterns="gaussian", solver=solver, random_state=0) for n in counts]
local = [train(X, y, alpha, n, patterns="local", solver=solver, random_state=0) for n in counts]

for n, run in zip(counts, local, strict=True):
    print(
        f"{n} neurons: Adam {run.proposal_objective:.5f}, then convex {run.result.objective:.5f}, "
        f"certified bound {run.result.dual_bound:.5f}"
    )

# %%
# We draw how far each objective lies above the lowest bound over local patterns.

floor = min(run.result.dual_bound for run in local)
curves = {
    "lower bound over random patterns": [run.result.dual_bound for run in random],
    "local training alone (Adam)": [run.proposal_objective for run in local],
    "convex program over the local patterns": [run.result.objective for run in local],
}
fig, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
for (name, values), style in zip(curves.items(), ("C1v-", "C2s-", "C0o-"), strict=True):
    ax.plot(counts, 100 * (np.array(values) / floor - 1), style, label=name)
ax.set(
    xscale="log", yscale="log", xlabel="number of patterns", ylabel="excess of the objective (%)"
)
ax.set_xticks(counts, counts)
ax.minorticks_off()
ax.legend(loc="center right")
plt.show()

# %%
# No network with the random patterns lies below the upper curve, however it is trained.
