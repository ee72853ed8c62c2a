"""
How far from the optimum is the network?
========================================

Every fit records two numbers as it goes: the training objective of the best network so far, and a
lower bound that no network with the same activation patterns can undercut. Their relative
distance is the duality gap. It tells when to stop, and how much there was still to gain: a
falling loss curve tells neither.

The default, gated network is the solution of one linear system, with a gap near zero and no curve.
Here is a ReLU network, which takes iterations.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer

from cvxnn import ConvexReLUClassifier
from cvxnn.plotting import ConvergenceDisplay

# %%
# ``tol`` is the relative duality gap at which the solver stops. Here it is a fifth of the
# default.

X, y = load_breast_cancer(return_X_y=True)
model = ConvexReLUClassifier(
    0.01, formulation="relu", n_patterns=32, tol=2e-3, max_iter=5000, random_state=0
)
model.fit(X, y)
print(f"{model.status_} after {model.n_iter_} iterations")
print(f"{model.dual_bound_:.5f} <= optimum over the patterns; network: {model.objective_:.5f}")

# %%
# ``history_`` has one row per measurement. The gap is computed from the two curves on the left.

history = model.history_
gap = (history["objective"] - history["dual_bound"]) / history["objective"]

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
ConvergenceDisplay.from_estimator(model, ax=left)
left.set(title="objective and certified bound", xlim=(0, None))
right.semilogy(history["time"], gap, label="relative duality gap")
right.axhline(model.tol, color="0.4", linestyle="--", label="tol")
right.set(title="what is left to gain, at most", xlabel="time (s)", xlim=(0, None))
right.legend()
plt.show()
