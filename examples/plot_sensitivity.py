"""
How much the settings matter
============================

COALA has a few settings: the temperature β and the margin γ of phase II, the number P of activation
patterns, the penalty ρ of CRONOS, and the layer of the model whose hidden states are read, with
their mean over the reply or the last one. One of them at a time was changed around the defaults.
Nothing is fitted for this page: the numbers are those of the files that are read here, which
``asv_bench/preference/sweeps.py`` and ``coala_runs.py`` beside it made.
"""

import json
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt

FOLDER = Path("../asv_bench/preference")
SETS = {
    "mrbench_tutor_minilm_400_8": "MRBench",
    "hh_rlhf_sft_minilm_400_8": "hh_rlhf",
    "alpaca_eval_sft_minilm_400_8": "AlpacaEval",
}
TITLES = {"mrbench": "MRBench", "hh_helpful": "hh_rlhf, helpful"}
LABELS = {"beta": "β", "gamma": "γ", "n_patterns": "P, number of patterns"}


def records(name):
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


curves = defaultdict(list)
for row in records("sweeps.jsonl"):
    curve = row["setting"], row.get("balance", row["set"])
    curves[curve].append((row["value"], row.get("accuracy", row.get("iterations"))))
runs = [row for row in records("coala_runs.jsonl") if row["method"] == "gated"]
scores = {row["set"]: row["scores"] for row in runs}

# %%
# The first three pictures have the accuracy on held-out pairs (three sets of 400 pairs, in two
# folds, MiniLM). β and γ only scale the reward, so that the order of two replies does not depend on
# them, and a few dozen patterns are enough. The fourth has the iterations of CRONOS to a gap of 1 %
# (4,000 is where it was stopped): as printed in the paper, a large ρ costs a hundred times as many
# as a small one, and with balanced penalties, the default, four times as many. The last two have
# the accuracy in folds of 1,000 pairs by the layer of SmolLM2-135M: those in the middle are best.

fig, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
for ax, (name, label) in zip(axes.flat, LABELS.items(), strict=False):
    for key, title in SETS.items():
        ax.plot(*zip(*curves[name, key], strict=True), "o-", label=title)
    ax.set(xlabel=label, ylabel="accuracy on held-out pairs", ylim=(0.45, 0.95))
    ax.set_xscale("linear" if name == "gamma" else "log")
for balance, label in ((False, "as printed"), (True, "balanced, the default")):
    axes[1, 0].plot(*zip(*curves["rho", balance], strict=True), "o-", label=label)
axes[1, 0].set(xlabel="ρ", ylabel="iterations to a gap of 1 %", xscale="log", yscale="log")
for ax, (name, found) in zip(axes[1, 1:], scores.items(), strict=True):
    for pooling in ("mean", "last"):
        named = [key for key in found if key.endswith(f", {pooling}")]
        layers = [int(key.split()[1].rstrip(",")) for key in named]
        ax.plot(
            layers, [found[key] for key in named], "o-", label=f"{pooling} of the hidden states"
        )
    ax.set(xlabel="layer of 30", ylabel="accuracy in folds", title=TITLES[name])
for ax in axes.flat:
    ax.legend(fontsize="small")
plt.show()
