"""
Can I bet on ``predict_proba``?
===============================

If a forecast of 80 % comes true in 80 % of the cases, a bet at these odds is fair. We draw how
often forecasts come true. A network that fits its training rows closely is too sure of itself when
its probabilities are fitted to the same rows; so ours are fitted to predictions of rows that were
left out.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import CalibrationDisplay
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cvxnn import ConvexReLUClassifier

# %%
# Handwritten digits, the small against the large, with few training rows and noisy pixels, so that
# nobody can be sure.

X, digits = load_digits(return_X_y=True)
y = (digits >= 5).astype(int)
X = X + np.random.default_rng(0).normal(0, 8, X.shape)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=500, stratify=digits, random_state=0
)

models = {
    "default": ConvexReLUClassifier(random_state=0),
    'formulation="relu"': ConvexReLUClassifier(formulation="relu", random_state=0),
    "LogisticRegression": make_pipeline(StandardScaler(), LogisticRegression()),
    "MLPClassifier": make_pipeline(StandardScaler(), MLPClassifier(max_iter=500, random_state=0)),
}

# %%
# On the diagonal forecasts come true as often as they say; a curve that is flatter than the
# diagonal belongs to a model that is too sure, a steeper one to one that is too shy. Points are
# groups of as many test rows each.

fig, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
for (name, model), style in zip(models.items(), ("C0o-", "C1s-", "C2^-", "C3D-"), strict=True):
    probability = model.fit(X_train, y_train).predict_proba(X_test)[:, 1]
    CalibrationDisplay.from_predictions(
        y_test,
        probability,
        n_bins=8,
        strategy="quantile",
        name=name,
        ax=axes[0],
        color=style[:2],
        marker=style[2],
    )
    axes[1].hist(probability, bins=20, range=(0, 1), histtype="step", color=style[:2], linewidth=2)
    print(
        f"{name:20} accuracy {model.score(X_test, y_test):.3f}, "
        f"log-loss {log_loss(y_test, probability):.3f}, "
        f"Brier score {brier_score_loss(y_test, probability):.3f}"
    )
axes[0].set(xlabel="forecast", ylabel="how often it came true", title="reliability")
axes[0].legend(loc="upper left")
axes[1].set(xlabel="forecast", ylabel="test rows", title="how sure they are")
plt.show()

# %%
# Whoever bets on the MLP's near-certainties loses one time in ten. Reliable is not the same as
# informed: here the ReLU network is the more accurate of our two, and has the lower log-loss.
