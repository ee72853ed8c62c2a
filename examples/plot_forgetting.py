r"""
What does a model forget that is fine-tuned last?
=================================================

Post-training has two aims: responses like those of demonstrations (supervised fine-tuning, SFT),
and responses that people prefer (DPO). Mostly one follows the other, and the second stage undoes
what the first has learnt. "Understanding Forgetting in LLM Supervised Fine-Tuning and Preference
Learning" shows it on a policy of two parameters (its Figure 2). Here is that figure, with optima
that are certified and not estimated.

.. note::

   The features are those of the paper's Table 2, but for the SFT example, whose two responses are
   exchanged. As printed, both objectives ask for a larger :math:`\theta_1`: after DPO the SFT
   objective is 0.005, below the threshold at which training stops, and nothing is forgotten. With
   the exchange the trajectories are those that the paper describes. It also leaves :math:`\beta`
   open, here 1.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit

from cvxnn.joint import (
    CandidateSets,
    JointProblem,
    dpo_objective,
    pareto_front,
    post_train,
    sft_objective,
)
from cvxnn.plotting import ObjectiveTrajectoryDisplay, ParetoFrontDisplay

# %%
# One pair, one demonstration. The reference policy of DPO is fine-tuned on the chosen response from
# the same start, for 1000 steps (Appendix B.1).

chosen, rejected = np.array([[1.0, 1.0]]), np.array([[0.5, 0.5]])
demonstration = CandidateSets.stack([[[0.5, 0.5], [1.0, 0.5]]])  # the first one is wanted
start, rate, decay = np.array([5.0, -9.9]), 0.01, 0.001

difference = (chosen - rejected)[0]
reference = start
for _ in range(1000):
    slope = -expit(-reference @ difference) * difference
    reference = reference - rate * (slope + decay * reference)

problem = JointProblem(
    dpo=dpo_objective(chosen, rejected, reference=reference, beta=1.0, radius=100.0),
    sft=sft_objective(demonstration, [0], radius=100.0),
)

# %%
# Three ways to spend 20,000 steps. Sequential does DPO first; each stage stops where its objective
# is below 0.05, or after its half of the steps. ALRIGHT tosses a coin before each step; MAXRIGHT
# descends the objective that is further from its optimum. Hollow points are the start, full ones
# the end; level lines of DPO are drawn through, those of SFT dashed.

n_steps = 20_000
runs = {
    name: post_train(
        problem,
        name,
        lam=0.5,
        n_steps=n_steps,
        step=rate * np.sqrt(n_steps),
        batch_size=None,
        start=start,
        weight_decay=decay,
        threshold=0.05,
        n_records=400,
    )
    for name in ("sequential", "alright", "maxright")
}
fig, axes = plt.subplots(2, 3, figsize=(11, 7), layout="constrained", sharex="row", sharey="row")
axes[0, 0].set(xlim=(-9, 14), ylim=(-12, 11))
axes[1, 0].set(xlim=(-0.3, 5.7), ylim=(-0.3, 5.7))
for (name, run), (top, bottom) in zip(runs.items(), axes.T, strict=True):
    ObjectiveTrajectoryDisplay.from_trajectory(run, problem, space="parameter", ax=top)
    ObjectiveTrajectoryDisplay.from_trajectory(run, problem, ax=bottom)
    distance = problem.ideal_distance(run.dpo[-1], run.sft[-1])
    top.set_title(name)
    bottom.set_title(f"ideal distance {distance:.2f}")
plt.show()

# %%
# Sequential goes to one optimum, and from there to the other, along a line on which all that DPO
# has gained is lost. The star is the ideal point: both optima are practically 0, and one policy
# nearly reaches both. The two others end close to it.
#
# Data usually leave less freedom. With twenty random pairs and twenty random demonstrations for six
# parameters the objectives conflict, and the border of what is possible, the Pareto front, is a
# curve. It is solved for here to a duality gap of :math:`10^{-8}`, at 21 trade-offs.

rng = np.random.default_rng(0)
candidates = CandidateSets.stack(list(rng.standard_normal((20, 4, 6))))
conflict = JointProblem(
    dpo=dpo_objective(*rng.standard_normal((2, 20, 6)), beta=1.0, radius=10.0),
    sft=sft_objective(candidates, rng.integers(4, size=20), radius=10.0),
)
front = pareto_front(conflict)
print(f"largest gap {(front.objective - front.bound).max():.0e}, {front.seconds:.2f} s")

lambdas = (0.1, 0.3, 0.5, 0.7, 0.9)
ends = {}
for name in ("sequential", "mix", "alright", "maxright"):
    ran = [post_train(conflict, name, lam, n_steps=4000, batch_size=8) for lam in lambdas]
    ends[name] = ([run.dpo[-1] for run in ran], [run.sft[-1] for run in ran])
    excess = front.excess(*ends[name])
    gaps = [
        float(conflict.gap(*at, lam=lam)) for *at, lam in zip(*ends[name], lambdas, strict=True)
    ]
    print(f"{name:>10}: mean gap of the mix {np.mean(gaps):.4f}, ", end="")
    print(f"both objectives could be lower by {100 * excess.mean():.2f} %")

ParetoFrontDisplay.from_front(front, points=ends)
plt.show()

# %%
# ALRIGHT and the mix end at the point of the front that :math:`\lambda` asks for, MAXRIGHT at one
# whose weighted gaps are equal. Sequential ends close to the front too, but wherever its last stage
# took it: near the end of SFT, whatever :math:`\lambda` is.
