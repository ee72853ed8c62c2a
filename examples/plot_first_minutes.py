"""
How good is it with nothing tuned?
==================================

The first minutes with a new method: its defaults, on data at hand, beside the defaults of what one
would take instead. ``ConvexReLUClassifier`` scales its features inside; the others get a scaler.
"""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from cvxnn import ConvexReLUClassifier

# %%
# Four data sets of scikit-learn, three random splits of each. An MLP stops after 200 epochs by
# default and then warns; as we tune nothing, we let it.

methods = {
    "ConvexReLUClassifier()": ConvexReLUClassifier(random_state=0),
    "LogisticRegression()": make_pipeline(StandardScaler(), LogisticRegression()),
    "SVC()": make_pipeline(StandardScaler(), SVC()),
    "MLPClassifier()": make_pipeline(StandardScaler(), MLPClassifier(random_state=0)),
}
data = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}
warnings.simplefilter("ignore", ConvergenceWarning)
splitter = StratifiedShuffleSplit(3, test_size=0.25, random_state=0)

accuracy = np.zeros((len(methods), len(data)))
seconds = np.zeros((len(methods), len(data)))
for j, load in enumerate(data.values()):
    X, y = load(return_X_y=True)
    for i, model in enumerate(methods.values()):
        scores, times = [], []
        for train, test in splitter.split(X, y):
            began = time.perf_counter()
            model.fit(X[train], y[train])
            times.append(time.perf_counter() - began)
            scores.append(model.score(X[test], y[test]))
        accuracy[i, j], seconds[i, j] = np.mean(scores), np.median(times)

print(f"{'':24}" + "".join(f"{name:>16}" for name in data))
for i, name in enumerate(methods):
    print(f"{name:24}" + "".join(f"{100 * value:14.1f} %" for value in accuracy[i]))

# %%
# Test parts have 38 to 450 rows: a difference of one point on the first three is one or two rows,
# and nobody's advantage.

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
places = np.arange(len(data))[::-1]
styles = ("C0o", "C2^", "C1s", "C3D")
for i, (name, style) in enumerate(zip(methods, styles, strict=True)):
    shift = 0.12 * (1.5 - i)
    left.plot(100 * accuracy[i], places + shift, style, markersize=8)
    right.plot(seconds[i], places + shift, style, markersize=8, label=name)
left.set_yticks(places, data)
left.set(xlabel="test accuracy (%)", title="mean of three splits")
right.set(xlabel="seconds to fit", title="median of three fits", xscale="log")
for ax in (left, right):
    ax.grid(axis="x", alpha=0.4)
    for place in places[:-1]:
        ax.axhline(place - 0.5, color="0.85", linewidth=0.8)
fig.legend(loc="outside lower center", ncols=4, frameon=False)
plt.show()

# %%
# It is first on the two larger data sets, and on iris last, by a row. In time it lies between the
# kernel machine, to which a network with many gates is related, and the MLP. What it has besides:
# the strength of its penalty is chosen from the data, its probabilities are calibrated, and each
# prediction is a linear model that can be read (:doc:`/user_guide/explanations`).
