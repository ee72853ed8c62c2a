"""
Reward margins over time: COALA beside DPO
==========================================

How fast do reward margins grow, and do they hold for pairs that were not trained on? A convex head
is fitted to embeddings, which the language model has made in one pass; DPO adapts the language
model itself, step by step.

The figure draws the runs of the page "COALA and DPO compared": SmolLM2-135M, 1,000 training and 400
held-out pairs of MRBench and of hh_rlhf (helpful). No language model is run for this page: the
curves are those of the files that are read here, and the scripts beside them make such files.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

FOLDER = Path("../asv_bench/preference")
NAMES = {"mrbench": "MRBench", "hh_helpful": "hh_rlhf, helpful"}


def records(name):
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


heads = {(row["set"], row["method"]): row for row in records("margin_curves.jsonl")}
dpo = {
    row["set"]: row
    for row in records("dpo_runs.jsonl")
    if row["seed"] == 0 and row["epochs"] == 3 and row["learning_rate"] == 2e-4
}

# %%
# Training margins of DPO are those of the eight pairs of a step, which differ much from step to
# step. They are smoothed by a running mean, as in the figures of the COALA paper. Held-out margins
# of DPO are those of 100 pairs after every 25 steps, those of COALA of 400 pairs after each
# iteration of phase II, which begins with the margins of phase I.


def smoothed(values, width=25):
    """Return means over windows, which are shorter at the ends."""
    half = width // 2
    return [np.mean(values[max(k - half, 0) : k + half + 1]) for k in range(len(values))]


fig, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
for row, (name, title) in zip(axes, NAMES.items(), strict=True):
    for ax, method in zip(row, ("algorithm 1", "gated"), strict=False):
        head = heads[name, method]
        seconds, seen, unseen = np.array(head["curve"])[-head["of_phase2"] - 2 :].T
        since = 1000 * (seconds - seconds[0])
        ax.plot(since, seen, ".-", markersize=4, label="training pairs")
        ax.plot(since, unseen, ".-", markersize=4, label="held-out pairs")
        kind = "Algorithm 1 of COALA" if method == "algorithm 1" else "COALA, gated"
        label = f"milliseconds of phase II, after {seconds[0]:.1f} s of phase I"
        ax.set(title=f"{title}: {kind}", xlabel=label)
        print(f"{title}, {kind}: {head['accuracy']:.1%} of held-out pairs")
    run = dpo[name]
    seconds, _, margins = np.array(run["curve"]).T
    row[2].plot(seconds, margins, color="C0", alpha=0.15)
    row[2].plot(seconds, smoothed(margins), color="C0", label="training pairs")
    seconds, _, margins = np.array(run["held_out_curve"]).T
    row[2].plot(seconds, margins, ".-", color="C1", label="held-out pairs")
    row[2].set(title=f"{title}: DPO, 3 epochs", xlabel="seconds on a GPU, with the reference")
    print(f"{title}, DPO: {run['accuracy']:.1%} of held-out pairs")
    for ax in row:
        ax.legend(fontsize="small")
    row[0].set_ylabel("mean reward margin")
plt.show()

# %%
# Margins of the methods have different units, so that only their course can be compared, and the
# share of pairs that are ranked right (above). All of them grow further on training pairs than on
# held-out ones. On MRBench held-out margins follow; on helpful replies neither Algorithm 1 nor
# three epochs of DPO gain there what they gain on the pairs that they are trained on.
