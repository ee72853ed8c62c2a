from .option_building import HelpFormatter, OptionGroup, option_from
from .option_groups import (
    DATA,
    EMBEDDING,
    FINE_TUNING,
    GUIDANCE,
    HEAD,
    MODEL,
    OBJECTIVE_GROUPS,
    add_held_out,
    add_memory_plan,
)
from .plan import plan_text

__all__ = [
    "DATA",
    "EMBEDDING",
    "FINE_TUNING",
    "GUIDANCE",
    "HEAD",
    "MODEL",
    "OBJECTIVE_GROUPS",
    "HelpFormatter",
    "OptionGroup",
    "add_held_out",
    "add_memory_plan",
    "option_from",
    "plan_text",
]
