"""
How far off may a prediction be?
================================

The residuals of a fit are those of rows that it has seen. Fits without each row, which the closed
form has at once, make intervals that hold new targets as often as they say (the jackknife+).
"""

import matplotlib.pyplot as plt
import numpy as np

from cvxnn import ConvexReLURegressor
from cvxnn.explanation import prediction_interval

# %%
# A hundred noisy points of a wave, and a gap without any.

rng = np.random.default_rng(0)


def wave(n):
    x = np.concatenate([rng.uniform(-3, 0, n // 2), rng.uniform(1, 3, n - n // 2)])
    return x[:, None], np.sin(2 * x) + 0.2 * rng.normal(size=n)


X, y = wave(100)
model = ConvexReLURegressor(random_state=0).fit(X, y)
influence = model.influence(X, y)

# %%
# The band of level 0.9 beside that of the residuals, which is too narrow.

grid = np.linspace(-3, 3, 241)[:, None]
ends = prediction_interval(influence, grid, level=0.9)[:, 0]
half = np.quantile(np.abs(y - model.predict(X)), 0.9)
predicted = model.predict(grid)
figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
ax.fill_between(grid[:, 0], *ends.T, alpha=0.25, label="jackknife+, 90 %")
ax.plot(grid, predicted, label="prediction")
ax.plot(grid, predicted - half, "k:", lw=1, label="90 % of the residuals")
ax.plot(grid, predicted + half, "k:", lw=1)
ax.plot(X, y, "k.", ms=5, label="rows of the fit")
ax.set(xlabel="x", ylabel="y", ylim=(-2.5, 2.5))
ax.legend(ncols=2, fontsize="small")

# %%
# How many of 2,000 new rows do the bands hold? Over many draws of a hundred rows it is the level;
# of one draw it is near.

X_new, y_new = wave(2000)
low, high = prediction_interval(influence, X_new, level=0.9)[:, 0].T
print(f"jackknife+: {np.mean((low <= y_new) & (y_new <= high)):.1%}")
print(f"residuals: {np.mean(np.abs(y_new - model.predict(X_new)) <= half):.1%}")
plt.show()
