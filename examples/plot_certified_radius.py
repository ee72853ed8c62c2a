"""
How far may two replies move?
=============================

A reward ranks replies by their embeddings, and these carry errors: another model version, a cut
text, rounding. ``ranking_radius`` proves a distance within which no such error changes the order of
a pair, and says so before anybody has searched for one that does.
"""

import matplotlib.pyplot as plt
import numpy as np

from cvxnn import COALAPreferenceHead
from cvxnn.explanation import ranking_radius

# %%
# Replies in the plane; the one nearer to the middle is preferred. The head learns it from 300
# pairs, of which a tenth was judged wrongly.

rng = np.random.default_rng(0)


def quality(X):
    return -np.linalg.norm(X, axis=-1)


replies = rng.uniform(-2, 2, (2, 340, 2))
swap = (quality(replies[0]) < quality(replies[1])) ^ (rng.random(340) < 0.1)
chosen, rejected = (np.where(swap[:, None], b, a) for a, b in (replies, replies[::-1]))
settings = {"formulation": "relu", "n_patterns": 64, "random_state": 0}
head = COALAPreferenceHead(**settings).fit_pairs(chosen[:300], rejected[:300])
first, second = replies[:, 300:]
radius = ranking_radius(head.network_, first, second)

# %%
# In two dimensions a search can look everywhere: the nearest places of both replies, at one and the
# same distance, that have another order. The proof has to be below it, and is not far below.


def nearest_change(one, two, step=0.02, n_angles=48):
    """Return the first of several distances at which a search finds another order."""
    angles = np.linspace(0, 2 * np.pi, n_angles, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    better, worse = (one, two) if head.reward_margin([one], [two])[0] > 0 else (two, one)
    low, high = head.decision_function([better, worse])
    for distance in np.arange(step, 2, step):
        low = min(low, head.decision_function(better + distance * ring).min())
        high = max(high, head.decision_function(worse + distance * ring).max())
        if low < high:
            return distance
    return np.nan


found = np.array([nearest_change(one, two) for one, two in zip(first, second, strict=True)])
print(f"proved: {np.nanmedian(radius / found):.0%} of the distance of the search (median)")

# %%
# Eight pairs, each reply in its circle: wherever both move in theirs, the order stays. A pair whose
# rewards are nearly the same has circles too small to see.

figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
grid = np.stack(np.meshgrid(*[np.linspace(-2.2, 2.2, 120)] * 2), axis=-1)
rewards = head.decision_function(grid.reshape(-1, 2)).reshape(120, 120)
axes[0].contourf(grid[..., 0], grid[..., 1], rewards, levels=20, cmap="viridis")
for k in range(8):
    axes[0].plot(*np.stack([first[k], second[k]]).T, ".-", color="white", linewidth=0.8)
    for reply in (first[k], second[k]):
        axes[0].add_patch(plt.Circle(reply, radius[k], fill=False, color="white"))
axes[0].set(
    aspect="equal", xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), title="circles within which an order holds"
)
axes[1].plot(found, radius, "o", markersize=4)
axes[1].axline((0, 0), slope=1, color="0.5", linewidth=0.8)
axes[1].set(
    xlabel="distance at which a search finds another order",
    ylabel="certified radius",
    title="the proof is below what can be found",
)
plt.show()
