from .cache import EmbeddingCache
from .decoding.guidance import Guidance
from .decoding.guided_replies import GuidedReply, generate_guided, stream_guided
from .decoding.logits_processor import RewardLogitsProcessor
from .decoding.plain_replies import choose_reply, generate_candidates, generate_greedy
from .decoding.reply_measures import ReplyMeasures, measure_replies
from .decoding.scoring import DescribedHead, RewardHead
from .embeddings import Embedder
from .fine_tuning.adapters import load_adapter
from .fine_tuning.config import FINE_TUNING_OBJECTIVES, STRATEGIES, FineTuningConfig
from .fine_tuning.strategy_runs import JointData, compare_strategies
from .fine_tuning.training_loop import fine_tune
from .fine_tuning.tuned_model import FineTuned
from .harness import HarnessModel, harness_model
from .loading import load_configuration, load_model
from .log_probabilities import ResponseLogProbabilities, response_log_probabilities
from .memory import MemoryPlan, memory_plan
from .models import LanguageModel
from .reward_bench_runner import BenchPipeline, register_reward_bench
from .reward_function import RewardFunction
from .reward_server import RewardServer
from .vllm_embedder import VllmEmbedder, vllm_engine

__all__ = [
    "FINE_TUNING_OBJECTIVES",
    "STRATEGIES",
    "BenchPipeline",
    "DescribedHead",
    "Embedder",
    "EmbeddingCache",
    "FineTuned",
    "FineTuningConfig",
    "Guidance",
    "GuidedReply",
    "HarnessModel",
    "JointData",
    "LanguageModel",
    "MemoryPlan",
    "ReplyMeasures",
    "ResponseLogProbabilities",
    "RewardFunction",
    "RewardHead",
    "RewardLogitsProcessor",
    "RewardServer",
    "VllmEmbedder",
    "choose_reply",
    "compare_strategies",
    "fine_tune",
    "generate_candidates",
    "generate_greedy",
    "generate_guided",
    "harness_model",
    "load_adapter",
    "load_configuration",
    "load_model",
    "measure_replies",
    "memory_plan",
    "register_reward_bench",
    "response_log_probabilities",
    "stream_guided",
    "vllm_engine",
]
