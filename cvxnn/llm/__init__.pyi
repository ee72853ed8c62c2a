from .cache import EmbeddingCache
from .embeddings import Embedder, embed_responses
from .generation import choose, generate_candidates, generate_greedy
from .models import LanguageModel, load_model

__all__ = [
    "Embedder",
    "EmbeddingCache",
    "LanguageModel",
    "choose",
    "embed_responses",
    "generate_candidates",
    "generate_greedy",
    "load_model",
]
