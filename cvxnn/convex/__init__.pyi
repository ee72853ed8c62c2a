from .certificate import Certificate
from .decided_rankings import DecidedRankings
from .decomposition import Decomposition, cone_decomposition
from .dual_point import DualPoint
from .enumeration import enumerate_patterns
from .host_program import on_host
from .loop import precision, solve
from .losses import (
    HuberLoss,
    LogisticLoss,
    Loss,
    MultinomialLoss,
    SquaredLoss,
    register_pytree,
)
from .mesh_scope import on_mesh
from .objectives import (
    BallObjective,
    SmoothObjective,
    WithCurvature,
    WithLowerBound,
    WithProjection,
    WithRows,
)
from .operators import GatedOperator, PairedOperator, Weights, paired
from .path import RegularizationPath, alpha_grid, regularization_path
from .pattern_sampling import sample_patterns
from .patterns import ActivationPatterns, Formulation, add_bias
from .penalties import (
    L1,
    FeatureGroupLasso,
    NeuronGroupLasso,
    Penalty,
    SquaredL2,
    WithConjugate,
    WithDualNorm,
)
from .program import ConvexProgram
from .reference import solve_with_cvxpy
from .solver import Callback, Measurement, Result, Solver, Start, Status, relative_gap
from .solvers.accelerated_gradient import AcceleratedGradient
from .solvers.automatic import automatic
from .solvers.cronos.cronos import Cronos
from .solvers.interior_point.interior_point import InteriorPoint
from .solvers.proximal_gradient import ProximalGradient
from .solvers.ridge.ridge import Ridge
from .solvers.trust_region import TrustRegionNewton
from .solvers.working_set import solve_on_working_sets

__all__ = [
    "L1",
    "AcceleratedGradient",
    "ActivationPatterns",
    "BallObjective",
    "Callback",
    "Certificate",
    "ConvexProgram",
    "Cronos",
    "DecidedRankings",
    "Decomposition",
    "DualPoint",
    "FeatureGroupLasso",
    "Formulation",
    "GatedOperator",
    "HuberLoss",
    "InteriorPoint",
    "LogisticLoss",
    "Loss",
    "Measurement",
    "MultinomialLoss",
    "NeuronGroupLasso",
    "PairedOperator",
    "Penalty",
    "ProximalGradient",
    "RegularizationPath",
    "Result",
    "Ridge",
    "SmoothObjective",
    "Solver",
    "SquaredL2",
    "SquaredLoss",
    "Start",
    "Status",
    "TrustRegionNewton",
    "Weights",
    "WithConjugate",
    "WithCurvature",
    "WithDualNorm",
    "WithLowerBound",
    "WithProjection",
    "WithRows",
    "add_bias",
    "alpha_grid",
    "automatic",
    "cone_decomposition",
    "enumerate_patterns",
    "on_host",
    "on_mesh",
    "paired",
    "precision",
    "register_pytree",
    "regularization_path",
    "relative_gap",
    "sample_patterns",
    "solve",
    "solve_on_working_sets",
    "solve_with_cvxpy",
]
