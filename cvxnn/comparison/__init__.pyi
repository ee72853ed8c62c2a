from .comparison import METHODS, RESULT_FILE, compare
from .results import Comparison, MethodResult

__all__ = ["METHODS", "RESULT_FILE", "Comparison", "MethodResult", "compare"]
