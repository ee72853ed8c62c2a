"""
Does a preference head find the reward behind the choices?
==========================================================

Nobody shows a reward head the reward: it sees which of two responses was preferred. Here the
"responses" are images of handwritten digits, and a judge prefers the larger digit, mostly: digits
that are close are confused at times (Bradley and Terry's model). The head learns from pairs
alone; we then look at the rewards that it gives to images it has not seen.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from cvxnn import COALAPreferenceHead
from cvxnn.plotting import RewardMarginDisplay

# %%
# Pairs of images, and the judge's choice in each. Training and test pairs share no image.

images, digits = load_digits(return_X_y=True)
images_train, images_test, digits_train, digits_test = train_test_split(
    images, digits, random_state=0
)
rng = np.random.default_rng(0)


def judged_pairs(images, digits, n_pairs):
    first, second = rng.integers(len(images), size=(2, n_pairs))
    differs = digits[first] != digits[second]
    first, second = first[differs], second[differs]
    prefers_first = rng.random(len(first)) < expit(digits[first] - digits[second])
    chosen = np.where(prefers_first, first, second)
    rejected = np.where(prefers_first, second, first)
    right = np.mean(digits[chosen] > digits[rejected])
    return images[chosen], images[rejected], right


chosen, rejected, _ = judged_pairs(images_train, digits_train, 1000)
chosen_test, rejected_test, by_digit_test = judged_pairs(images_test, digits_test, 1000)

# %%
# By Algorithm 1 of the COALA paper, phase I trains a ReLU network on chosen against rejected
# images, and phase II fits its last layer to the pairs. Both stop at a certified gap.

head = COALAPreferenceHead(formulation="relu", random_state=0).fit_pairs(chosen, rejected)
margins = head.reward_margin(chosen_test, rejected_test)
print(f"phase I gap {head.gap_:.1e}, phase II gap {head.phase2_gap_:.1e}")
print(f"held-out pairs ranked as the judge did: {np.mean(margins > 0):.1%}")

many_gates = COALAPreferenceHead(random_state=0).fit_pairs(chosen, rejected)
share = np.mean(many_gates.reward_margin(chosen_test, rejected_test) > 0)
print(f"by many gates on the pairs, the default: {share:.1%}")

differences = np.concatenate([chosen - rejected, rejected - chosen])
linear = LogisticRegression(C=0.01, max_iter=1000)
linear.fit(differences / 4, np.repeat([1, 0], len(chosen)))
linear_right = linear.predict(chosen_test - rejected_test).mean()
print(f"by a linear reward, fitted to the same pairs: {linear_right:.1%}")
print(f"by the true digits, which they never saw: {by_digit_test:.1%}")

fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
RewardMarginDisplay.from_estimator(head, ax=axes[0])
axes[0].set_title("training pairs, during phase II")
RewardMarginDisplay.from_predictions(margins, ax=axes[1])
axes[1].set_title("held-out pairs")
logits = head.decision_function(images_test)
axes[2].boxplot([logits[digits_test == k] for k in range(10)], showfliers=False)
axes[2].set_xticks(range(1, 11), range(10))
axes[2].set(xlabel="digit shown (hidden reward)", ylabel="logit", title="held-out images")
plt.show()
