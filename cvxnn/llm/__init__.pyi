from .cache import EmbeddingCache
from .embeddings import Embedder, embed_responses
from .extraction import extract_pairs
from .generation import choose, generate_candidates, generate_greedy
from .memory import MemoryPlan, memory_plan
from .models import LanguageModel, load_model

__all__ = [
    "Embedder",
    "EmbeddingCache",
    "LanguageModel",
    "MemoryPlan",
    "choose",
    "embed_responses",
    "extract_pairs",
    "generate_candidates",
    "generate_greedy",
    "load_model",
    "memory_plan",
]
