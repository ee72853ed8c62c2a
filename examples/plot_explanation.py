"""
Why this prediction?
====================

Around almost every row a two-layer network *is* a linear model, and it says which one. So its
answer for one image can be taken apart exactly, pixel by pixel, without sampling or fitting an
explanation to it. Here is one that the network gets wrong.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cvxnn import ConvexReLUClassifier
from cvxnn.explanation import contributions, local_linear

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
model = ConvexReLUClassifier(formulation="gated", n_patterns=512, random_state=0)
model.fit(X_train, y_train)
print(f"test accuracy {model.score(X_test, y_test):.3f}")

# %%
# Of the images that it misreads, take the one in which it is most confident. The question is not
# "why this digit" but "why this digit rather than the true one", so what is explained is the
# difference of two outputs.

scores = model.decision_function(X_test)
read = scores.argmax(axis=1)
lead = scores.max(axis=1) - scores[np.arange(len(X_test)), y_test]
k = lead.argmax()
x, true, read = X_test[k], y_test[k], read[k]
print(f"a {true}, read as {read}: that score leads by {lead[k]:.3f}")

# %%
# Pixels contribute by their difference from a baseline: here the mean image of the true digit, so
# that missing ink counts as well as ink in an unusual place. Contributions and rest add up to the
# lead, to rounding.

baseline = X_train[y_train == true].mean(axis=0)
parts = contributions(model.network_, x[None], baseline)
pixels = parts.features[0, read] - parts.features[0, true]
rest = parts.rest[0, read] - parts.rest[0, true]
print(f"pixels {pixels.sum():+.3f} and rest {rest:+.3f} are {pixels.sum() + rest:.3f}")

fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
limit = np.abs(pixels).max()
axes[0].imshow(x.reshape(8, 8), cmap="gray_r")
axes[0].set_title(f"a {true}, read as {read}")
axes[1].imshow(baseline.reshape(8, 8), cmap="gray_r")
axes[1].set_title(f"baseline: the mean {true}")
image = axes[2].imshow(pixels.reshape(8, 8), cmap="RdBu", vmin=-limit, vmax=limit)
axes[2].set_title(f"blue speaks for {read}, red for {true}")
fig.colorbar(image, ax=axes[2], label=f"score of {read} minus score of {true}")
for ax in axes:
    ax.set(xticks=[], yticks=[])
plt.show()

# %%
# One pixel decides. Has the network seen it before?

pixel = pixels.argmax()
inked = int((X_train[:, pixel] > 0).sum())
erased = np.where(np.arange(len(x)) == pixel, 0, x)[None]
print(f"{pixels[pixel]:.3f} of the lead is from one pixel, of grey level {x[pixel]:.0f};")
print(f"in training it is inked in {inked} of {len(X_train)} images, at most at level", end=" ")
print(f"{X_train[:, pixel].max():.0f}; without it the network reads a {model.predict(erased)[0]}")

# %%
# Features are standardised inside, and a pixel that is nearly always blank has a tiny standard
# deviation: two grey levels are more deviations than any training image has.
#
# How far does the linear model hold? We walk from the image to the baseline. At each boundary on
# the way (ticks) a gate opens or closes and the network takes another linear model, but one gate
# of many changes little: it stays near its first one for long.

way = np.linspace(0, 1, 400)[:, None] * (baseline - x)
network = model.decision_function(x + way)
there = local_linear(model.network_, x + way)
linear = lead[k] + way @ (there.weights[0, read] - there.weights[0, true])
crossings = (there.active[1:] != there.active[:-1]).any(axis=1)
distance = np.linalg.norm(way, axis=1)

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(distance, network[:, read] - network[:, true], label="network")
ax.plot(distance, linear, "--", label="its linear model at the image")
ticks = distance[1:][crossings]
ax.plot(ticks, np.full(len(ticks), 0.02), "|k", transform=ax.get_xaxis_transform())
ax.axhline(0, color="0.5", linewidth=0.8)
ax.set(
    xlabel=f"distance on the way from the image to the mean {true} (grey levels)",
    ylabel=f"score of {read} minus score of {true}",
    xlim=(0, distance[-1]),
)
ax.legend()
plt.show()

# %%
# ``radius`` is the distance that is safe in every direction, so it is shorter than to the first
# boundary on any one way.

print(f"radius {there.radius[0]:.1e}, first boundary on this way at {ticks[0]:.2f} grey levels")
