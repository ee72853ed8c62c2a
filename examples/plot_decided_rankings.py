r"""
Which rankings are the optimum's?
=================================

A solver stops with a duality gap. With the ridge penalty the gap bounds every prediction, so it
says which orders of two predictions no further iteration can change. A solver can stop as soon as
all orders of interest are decided.
"""

# %%
# A program, and pairs of interest
# --------------------------------
import matplotlib.pyplot as plt
import numpy as np

from cvxnn.convex import (
    ConvexProgram,
    DecidedRankings,
    GatedOperator,
    Ridge,
    SquaredL2,
    SquaredLoss,
    paired,
    solve,
)

rng = np.random.RandomState(0)
X, new = rng.randn(600, 5), rng.randn(80, 5)
y = np.abs(X[:, :1]) - X[:, 1:2] + 0.3 * rng.randn(600, 1)
gates = rng.randn(5, 32)
operator = GatedOperator(X, X @ gates >= 0)
program = ConvexProgram(operator, y, 0.02, SquaredLoss(), SquaredL2(), formulation="gated")
interest = paired(new, new @ gates >= 0, np.arange(80).reshape(-1, 2))

# %%
# Watch the gap decide
# --------------------
# ``DecidedRankings`` is a callback of ``solve``; here another one keeps what it saw, and
# conjugate gradient has a poor preconditioner, so that there is something to see.
decisions = DecidedRankings(program, interest)
seen = []


def watch(row, weights):
    stop = decisions(row, weights)
    seen.append((row["iteration"], decisions.margins, decisions.errors, decisions.decided.mean()))
    return stop


result = solve(program, Ridge(tol=1e-15, max_dense=1, rank=1), callback=watch)
print(f"{result.status.value} after {result.n_iter} iterations, gap {result.gap:.1e}")

# %%
# Margins with their bounds
# -------------------------
# A bar that does not reach 0 is decided. The last column of points has none that does.
figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained")
early = next(k for k, (*_, part) in enumerate(seen) if part >= 0.5)
for ax, (iteration, margins, errors, _) in zip(axes, (seen[early], seen[-1]), strict=False):
    order = np.argsort(seen[-1][1])
    open_still = np.abs(margins) <= errors
    for colour, which in (("tab:blue", ~open_still[order]), ("tab:red", open_still[order])):
        at = np.flatnonzero(which)
        ax.errorbar(at, margins[order][at], errors[order][at], fmt=".", color=colour, lw=1)
    ax.axhline(0, color="0.6", lw=1)
    ax.set(title=f"iteration {iteration:.0f}", xlabel="pairs", ylabel="margin")
axes[2].plot([s[0] for s in seen], [s[3] for s in seen], marker="o")
axes[2].set(xlabel="iteration", ylabel="part of the rankings decided", ylim=(-0.02, 1.02))
plt.show()
