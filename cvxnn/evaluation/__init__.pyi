from .alpaca_eval import (
    AlpacaEvalOutput,
    read_alpaca_eval,
    read_alpaca_eval_annotations,
    write_alpaca_eval,
)
from .arena_hard import (
    ArenaHardQuestion,
    ArenaHardVerdict,
    read_arena_hard_judgements,
    read_arena_hard_questions,
)
from .endpoint_judge import EndpointJudge
from .judges import BatchJudge, Judge, JudgedComparison, PositionBias, compare_with_judge
from .length_control import (
    LengthControlledWinRate,
    length_controlled_win_rate,
    length_controlled_win_rates,
)
from .mt_bench import (
    MTBenchAnswer,
    MTBenchQuestion,
    read_mt_bench_answers,
    read_mt_bench_questions,
    write_mt_bench_answers,
    write_mt_bench_questions,
)
from .mt_bench_grades import (
    EndpointGrader,
    MTBenchGrade,
    answer_mt_bench,
    grade_mt_bench,
    mt_bench_scores,
    read_mt_bench_grades,
)
from .mt_bench_verdicts import MTBenchVerdict, read_mt_bench_verdicts
from .reward_bench import (
    RewardBenchRow,
    read_reward_bench,
    reward_bench_accuracies,
    write_reward_bench,
    write_reward_bench_scores,
)
from .reward_model_judge import RewardModelJudge, text_judge, text_judge_accuracy
from .study_answers import Answers, read_answers
from .study_key import KeyQuestion, StudyKey, read_key
from .study_scores import QuestionResult, Share, StudyResult, fleiss_kappa, score_study
from .study_sheet import (
    CONSENT,
    INSTRUCTIONS,
    Study,
    StudyItem,
    StudyQuestion,
    make_study,
    write_study,
)
from .win_rates import (
    Judgement,
    PairwiseWinRates,
    WinRate,
    pairwise_win_rates,
    win_rate,
    win_rates_by_group,
)

__all__ = [
    "CONSENT",
    "INSTRUCTIONS",
    "AlpacaEvalOutput",
    "Answers",
    "ArenaHardQuestion",
    "ArenaHardVerdict",
    "BatchJudge",
    "EndpointGrader",
    "EndpointJudge",
    "Judge",
    "JudgedComparison",
    "Judgement",
    "KeyQuestion",
    "LengthControlledWinRate",
    "MTBenchAnswer",
    "MTBenchGrade",
    "MTBenchQuestion",
    "MTBenchVerdict",
    "PairwiseWinRates",
    "PositionBias",
    "QuestionResult",
    "RewardBenchRow",
    "RewardModelJudge",
    "Share",
    "Study",
    "StudyItem",
    "StudyKey",
    "StudyQuestion",
    "StudyResult",
    "WinRate",
    "answer_mt_bench",
    "compare_with_judge",
    "fleiss_kappa",
    "grade_mt_bench",
    "length_controlled_win_rate",
    "length_controlled_win_rates",
    "make_study",
    "mt_bench_scores",
    "pairwise_win_rates",
    "read_alpaca_eval",
    "read_alpaca_eval_annotations",
    "read_answers",
    "read_arena_hard_judgements",
    "read_arena_hard_questions",
    "read_key",
    "read_mt_bench_answers",
    "read_mt_bench_grades",
    "read_mt_bench_questions",
    "read_mt_bench_verdicts",
    "read_reward_bench",
    "reward_bench_accuracies",
    "score_study",
    "text_judge",
    "text_judge_accuracy",
    "win_rate",
    "win_rates_by_group",
    "write_alpaca_eval",
    "write_mt_bench_answers",
    "write_mt_bench_questions",
    "write_reward_bench",
    "write_reward_bench_scores",
    "write_study",
]
