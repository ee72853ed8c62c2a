"""
How strong should the penalty be?
=================================

A network of a thousand gates can follow any data; the penalty decides how far it does. The
cross-validated estimators score a whole grid of strengths on held-out folds. In each fold the
kernel is computed once and all strengths share a few factorisations, so that twenty strengths on
five folds cost a handful of single fits.
"""

# %%
# The score rises as the penalty gives way to the signal, and falls again where the network begins
# to follow the noise. Strengths are fractions of ``alpha_max_``, so that one grid fits all data.

import matplotlib.pyplot as plt
from sklearn.datasets import make_friedman1

from cvxnn import ConvexReLURegressor, ConvexReLURegressorCV
from cvxnn.plotting import RegularizationPathDisplay

figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
found = {}
for ax, noise in zip(axes, (1.0, 5.0), strict=True):
    X, y = make_friedman1(400, 10, noise=noise, random_state=0)
    model = ConvexReLURegressorCV(ConvexReLURegressor(random_state=0)).fit(X, y)
    RegularizationPathDisplay.from_estimator(model, ax=ax)
    ax.set(title=f"noise of standard deviation {noise:g}", xlabel="strength")
    found[noise] = model
axes[0].set_ylim(0, 1)
plt.show()

# %%
# More noise asks for a stronger penalty. The single estimator's ``strength="auto"`` answers the
# same question from the leave-one-out error, at the price of one fit; here are both, and the score
# of the networks on new data without noise.

X_new, truth = make_friedman1(2000, 10, noise=0.0, random_state=1)
for noise, model in found.items():
    X, y = make_friedman1(400, 10, noise=noise, random_state=0)
    single = ConvexReLURegressor(random_state=0).fit(X, y)
    for name, fitted in (("cross-validation", model), ("leave-one-out", single)):
        score = fitted.score(X_new, truth)
        print(f"noise {noise:g}, {name:16}: {fitted.strength_:.1e}, R2 on new data {score:.3f}")
