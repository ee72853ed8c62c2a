"""
How does the network grow as the penalty fades?
===============================================

The neuron group lasso sets whole neurons to zero. ``cvxnn.convex.path.regularization_path`` solves
the
program for a falling sequence of strengths, from the one at which the network is a constant on,
each with its certificate.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from cvxnn.convex import ConvexProgram, GatedOperator, add_bias, regularization_path
from cvxnn.network import recover
from cvxnn.training import propose, to_program

# %%
# Diabetes in standard units, and the patterns of one local training at a weak penalty.

X, y = load_diabetes(return_X_y=True)
X = StandardScaler().fit_transform(X) / np.sqrt(X.shape[1])
y = StandardScaler().fit_transform(y[:, None])
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
inputs = add_bias(X_train)
local = propose(inputs, y_train, 1e-3, 24, random_state=0)
found, _ = to_program(inputs, local)

# %%
# The program's own ``alpha`` is not used; the grid starts at its ``alpha_max``.

program = ConvexProgram(GatedOperator(inputs, found.mask), y_train, alpha=1.0)
alphas, results = regularization_path(program, n_alphas=16, eps=3e-3, tol=1e-4)

networks = [recover(result.weights, tol=1e-6) for result in results]
errors = [np.mean((network.forward(X_test) - y_test) ** 2) for network in networks]
print(f"largest gap {max(result.gap for result in results):.0e}")
print(f"lowest test error {min(errors):.3f} at alpha {alphas[np.argmin(errors)]:.4f}")

# %%
# The test error has its minimum where few neurons are active: what comes in below fits noise.

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.semilogx(alphas, [result.objective for result in results], "C0o-", label="objective")
bounds = [result.dual_bound for result in results]
left.semilogx(alphas, bounds, "C1--", label="certified lower bound")
left.semilogx(alphas, errors, "C3s-", markersize=4, label="mean squared error, held out")
left.set(xlabel="alpha", title="objective, bound, held-out error")
left.legend()
right.semilogx(alphas, [network.n_neurons for network in networks], "C2o-")
right.set(xlabel="alpha", title=f"active neurons, of {2 * len(found)} possible", ylim=(0, None))
for ax in (left, right):
    ax.invert_xaxis()
plt.show()
