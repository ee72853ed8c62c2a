"""
Adding rows, and forgetting them again
======================================

The default network is the solution of one linear system, and a row is one term of its sums. So rows
can be added to a fitted network, and taken away, exactly: the result is the fit to the rows that
are there, as if the others had never been. Here handwritten digits arrive in batches, one of which
is badly labelled.
"""

# %%
# A stream of batches
# -------------------
# The first batch chooses gates, scaling and the ridge; each later one is added to the sums. The
# eighth batch has its labels shifted by one.
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from cvxnn import ConvexReLUClassifier

X, y = load_digits(return_X_y=True)
order = np.random.RandomState(0).permutation(len(X))
train, test = order[:1500], order[1500:]
batches = np.array_split(train, 15)
labels = y.copy()
labels[batches[7]] = (y[batches[7]] + 1) % 10

model = ConvexReLUClassifier(n_patterns=16, random_state=0)
scores, seconds = [], []
for rows in batches:
    start = time.process_time()
    model.partial_fit(X[rows], labels[rows], classes=np.arange(10))
    seconds.append(time.process_time() - start)
    scores.append(model.score(X[test], y[test]))

# %%
# Forget the bad batch
# --------------------
# The certificate says what was removed, and how far the network is at most from the optimum of the
# rows that stay.
start = time.process_time()
removal = model.forget(X[batches[7]], labels[batches[7]])
seconds_to_forget = time.process_time() - start
print(removal)
print(f"accuracy {scores[-1]:.3f} with the bad batch, {model.score(X[test], y[test]):.3f} without")
print(f"largest error of a score on the test rows: {removal.error_on(X[test]).max():.1g}")

# %%
# It is the network that never saw it
# -----------------------------------
never = ConvexReLUClassifier(n_patterns=16, random_state=0)
for k, rows in enumerate(batches):
    if k != 7:
        never.partial_fit(X[rows], labels[rows], classes=np.arange(10))
off = np.abs(never.decision_function(X[test]) - model.decision_function(X[test])).max()
print(f"largest difference to the network that never saw the batch: {off:.1g}")

# %%
# What it costs
# -------------
# A fit from the beginning takes longer the more rows there are, a batch always as long.
from_scratch = []
for k in range(len(batches)):
    rows = np.concatenate(batches[: k + 1])
    start = time.process_time()
    ConvexReLUClassifier(n_patterns=16, random_state=0).fit(X[rows], labels[rows])
    from_scratch.append(time.process_time() - start)

seen = np.cumsum([len(rows) for rows in batches])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(seen, scores, marker="o", label="partial_fit")
left.axvline(seen[7], color="tab:red", lw=1, ls="--", label="badly labelled batch")
left.plot(seen[-1], model.score(X[test], y[test]), "*", ms=14, color="tab:green", label="forgotten")
left.set(xlabel="rows seen", ylabel="accuracy on other rows")
left.legend(loc="lower right")
right.plot(seen, from_scratch, marker="s", color="0.5", label="fit of all rows")
right.plot(seen[1:], seconds[1:], marker="o", label="partial_fit of 100 rows")
right.plot(seen[-1], seconds_to_forget, "*", ms=14, color="tab:green", label="forget 100 rows")
right.set(xlabel="rows seen", ylabel="CPU seconds", ylim=(0, None))
right.legend()
plt.show()
