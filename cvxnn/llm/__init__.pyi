from .cache import EmbeddingCache
from .embeddings import Embedder, embed_responses
from .extraction import extract_pairs
from .fine_tuning.adapters import load_adapter
from .fine_tuning.config import FINE_TUNING_OBJECTIVES, STRATEGIES, FineTuningConfig
from .fine_tuning.training_loop import FineTuned, fine_tune
from .generation import RewardHead, choose_reply, generate_candidates, generate_greedy
from .guidance.logits_processor import RewardLogitsProcessor
from .guidance.scoring import DescribedHead
from .guidance.settings import Guidance
from .guidance.writing import GuidedReply, generate_guided, stream_guided
from .loading import load_configuration, load_model
from .log_probabilities import ResponseLogProbabilities, response_log_probabilities
from .memory import MemoryPlan, memory_plan
from .models import LanguageModel
from .reward_server import RewardServer

__all__ = [
    "FINE_TUNING_OBJECTIVES",
    "STRATEGIES",
    "DescribedHead",
    "Embedder",
    "EmbeddingCache",
    "FineTuned",
    "FineTuningConfig",
    "Guidance",
    "GuidedReply",
    "LanguageModel",
    "MemoryPlan",
    "ResponseLogProbabilities",
    "RewardHead",
    "RewardLogitsProcessor",
    "RewardServer",
    "choose_reply",
    "embed_responses",
    "extract_pairs",
    "fine_tune",
    "generate_candidates",
    "generate_greedy",
    "generate_guided",
    "load_adapter",
    "load_configuration",
    "load_model",
    "memory_plan",
    "response_log_probabilities",
    "stream_guided",
]
