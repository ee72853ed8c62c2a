from .description import POOLINGS, Description, Pooling, check_description
from .endpoint import EndpointEmbedder
from .extraction import PairEmbedder, extract_pairs, extract_shard, merge_pairs
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
    "POOLINGS",
    "Description",
    "EndpointEmbedder",
    "FeatureWriter",
    "PairEmbedder",
    "PairFeatures",
    "Pooling",
    "Shard",
    "StoredRows",
    "check_description",
    "discard_features",
    "extract_pairs",
    "extract_shard",
    "is_extracted",
    "join_pair_features",
    "merge_pairs",
    "read_features",
    "read_pair_features",
    "store_as",
]
