from .constrained_solution import Constrained, Functional, constrain
from .feature_blocks import block_factors
from .first_patterns import PatternChoice, draw_patterns
from .inverse_hessian import InverseHessian
from .judged_patterns import ChosenPatterns, choose_patterns
from .labelling import Asked, Criterion, most_informative
from .learned_factors import feature_factors
from .left_out import LeftOut, Units, leave_out
from .left_out_by_sums import leave_each_out
from .networks import EarlyStopping, Fit, fit_direct, fit_iterative
from .normal_equations import KeptFactors, NormalEquations, Solution
from .one_step import approximate_leave_one_out
from .outliers import choose_delta, spread_of, weighted_median
from .pricing import price, price_all
from .privacy import Private, needed_noise, perturbed, spent_delta
from .proposal import LocalNetwork, propose, to_program
from .row_sample import Sample, sample_rows
from .several_objectives import Objectives, Point
from .side_constraints import SideConstraint
from .spectrum import Spectrum, predictions_without
from .strength import Strength, measure_strength
from .training import Training, train

__all__ = [
    "Asked",
    "ChosenPatterns",
    "Constrained",
    "Criterion",
    "EarlyStopping",
    "Fit",
    "Functional",
    "InverseHessian",
    "KeptFactors",
    "LeftOut",
    "LocalNetwork",
    "NormalEquations",
    "Objectives",
    "PatternChoice",
    "Point",
    "Private",
    "Sample",
    "SideConstraint",
    "Solution",
    "Spectrum",
    "Strength",
    "Training",
    "Units",
    "approximate_leave_one_out",
    "block_factors",
    "choose_delta",
    "choose_patterns",
    "constrain",
    "draw_patterns",
    "feature_factors",
    "fit_direct",
    "fit_iterative",
    "leave_each_out",
    "leave_out",
    "measure_strength",
    "most_informative",
    "needed_noise",
    "perturbed",
    "predictions_without",
    "price",
    "price_all",
    "propose",
    "sample_rows",
    "spent_delta",
    "spread_of",
    "to_program",
    "train",
    "weighted_median",
]
