from .catalogue import OBJECTIVES, Objective
from .coala_objective import CoalaObjective
from .demonstrations import (
    CandidateReplies,
    Demonstration,
    candidate_replies,
    read_demonstrations,
)
from .files import read_conversations, read_hub, read_preferences, write_preferences
from .loss_functions import (
    bradley_terry,
    coala_pairwise,
    coala_pointwise,
    dpo,
    orpo,
    r_dpo,
    rrhf,
    sft,
    simpo,
)
from .made_dialogues import DialogueCounts, DialogueFilter, make_dialogues
from .metrics import LengthBias, length_accuracy, length_bias, pair_accuracy, reward_metrics
from .population import PopulationSummary, alternating_population, summarize_population
from .ranked_replies import RankingCounts, rank_sampled_replies
from .selection import BestReply, best_replies
from .triplets import (
    ROLES,
    Conversation,
    DuplicateReport,
    Message,
    PreferenceTriplet,
    Prompt,
    as_messages,
    as_text,
    deduplicate,
    split_by_group,
)

__all__ = [
    "OBJECTIVES",
    "ROLES",
    "BestReply",
    "CandidateReplies",
    "CoalaObjective",
    "Conversation",
    "Demonstration",
    "DialogueCounts",
    "DialogueFilter",
    "DuplicateReport",
    "LengthBias",
    "Message",
    "Objective",
    "PopulationSummary",
    "PreferenceTriplet",
    "Prompt",
    "RankingCounts",
    "alternating_population",
    "as_messages",
    "as_text",
    "best_replies",
    "bradley_terry",
    "candidate_replies",
    "coala_pairwise",
    "coala_pointwise",
    "deduplicate",
    "dpo",
    "length_accuracy",
    "length_bias",
    "make_dialogues",
    "orpo",
    "pair_accuracy",
    "r_dpo",
    "rank_sampled_replies",
    "read_conversations",
    "read_demonstrations",
    "read_hub",
    "read_preferences",
    "reward_metrics",
    "rrhf",
    "sft",
    "simpo",
    "split_by_group",
    "summarize_population",
    "write_preferences",
]
