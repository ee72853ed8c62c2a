from .description import POOLINGS, Description, Pooling, check_description
from .pairs import (
    PairFeatures,
    discard_features,
    is_extracted,
    join_pair_features,
    read_pair_features,
)
from .store import FeatureWriter, read_features

__all__ = [
    "POOLINGS",
    "Description",
    "FeatureWriter",
    "PairFeatures",
    "Pooling",
    "check_description",
    "discard_features",
    "is_extracted",
    "join_pair_features",
    "read_features",
    "read_pair_features",
]
