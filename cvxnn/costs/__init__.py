"""What a method costs: operations, memory and time, counted phase by phase while it runs."""

from cvxnn._public_names import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
