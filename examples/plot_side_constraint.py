"""
A judge with a bias, and a reward without it
============================================

Judges of language models like long replies. Whoever fits a reward to their choices fits the length
too. A side constraint takes it out: among all rewards that do not follow the length, the fit under
the constraint is the one of least objective, and the price says what the constraint costs. Here
the "replies" are images of digits. The judge should prefer the larger digit, and likes ink.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cvxnn import COALAPreferenceHead
from cvxnn.training import SideConstraint

# %%
# Pairs of images. The judge adds to the difference of the digits three times that of their ink.

images, digits = load_digits(return_X_y=True)
ink = images.mean(axis=1)
ink = (ink - ink.mean()) / ink.std()
train, test = train_test_split(np.arange(len(images)), random_state=0)
rng = np.random.default_rng(0)
first, second = rng.choice(train, (2, 1500))
judged = (digits[first] - digits[second]) + 3 * (ink[first] - ink[second])
prefers_first = rng.random(1500) < expit(judged)
chosen = images[np.where(prefers_first, first, second)]
rejected = images[np.where(prefers_first, second, first)]

# %%
# The head as it is, and a head whose differences of rewards do not follow differences of ink.

head = COALAPreferenceHead(random_state=0).fit_pairs(chosen, rejected)
pairs, labels = np.concatenate([chosen, rejected]), np.repeat([1, 0], 1500)
difference = np.where(prefers_first, ink[first] - ink[second], ink[second] - ink[first])
constraint = SideConstraint.in_pairs(chosen, rejected, difference)
fair = head.constrained(pairs, labels, [constraint])
print(f"price of the constraint: {fair.prices_[0, 0]:.3f}")
print(f"objective: {head.objective_:.3f} without it, {fair.objective_:.3f} with it")

# %%
# On images that neither has seen, rewards of the second follow the digit more and the ink less.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
pair = rng.choice(test, (2, 2000))
larger = digits[pair[0]] > digits[pair[1]]
differs = digits[pair[0]] != digits[pair[1]]
for ax, (name, model) in zip(axes, {"as it is": head, "constrained": fair}.items(), strict=True):
    reward = model.decision_function(images)
    reward = (reward - reward[test].mean()) / reward[test].std()
    right = ((reward[pair[0]] > reward[pair[1]]) == larger)[differs].mean()
    follows = np.corrcoef(reward[test], ink[test])[0, 1]
    points = ax.scatter(ink[test], reward[test], c=digits[test], cmap="viridis", s=9)
    ax.set(
        title=f"{name}: correlation {follows:.2f},\nthe larger digit wins {right:.0%}",
        xlabel="ink",
    )
axes[0].set_ylabel("reward")
figure.colorbar(points, ax=axes, label="digit")
plt.show()
