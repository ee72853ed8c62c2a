from .description import POOLINGS, Description, Pooling, check_description
from .endpoint import EndpointEmbedder
from .extraction import PairEmbedder, extract_pairs, extract_shard, merge_pairs
from .named_models import NAMED_MODELS, NamedModel, hub_name, named_model
from .pairs import (
    PairFeatures,
    discard_features,
    is_extracted,
    join_pair_features,
    read_pair_features,
)
from .shards import Shard
from .store import StoredRows, read_features
from .writer import FeatureWriter, store_as

__all__ = [
    "NAMED_MODELS",
    "POOLINGS",
    "Description",
    "EndpointEmbedder",
    "FeatureWriter",
    "NamedModel",
    "PairEmbedder",
    "PairFeatures",
    "Pooling",
    "Shard",
    "StoredRows",
    "check_description",
    "discard_features",
    "extract_pairs",
    "extract_shard",
    "hub_name",
    "is_extracted",
    "join_pair_features",
    "merge_pairs",
    "named_model",
    "read_features",
    "read_pair_features",
    "store_as",
]
