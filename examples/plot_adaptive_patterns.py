"""
Can pricing find better patterns than luck?
===========================================

Local training proposes the first patterns. Then each round asks which *new* neuron would pay for
itself at the program's dual optimum, adds such neurons, drops those that are not used, and solves
again. We compare with what many restarts and many random patterns reach.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler

from cvxnn.convex import add_bias
from cvxnn.training import train

# %%
# Diabetes, 442 rows in ten features; rows of norm about one, a column of ones for the biases.

X, y = load_diabetes(return_X_y=True)
X = add_bias(StandardScaler().fit_transform(X) / np.sqrt(X.shape[1]))
y = StandardScaler().fit_transform(y[:, None])
alpha, n_patterns = 5e-3, 20

# %%
# Refinement from one short local training; then twenty independent ones, and random patterns, each
# followed by the convex program over what they found.

refined = train(X, y, alpha, n_patterns, n_rounds=6, random_state=0)
restarts = [train(X, y, alpha, n_patterns, random_state=seed) for seed in range(20)]
random = train(X, y, alpha, 4 * n_patterns, patterns="gaussian", random_state=0)

rounds = refined.rounds
print("patterns ", *(f"{n:8.0f}" for n in rounds["n_patterns"]))
print("objective", *(f"{value:8.5f}" for value in rounds["objective"]))
print("gap      ", *(f"{gap:8.0e}" for gap in rounds["gap"]))
print("best gain", *(f"{gain:8.3f}" for gain in rounds["gain"]))
local = [run.result.objective for run in restarts]
print(f"20 restarts: {min(local):.5f} to {max(local):.5f}")
print(f"80 random patterns: {random.result.objective:.5f}")

# %%
# On the right, the gain of the best neuron that pricing found after a round, over its price: at 1
# nothing would be left to gain. Pricing is not convex: where all patterns are too many to be tried,
# finding none is no proof, and the gain is nan. The gap of each round is one, for the patterns of
# that round.

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.axhspan(min(local), max(local), color="C2", alpha=0.25, label="20 restarts")
left.plot(rounds["objective"], "C0o-", label="adaptive patterns")
off_scale = f"80 random patterns: {random.result.objective:.3f}, above"
left.plot([], [], "C3^", label=off_scale)
top = max(local) + 0.4 * (max(local) - min(rounds["objective"]))
left.set(xlabel="round", title="objective, each certified for its patterns", ylim=(None, top))
left.legend(loc="upper right")
right.plot(rounds["gain"], "C0o-")
right.axhline(1, color="C1", linestyle="--", label="price")
right.set(xlabel="round", title="gain of the best new neuron over its price")
right.legend()
plt.show()
