from .conformal import label_set, prediction_interval, preference_set
from .curvature import Curvature
from .features import Contributions, contributions, feature_importances
from .hyperplanes import Boundaries, boundaries, count_regions, open_neurons
from .influence import Influence
from .local_models import LocalLinear, local_linear
from .neurons import NeuronReport, neuron_report
from .removal import Removal
from .robustness import decision_radius, ranking_radius

__all__ = [
    "Boundaries",
    "Contributions",
    "Curvature",
    "Influence",
    "LocalLinear",
    "NeuronReport",
    "Removal",
    "boundaries",
    "contributions",
    "count_regions",
    "decision_radius",
    "feature_importances",
    "label_set",
    "local_linear",
    "neuron_report",
    "open_neurons",
    "prediction_interval",
    "preference_set",
    "ranking_radius",
]
