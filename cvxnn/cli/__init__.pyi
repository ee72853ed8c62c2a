from .option_groups import (
    DATA,
    EMBEDDING,
    FINE_TUNING,
    GUIDANCE,
    HEAD,
    MODEL,
    OBJECTIVES,
    add_held_out,
    add_memory_plan,
)
from .options import HelpFormatter, OptionGroup, option_from
from .plan import plan_text

__all__ = [
    "DATA",
    "EMBEDDING",
    "FINE_TUNING",
    "GUIDANCE",
    "HEAD",
    "MODEL",
    "OBJECTIVES",
    "HelpFormatter",
    "OptionGroup",
    "add_held_out",
    "add_memory_plan",
    "option_from",
    "plan_text",
]
