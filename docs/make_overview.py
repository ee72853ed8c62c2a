"""Draw docs/_static/overview.png: a convex network with its neurons, and its certificate closing.

Run from the repository root: python docs/make_overview.py
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from cvxnn import ConvexReLUClassifier

TARGET = Path(__file__).parent / "_static" / "overview.png"
RED, BLUE, INK = "#c44e52", "#4c72b0", "#333333"


def main() -> None:
    X, y = make_moons(300, noise=0.15, random_state=0)
    model = ConvexReLUClassifier(
        n_patterns=24, strength=3e-3, tol=1e-3, max_iter=5000, random_state=0
    )
    model.fit(X, y)

    plt.rcParams.update({"font.size": 11, "axes.titlesize": 12.5, "axes.titleweight": "bold"})
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    fig.get_layout_engine().set(wspace=0.06)
    draw_regions(left, model, X, y)
    draw_certificate(right, model)
    TARGET.parent.mkdir(exist_ok=True)
    fig.savefig(TARGET, dpi=100)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB, gap {model.gap_:.1e}")


def draw_regions(ax: Any, model: ConvexReLUClassifier, X: np.ndarray, y: np.ndarray) -> None:
    low, high = X.min(axis=0) - 0.35, X.max(axis=0) + 0.35
    xx, yy = np.meshgrid(*np.linspace(low, high, 300).T)
    p = model.predict_proba(np.column_stack([xx.ravel(), yy.ravel()]))[:, 1].reshape(xx.shape)
    ax.contourf(xx, yy, p, levels=np.linspace(0, 1, 13), cmap="RdBu", alpha=0.65)
    ax.contour(xx, yy, p, levels=[0.5], colors=INK, linewidths=2)
    network, span = model.network_, np.array([low[0], high[0]])
    for (a, b), c in zip(network.hidden_weights, network.hidden_bias, strict=True):
        ax.plot(span, -(a * span + c) / b, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    for label, color in ((0, RED), (1, BLUE)):
        ax.scatter(*X[y == label].T, s=20, color=color, edgecolor="white", linewidth=0.5)
    ax.set(xlim=span, ylim=(low[1], high[1]), xticks=[], yticks=[])
    ax.set_title(f"A ReLU network: where its {network.n_neurons} neurons switch on")


def draw_certificate(ax: Any, model: ConvexReLUClassifier) -> None:
    h = model.history_
    ax.plot(h["iteration"], h["objective"], color=BLUE, linewidth=2)
    ax.plot(h["iteration"], h["dual_bound"], color=RED, linewidth=2)
    ax.fill_between(h["iteration"], h["dual_bound"], h["objective"], color=BLUE, alpha=0.12)
    ax.set(xscale="log", xlabel="solver iteration", ylabel="training objective")
    ax.set_title("Its distance from the optimum, certified")
    ax.spines[["top", "right"]].set_visible(False)
    style = {"textcoords": "offset points", "fontweight": "bold"}
    first, last = h["iteration"][[0, -1]]
    ax.annotate("network", (first, h["objective"][0]), (14, 2), color=BLUE, **style)
    ax.annotate("certified lower bound", (first, h["dual_bound"][0]), (14, 2), color=RED, **style)
    gap = f"gap {100 * model.gap_:.1f} %"
    ax.annotate(gap, (last, model.objective_), (0, 14), color=INK, ha="right", **style)


if __name__ == "__main__":
    main()
