"""
What privacy costs
==================

A private head may be published: who sees it learns little about any single pair. The price is
noise in the program, and it falls with the number of pairs. Here the "replies" are images of
digits, and judges prefer the larger digit.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cvxnn import LinearPreferenceHead, PrivatePreferenceHead

# %%
# Pairs of images. Dividing by the largest possible value looks at no data.

images, digits = load_digits(return_X_y=True)
images = images / 16 - 0.5
train, test = train_test_split(np.arange(len(images)), random_state=0)
rng = np.random.default_rng(0)


def judged(rows, n):
    """Return the images of the larger and of the smaller digit of n pairs."""
    first, second = rng.choice(rows, (2, 2 * n))
    differ = np.flatnonzero(digits[first] != digits[second])[:n]
    first, second = first[differ], second[differ]
    larger = digits[first] > digits[second]
    return images[np.where(larger, first, second)], images[np.where(larger, second, first)]


new = judged(test, 2000)

# %%
# Accuracy on new pairs against the budget epsilon, for three numbers of pairs, each the mean of ten
# draws of the noise.

budgets = [0.1, 0.3, 1, 3, 10]
figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for n, colour in ((300, "tab:orange"), (1000, "tab:green"), (3000, "tab:blue")):
    pairs = judged(train, n)
    heads = [
        [PrivatePreferenceHead(epsilon, noise_state=k).fit_pairs(*pairs) for k in range(10)]
        for epsilon in budgets
    ]
    right = [[(head.reward_margin(*new) > 0).mean() for head in row] for row in heads]
    ax.errorbar(
        budgets, np.mean(right, 1), np.std(right, 1), color=colour, marker="o", label=f"{n} pairs"
    )
    bare = LinearPreferenceHead().fit_pairs(*pairs)
    ax.axhline((bare.reward_margin(*new) > 0).mean(), color=colour, linestyle=":", linewidth=1)
ax.set(xscale="log", xlabel="budget epsilon (delta = 1e-5)", ylabel="right about new pairs")
ax.legend(title="dotted: not private", frameon=False)
plt.show()
