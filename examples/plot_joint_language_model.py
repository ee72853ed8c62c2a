"""
A language model that forgets
=============================

``cvxnn joint PAIRS DEMONSTRATIONS`` trains a language model for preferences (DPO) and for
demonstrations (SFT) by several strategies. The figure draws a small run of SmolLM2-135M on pairs of
hh-rlhf and demonstrations, with losses over rows that nothing was trained on. No language model is
run for this page: the numbers are those of the file that is read here.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt

FILE = Path("../asv_bench/preference/joint_llm.jsonl")
records = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]

# %%
# Lower is better in both directions. Training for one objective alone moves along one axis, and may
# lose on the other: what was there before is forgotten. A strategy is good if it ends towards the
# corner below on the left. The dashed lines cross at the ideal point, which each objective reached
# alone.

fig, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
start = records[0]["first"]
ax.plot(*start, "ks", label="before training")
alone = {row["run"]: row["losses"] for row in records if row["run"].endswith("alone")}
ax.axvline(alone["dpo alone"][0], color="0.6", linestyle="--", linewidth=1)
ax.axhline(alone["sft alone"][1], color="0.6", linestyle="--", linewidth=1)
for k, row in enumerate(records):
    label = row["run"] if row["run"] in alone else f"{row['run']}, λ = {row['lam']:g}"
    ax.annotate("", row["losses"], start, arrowprops={"arrowstyle": "->", "color": f"C{k}"})
    ax.plot(*row["losses"], "o", color=f"C{k}", label=label)
    print(f"{label}: DPO {row['losses'][0]:.3f}, SFT {row['losses'][1]:.3f}, held out")
ax.set(xlabel="DPO loss of held-out pairs", ylabel="SFT loss of held-out demonstrations")
ax.legend(fontsize="small")
plt.show()
