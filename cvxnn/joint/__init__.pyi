from .candidates import CandidateSets
from .choice_objective import ChoiceObjective
from .improvement import delta_m, percentage_increase
from .policy_objectives import (
    bradley_terry_objective,
    dpo_objective,
    mix_objective,
    orpo_objectives,
    sft_objective,
)
from .post_training import Trajectory, post_train
from .problem import JointProblem
from .strategies import Strategy
from .trade_offs import (
    BalancedOptimum,
    ParetoFront,
    balanced_optimum,
    pareto_front,
    reference_front,
    stop_at_front,
)

__all__ = [
    "BalancedOptimum",
    "CandidateSets",
    "ChoiceObjective",
    "JointProblem",
    "ParetoFront",
    "Strategy",
    "Trajectory",
    "balanced_optimum",
    "bradley_terry_objective",
    "delta_m",
    "dpo_objective",
    "mix_objective",
    "orpo_objectives",
    "pareto_front",
    "percentage_increase",
    "post_train",
    "reference_front",
    "sft_objective",
    "stop_at_front",
]
