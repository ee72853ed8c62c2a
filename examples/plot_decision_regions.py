"""
Which activation patterns draw the better boundary?
===================================================

The convex program finds the best ReLU network *over given activation patterns*. With few of them it
matters where they come from: from random gates, or from the neurons of a short local training
(``patterns="local"``, the default of the ReLU formulation). Each network below is optimal over its
own patterns, within ``tol``.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.model_selection import train_test_split

from cvxnn import ConvexReLUClassifier

# %%
# Three noisy rings; the middle one is a class of its own. Linear boundaries are of no use here.

rng = np.random.default_rng(0)
ring, angle = rng.integers(3, size=600), 2 * np.pi * rng.random(600)
X = (1 + ring)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]) / 2
X += 0.1 * rng.standard_normal(X.shape)
y = (ring == 1).astype(int)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

# %%
# Twelve patterns for each. A dashed line is where a neuron switches on: the hyperplane of its
# first-layer weights.


def draw_kinks(ax, network):
    left_right, bottom_top = np.array(ax.get_xlim()), ax.get_ylim()
    for (a, b), c in zip(network.hidden_weights, network.hidden_bias, strict=True):
        ax.plot(left_right, -(a * left_right + c) / b, "k--", alpha=0.4, linewidth=0.8)
    ax.set(xlim=left_right, ylim=bottom_top)


fig, axes = plt.subplots(1, 2, figsize=(9, 4.8), layout="constrained", sharey=True)
for ax, source in zip(axes, ("gaussian", "local"), strict=True):
    model = ConvexReLUClassifier(
        0.005, formulation="relu", n_patterns=12, patterns=source, random_state=0
    )
    model.fit(X_train, y_train)
    DecisionBoundaryDisplay.from_estimator(
        model,
        X_test,
        response_method="predict_proba",
        plot_method="pcolormesh",
        grid_resolution=200,
        eps=0.3,
        cmap="RdBu",
        alpha=0.6,
        vmin=0,
        vmax=1,
        ax=ax,
    )
    ax.scatter(*X_test.T, c=y_test, cmap="RdBu", edgecolor="white", linewidth=0.6, s=24)
    draw_kinks(ax, model.network_)
    ax.set_title(
        f'patterns="{source}": test accuracy {model.score(X_test, y_test):.2f}\n'
        f"objective {model.objective_:.3f}, certified bound {model.dual_bound_:.3f}",
        fontsize=11,
    )
plt.show()

# %%
# A small gap is no praise for the patterns: the network on the left is certified as well, as the
# best that its patterns allow.
