"""
Which labels look wrong?
========================

A fitted network is a solved linear system, so what it would predict without a row follows without
another fit. A row whose label the rest of the data contradict is a row to look at: here 40 of 800
handwritten digits get a wrong label, and ``influence`` finds them.
"""

# %%
# Turn some labels
# ----------------
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from cvxnn import ConvexReLUClassifier

digits = load_digits()
rng = np.random.RandomState(0)
rows = rng.choice(len(digits.data), 800, replace=False)
X, truth = digits.data[rows], digits.target[rows]
turned = rng.choice(800, 40, replace=False)
y = truth.copy()
y[turned] = (truth[turned] + rng.randint(1, 10, 40)) % 10

# %%
# Fit, and leave out each row
# ---------------------------
# ``doubt`` is by how much the score of another digit exceeds that of the label, in the network that
# has not seen the row. Above 0, that network contradicts the label.
model = ConvexReLUClassifier(random_state=0).fit(X, y)
start = time.perf_counter()
influence = model.influence(X, y)
print(f"800 networks, each without a row: {time.perf_counter() - start:.1f} s")
first = np.argsort(-influence.doubt)
is_turned = np.isin(np.arange(800), turned)
print(f"{is_turned[first[:40]].sum()} of the 40 wrong labels are among the first 40")

# %%
# The rows to look at
# -------------------
# The first rows in the order of doubt, each with its label and, in brackets, the digit that the
# network without it prefers.
preferred = influence.unseen.argmax(axis=1)
figure, axes = plt.subplots(2, 8, figsize=(9, 3.2), layout="constrained")
for ax, k in zip(axes.ravel(), first, strict=False):
    ax.imshow(X[k].reshape(8, 8), cmap="gray_r")
    colour = "tab:red" if is_turned[k] else "black"
    ax.set_title(f"{y[k]} ({preferred[k]})", color=colour, fontsize=10)
    ax.set_axis_off()
figure.suptitle("Label (network without this row); turned labels in red")

# %%
# How fast they are found
# -----------------------
# The loss of the network itself is no such help: it was fitted to the wrong labels too.
scores = model.network_.forward(X)
own = scores[np.arange(800), y]
scores[np.arange(800), y] = -np.inf
in_the_fit = scores.max(axis=1) - own
figure, ax = plt.subplots(figsize=(5, 3.4), layout="constrained")
for name, doubt in (("left out", influence.doubt), ("loss in the fit", in_the_fit)):
    found = is_turned[np.argsort(-doubt)].cumsum()
    ax.plot(np.arange(1, 801), found, label=name)
ax.axhline(40, color="0.8", lw=1)
ax.set(xlim=(0, 160), xlabel="rows looked at", ylabel="wrong labels found")
ax.legend()

# %%
# What made one prediction
# ------------------------
# ``on`` takes any row. Those whose absence lowers the score of the predicted digit most are its
# reasons. A wrong label can be among them: the network bends upwards around a row that pulls it
# down.
new = np.setdiff1d(np.arange(len(digits.data)), rows)[:1]
predicted = int(model.predict(digits.data[new])[0])
changes = influence.on(digits.data[new])[0, :, predicted]
reasons = np.argsort(changes)[:6]
figure, axes = plt.subplots(1, 7, figsize=(9, 1.9), layout="constrained")
pictures = [digits.data[new[0]], *X[reasons]]
names = [f"new: {predicted}", *(f"{y[k]}: {changes[k]:+.3f}" for k in reasons)]
for ax, picture, name in zip(axes, pictures, names, strict=True):
    ax.imshow(picture.reshape(8, 8), cmap="gray_r")
    ax.set_title(name, fontsize=10)
    ax.set_axis_off()
figure.suptitle("A new digit, and the rows without which its score would be lower")
plt.show()
