from .activation_patterns import ActivationPatternDisplay
from .convergence import ConvergenceDisplay
from .pareto import ObjectiveTrajectoryDisplay, ParetoFrontDisplay
from .regions import DecisionRegionDisplay
from .rewards import RewardMarginDisplay
from .strengths import RegularizationPathDisplay

__all__ = [
    "ActivationPatternDisplay",
    "ConvergenceDisplay",
    "DecisionRegionDisplay",
    "ObjectiveTrajectoryDisplay",
    "ParetoFrontDisplay",
    "RegularizationPathDisplay",
    "RewardMarginDisplay",
]
