"""Processor seconds of a step of DPO on one core: ``python step_cost.py --data DIR --out FILE``.

What joint training of SmolLM2-135M costs, and what makes it cheaper, one thing after the other:
adapters on two layers of a block instead of seven, bfloat16, and no chat template, whose system
prompt is as long as short replies are. The pairs are the shortest of hh-rlhf, the same for all.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

from asv_bench.raw_results import append
from cvxnn.llm import FineTuningConfig, LanguageModel, fine_tune, load_model
from cvxnn.preference import PreferenceTriplet, read_preferences

WAYS: dict[str, dict[str, Any]] = {
    "all layers, float32": {},
    "q and v, float32": {"target_modules": ("q_proj", "v_proj")},
    "q and v, bfloat16": {"target_modules": ("q_proj", "v_proj"), "dtype": "bfloat16"},
    "q and v, bfloat16, no template": {
        "target_modules": ("q_proj", "v_proj"),
        "dtype": "bfloat16",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="as load_model takes it")
    parser.add_argument("--pairs", type=int, default=6, help="of a step")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lm = load_model(options.model)
    pairs = shortest(lm, options.data / "hh_rlhf_train.jsonl.gz", options.pairs)
    for name, settings in WAYS.items():
        if "no template" in name:
            lm.tokenizer.chat_template = None
        config = FineTuningConfig(
            steps=2,
            warmup_steps=0,
            micro_batch=len(pairs),
            accumulation=1,
            lora_dropout=0.0,
            **settings,
        )
        began = time.process_time()
        tuned = fine_tune(lm, config, preferences=pairs)
        spent = {"all": time.process_time() - began}
        spent |= {phase: cost["cpu_seconds"] for phase, cost in tuned.costs.items()}
        tokens = tuned.tokens_trained // 2
        append(
            options.out,
            {"way": name, "pairs": len(pairs), "tokens_of_a_step": tokens, "cpu_seconds": spent},
        )


def shortest(lm: LanguageModel, path: Path, n: int) -> list[PreferenceTriplet]:
    pairs = [pair for pair in read_preferences(path) if len(pair.prompt) == 1]
    texts = [pair.prompt[0]["content"] + pair.chosen + pair.rejected for pair in pairs]
    return [pairs[k] for k in sorted(range(len(pairs)), key=lambda k: len(texts[k]))[:n]]


if __name__ == "__main__":
    main()
