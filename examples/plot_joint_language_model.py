"""
A language model that forgets, or does not
==========================================

``cvxnn joint PAIRS DEMONSTRATIONS`` trains a language model for preferences (DPO) and for
demonstrations (SFT) by several strategies. The figures draw two runs of SmolLM2-135M on pairs of
hh-rlhf and demonstrations, with losses over rows that nothing was trained on. No language model is
run for this page: the numbers are those of the files that are read here.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

FOLDER = Path("../asv_bench/preference")


def read(name):
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


def axes_of(title):
    _, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    ax.set(xlabel="DPO loss of held-out pairs", ylabel="SFT loss of held-out demonstrations")
    ax.set_title(title, fontsize="medium")
    return ax


# %%
# Lower is better in both directions. Training for one objective alone moves along one axis, and may
# lose on the other: what was there before is forgotten. A strategy is good if it ends towards the
# corner below on the left. The dashed lines cross at the ideal point, which each objective reached
# alone. The first run is small: 64 pairs and 64 demonstrations of at most 64 tokens, one seed.

small = read("joint_llm.jsonl")
start = small[0]["first"]
alone = {row["run"]: row["losses"] for row in small if row["run"].endswith("alone")}
ax = axes_of("64 pairs and 64 demonstrations, one seed")
ax.plot(*start, "ks", label="before training")
ax.axvline(alone["dpo alone"][0], color="0.6", linestyle="--", linewidth=1)
ax.axhline(alone["sft alone"][1], color="0.6", linestyle="--", linewidth=1)
for k, row in enumerate(small):
    label = row["run"] if row["run"] in alone else f"{row['run']}, λ = {row['lam']:g}"
    ax.annotate("", row["losses"], start, arrowprops={"arrowstyle": "->", "color": f"C{k}"})
    ax.plot(*row["losses"], "o", color=f"C{k}", label=label)
    print(f"{label}: DPO {row['losses'][0]:.3f}, SFT {row['losses'][1]:.3f}, held out")
ax.legend(fontsize="small")
plt.show()

# %%
# The second has 500 pairs and 500 demonstrations, each seen once. Lines join the means of the seeds
# for λ = 0.25, 0.5 and 0.75 (MAXRIGHT was run for 0.5 alone), small dots are single seeds. In DPO's
# loss strategies differ by less than seeds do: the model has learnt too little of the preferences
# to forget it, and **no** strategy ends above its start. What is clear is SFT's loss: it ends lower
# the smaller λ is, and the mix, with half the steps, ends above the others.

large = read("joint_llm_500.jsonl")
ax = axes_of("500 pairs and 500 demonstrations, up to three seeds")
ax.plot(*large[0]["first"], "ks", label="before training")
for k, run in enumerate(dict.fromkeys(row["run"] for row in large)):
    rows = [row for row in large if row["run"] == run]
    ends = np.array([row["losses"] for row in rows])
    lams = sorted({row["lam"] for row in rows})
    means = np.array([ends[[row["lam"] == lam for row in rows]].mean(axis=0) for lam in lams])
    ax.plot(*ends.T, ".", color=f"C{k}", markersize=4, alpha=0.6)
    ax.plot(*means.T, "o-", color=f"C{k}", label=run)
    for lam, (dpo, sft) in zip(lams, means, strict=True):
        print(f"{run}, λ = {lam:g}: DPO {dpo:.3f}, SFT {sft:.3f}, held out")
ax.legend(fontsize="small")
plt.show()
