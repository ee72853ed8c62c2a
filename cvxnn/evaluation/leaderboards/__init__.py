"""Files for public leaderboards: AlpacaEval, MT-Bench and RewardBench.

Everything is checked before a byte is written, and a file appears under its name only when it is
complete. A model's reply may be empty, for that is a reply too: to leave it out would be to choose
what one is judged by.
"""

from cvxnn.evaluation.leaderboards._alpaca_eval import (
    AlpacaEvalOutput,
    read_alpaca_eval,
    read_alpaca_eval_annotations,
    write_alpaca_eval,
)
from cvxnn.evaluation.leaderboards._mt_bench import (
    MTBenchAnswer,
    MTBenchQuestion,
    read_mt_bench_answers,
    read_mt_bench_questions,
    write_mt_bench_answers,
    write_mt_bench_questions,
)
from cvxnn.evaluation.leaderboards._reward_bench import (
    RewardBenchRow,
    read_reward_bench,
    reward_bench_accuracies,
    write_reward_bench,
    write_reward_bench_scores,
)

__all__ = [
    "AlpacaEvalOutput",
    "MTBenchAnswer",
    "MTBenchQuestion",
    "RewardBenchRow",
    "read_alpaca_eval",
    "read_alpaca_eval_annotations",
    "read_mt_bench_answers",
    "read_mt_bench_questions",
    "read_reward_bench",
    "reward_bench_accuracies",
    "write_alpaca_eval",
    "write_mt_bench_answers",
    "write_mt_bench_questions",
    "write_reward_bench",
    "write_reward_bench_scores",
]
