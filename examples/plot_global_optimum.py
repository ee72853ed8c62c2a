"""
How often does local training find the global optimum?
======================================================

Data of small rank has few activation patterns, so all of them can be listed. The convex program
over all of them is the training problem of the network itself, and its certificate holds for
*every* ReLU network, of any width. With that number at hand, local training can be marked.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler

from cvxnn.convex import (
    ConvexProgram,
    GatedOperator,
    InteriorPoint,
    add_bias,
    enumerate_patterns,
    solve,
)
from cvxnn.training import propose, to_program

# %%
# Twenty-five patients, body mass index and blood pressure, and a column of ones for the biases.

X, y = load_diabetes(return_X_y=True)
X = add_bias(StandardScaler().fit_transform(X[:25, 2:4]))
y = StandardScaler().fit_transform(y[:25, None])
alpha = 0.01

# %%
# All patterns, one program, one answer.

every = enumerate_patterns(X)
program = ConvexProgram(GatedOperator(X, every.mask), y, alpha)
result = solve(program, InteriorPoint(tol=1e-8))
print(f"{len(every)} patterns, {result.n_iter} iterations, gap {result.gap:.0e}")
print(f"global optimum between {result.dual_bound:.8f} and {result.objective:.8f}")

# %%
# Five hundred runs of Adam from random starts, each with thirty neurons: an optimal network needs
# at most 26 for 25 rows.


def objective(network):
    own, weights = to_program(X, network)
    program = ConvexProgram(GatedOperator(X, own.mask), y, alpha)
    return float(program.evaluate(weights).network_objective)


options = {"n_steps": 200, "learning_rate": 0.1}
runs = [objective(propose(X, y, alpha, 30, random_state=seed, **options)) for seed in range(500)]
excess = 100 * (np.array(runs) / result.objective - 1)
print(f"best run {excess.min():.2f} %, median {np.median(excess):.1f} % above the optimum")

# %%
# No run, and no other ReLU network without an offset of its output, can lie left of the line.

fig, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
ax.hist(excess, bins=50, color="C0", label="500 runs of local training")
ax.axvline(0, color="C1", linewidth=2, label="certified global optimum")
ax.set(xlabel="excess of the objective over the global optimum (%)", ylabel="runs")
ax.legend()
plt.show()
