"""
A front between two tastes
==========================

Two groups of judges compare replies, and want different things. Every compromise that no other
beats in both tastes is the solution of a convex program, so that the whole front can be drawn
exactly: no training runs, no luck. Here the "replies" are images of digits. One taste prefers the
larger digit, the other one less ink.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cvxnn import COALAPreferenceHead

# %%
# Pairs of images, judged by one taste or the other.

images, digits = load_digits(return_X_y=True)
ink = images.mean(axis=1)
train, test = train_test_split(np.arange(len(images)), random_state=0)
rng = np.random.default_rng(0)


def judged(rows, n):
    """Return chosen and rejected images of n pairs, and the taste that judged each."""
    first, second = rng.choice(rows, (2, n))
    taste = rng.choice(["digit", "ink"], n)
    better = np.where(taste == "digit", digits[first] > digits[second], ink[first] < ink[second])
    return images[np.where(better, first, second)], images[np.where(better, second, first)], taste


chosen, rejected, taste = judged(train, 1500)
new_chosen, new_rejected, new_taste = judged(test, 2000)

# %%
# One head for all pairs, and from it the head of each mixture of the two tastes.

head = COALAPreferenceHead(random_state=0).fit_pairs(chosen, rejected)
pairs, labels = np.concatenate([chosen, rejected]), np.repeat([1, 0], len(chosen))
front = head.trade_off(pairs, labels, np.tile(taste, 2))
weights = np.linspace(0, 1, 11)
heads = [front.at({"digit": 1 - w, "ink": w}) for w in weights]
print(front, "- largest gap:", max(h.gap_ for h in heads))

# %%
# A threshold on the loss of one taste picks a point of the front, with its price.

kept = front.within("digit", {"ink": 0.15})
print(f"losses {kept.losses_.round(3)}, price of the threshold {kept.prices_[1]:.2f}")

# %%
# The front in the losses of the program, where it is exact, and how often these heads agree with
# new judgements of each taste.

losses = np.array([h.losses_ for h in heads])
right = np.array([h.reward_margin(new_chosen, new_rejected) > 0 for h in heads])
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
axes[0].plot(*losses.T, "o-", color="tab:blue", label="front")
axes[0].plot(*kept.losses_, "*", color="tab:red", markersize=14, label="ink at most 0.15")
axes[0].set(xlabel="loss of the taste for digits", ylabel="loss of the taste for little ink")
axes[0].legend(frameon=False)
for name, marker in (("digit", "o-"), ("ink", "s-")):
    axes[1].plot(weights, right[:, new_taste == name].mean(axis=1), marker, label=f"taste: {name}")
axes[1].set(xlabel="weight of the taste for little ink", ylabel="right about new pairs")
axes[1].legend(frameon=False)
plt.show()
