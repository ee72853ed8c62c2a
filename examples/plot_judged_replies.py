"""
Replies of all models, judged
=============================

``cvxnn evaluate --comparison FOLDER`` lets the base model, each fine-tuned model and guided
decoding by each head answer the same prompts, and a judge compares every reply with that of the
base model. The figure draws the run of the page "Evaluating replies": SmolLM2-135M, 12 prompts of
MRBench, and a judge that knows nothing but words. No language model is run for this page: the
numbers are those of the file that is read here, and the script beside it makes such a file.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt

FILE = Path("../asv_bench/evaluation/judged_comparison.jsonl")
NAMES = {"plain": "base model", "coala": "guided by COALA", "linear": "guided by a linear head"}

records = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
rows = [row for row in records if row["run"] == "evaluate"]
labels = [NAMES.get(row["system"], row["system"].upper()) for row in rows]

# %%
# On the left, the share of prompts that each method wins; where the interval contains one half, the
# judge cannot tell the method from the base model. On the right, what no head and no judge has
# seen: how likely the replies are under the base model. Replies that win and are much less likely
# have to be read before they are believed.

fig, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained", sharey=True)
for k, row in enumerate(rows):
    if "win_rate" in row:
        rate, (low, high) = row["win_rate"]["rate"], row["win_rate"]["interval"]
        axes[0].plot([100 * low, 100 * high], [k, k], color="C0", linewidth=2)
        axes[0].plot(100 * rate, k, "o", color="C0", clip_on=False)
        print(f"{labels[k]}: {rate:.1%} of {row['prompts']} prompts, {low:.1%} to {high:.1%}")
    axes[1].plot(row["mean_log_probability"], k, "s", color="C1")
axes[0].axvline(50, color="0.6", linewidth=1)
axes[0].set(xlim=(0, 100), xlabel="win rate against the base model, %")
axes[0].set_yticks(range(len(rows)), labels)
axes[0].invert_yaxis()
axes[1].set_xlabel("mean log-probability of a token under the base model")
plt.show()
