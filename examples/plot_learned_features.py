"""
Do the hidden units feed another model?
=======================================

``transform`` gives the hidden activations of a fitted network, so it can stand in a pipeline as a
step that learns features. Are they worth more to another model than the raw features, and more than
random ones?
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from cvxnn import ConvexReLUClassifier

# %%
# Digits, 600 for training. The ReLU formulation keeps few neurons. ``FrozenEstimator`` lets four
# pipelines share one fitted network; without it, each would train its own.

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=600, stratify=y, random_state=0
)
network = ConvexReLUClassifier(0.03, formulation="relu", n_patterns=32, random_state=0)
network.fit(X_train, y_train)
n_neurons = len(network.get_feature_names_out())
print(f"{n_neurons} hidden units; the network itself: {network.score(X_test, y_test):.1%}")

# %%
# Beside them the raw pixels, and as many random ReLU features.

rng = np.random.default_rng(0)
directions = rng.normal(size=(X.shape[1], n_neurons)) / np.sqrt(X.shape[1])
offsets = rng.normal(size=n_neurons)
random_units = FunctionTransformer(lambda Z: np.maximum(Z @ directions + offsets, 0))

features = {
    "raw pixels": StandardScaler(),
    f"{n_neurons} random units": make_pipeline(StandardScaler(), random_units),
    f"{n_neurons} learned units": FrozenEstimator(network),
}
models = {
    "decision tree": DecisionTreeClassifier(random_state=0),
    "naive Bayes": GaussianNB(var_smoothing=1e-3),
    "five neighbours": KNeighborsClassifier(),
    "logistic regression": LogisticRegression(max_iter=500),
}
fig, ax = plt.subplots(figsize=(8.5, 4), layout="constrained")
places = np.arange(len(models))[::-1]
for k, (name, step) in enumerate(features.items()):
    scores = []
    for model in models.values():
        pipeline = make_pipeline(step, StandardScaler(), model).fit(X_train, y_train)
        scores.append(100 * pipeline.score(X_test, y_test))
    ax.plot(scores, places, ("C7s", "C1^", "C0o")[k], markersize=10, label=name)
ax.set_yticks(places, models)
ax.hlines(places, 70, 100, color="0.85", zorder=0)
ax.set(xlabel="test accuracy (%)", xlim=(70, 100), ylim=(-0.5, 3.5))
ax.set_title("what another model makes of the features")
fig.legend(loc="outside lower center", ncols=3, frameon=False)
plt.show()

# %%
# Models that look at one feature at a time gain most: a hidden unit is a question to the whole
# image. A linear model gains little, since the network has one at its end already.
#
# The units have seen the labels of the training rows. To choose among such pipelines,
# cross-validate them as a whole, without ``FrozenEstimator``.
