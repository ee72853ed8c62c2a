"""
How far is a gated network from the ReLU network of its patterns?
=================================================================

The gated formulation drops the cone constraints, so its optimum is a lower bound for the ReLU
formulation with the same patterns. Writing each of its neurons as the difference of two that
satisfy the cones gives a ReLU network that predicts the same, and with it an upper bound.
"""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from cvxnn.convex import (
    ConvexProgram,
    GatedOperator,
    InteriorPoint,
    add_bias,
    cone_decomposition,
    sample_patterns,
    solve,
)

# %%
# Forty patients of the breast cancer data, about as many as it has features.

X, y = load_breast_cancer(return_X_y=True)
rows = np.random.default_rng(0).choice(len(X), 40, replace=False)
X = add_bias(StandardScaler().fit_transform(X[rows]) / np.sqrt(X.shape[1]))
y = np.where(y[rows, None] == 1, 1.0, -1.0)
alpha = 0.02

# %%
# The same random patterns for both forms, and more and more of them.
# ``certify="program"`` asks for the solution of the convex program itself, in the cones.

counts = [5, 10, 20, 40, 80]
every = sample_patterns(X, counts[-1], random_state=0)
solver = InteriorPoint(tol=1e-5, certify="program")
gated, relu, upper = [], [], []
for count in counts:
    some = every.take(np.arange(count))
    program = ConvexProgram(GatedOperator(X, some.mask), y, alpha, formulation="gated")
    result = solve(program, solver)
    split = cone_decomposition(program, result.weights, some.gates, dual=result.dual)
    gated.append(split.lower)
    upper.append(split.upper)
    relu.append(solve(replace(program, formulation="relu"), solver).objective)
    print(f"{count:3d} patterns: {split.lower:.4f} <= {relu[-1]:.4f} <= {split.upper:.4f}")

# %%
# All three hold for every number of patterns. With more rows the cones get thinner: the ReLU
# formulation then falls behind the gated one, and a neuron is split into a longer pair.

fig, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
ax.plot(counts, upper, "C3v-", label="upper bound: gated optimum, decomposed")
ax.plot(counts, relu, "C0o-", label="optimum of the ReLU formulation")
ax.plot(counts, gated, "C2^-", label="lower bound: optimum of the gated formulation")
ax.set(xscale="log", yscale="log", xlabel="random patterns", ylabel="objective")
ax.set_xticks(counts, counts)
ax.set_yticks([0.1, 0.2, 0.5], ["0.1", "0.2", "0.5"])
ax.minorticks_off()
ax.legend()
plt.show()
