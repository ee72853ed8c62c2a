"""
The most informative labels
===========================

A few rows have labels, many have none. Which should be labelled next? The Hessian of the convex
program says how uncertain each prediction is, and by how much each label would lower that. The
chosen rows lower the mean variance of all predictions most, or the determinant; neither asks twice
for what is known.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from cvxnn import ConvexReLUClassifier

# %%
# Thirty labelled rows of one corner, and a pool without labels.

X, y = make_moons(800, noise=0.15, random_state=0)
labelled = np.flatnonzero(X[:, 0] < 0.6)[:30]
pool = np.setdiff1d(np.arange(len(X)), labelled)
settings = {"n_patterns": 64, "strength": 0.001, "random_state": 0}
model = ConvexReLUClassifier(**settings).fit(X[labelled], y[labelled])
known = X[labelled], y[labelled]
choices = {
    "variance": model.next_labels(*known, X[pool], n=8).order,
    "determinant": model.next_labels(*known, X[pool], n=8, criterion="determinant").order,
    "random": np.random.default_rng(0).choice(len(pool), 8, replace=False),
}

# %%
# Eight more labels, chosen or drawn at random, and what they are worth.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
for ax, (name, more) in zip(axes, choices.items(), strict=True):
    rows = np.r_[labelled, pool[more]]
    again = ConvexReLUClassifier(**settings).fit(X[rows], y[rows])
    ax.scatter(*X[pool].T, c=y[pool], cmap="coolwarm", s=6, alpha=0.35)
    ax.scatter(*X[labelled].T, color="black", s=30, marker="s", label="had labels")
    ax.scatter(*X[pool[more]].T, facecolor="none", edgecolor="black", s=70, label="new labels")
    ax.set_title(f"{name}: {again.score(X, y):.0%} right with 38 labels")
axes[0].legend(frameon=False, fontsize=8, loc="lower left")
plt.show()
