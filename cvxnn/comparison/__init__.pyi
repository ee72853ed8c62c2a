from .experiment import METHODS, Method, compare
from .heads import HEADS, fit_head, length_baseline
from .replies import side_by_side
from .report import render_report
from .results import REPLIES_FILE, RESULT_FILE, Comparison, MethodResult
from .seeds import summarise_seeds
from .writers import Writers, load_writers

__all__ = [
    "HEADS",
    "METHODS",
    "REPLIES_FILE",
    "RESULT_FILE",
    "Comparison",
    "Method",
    "MethodResult",
    "Writers",
    "compare",
    "fit_head",
    "length_baseline",
    "load_writers",
    "render_report",
    "side_by_side",
    "summarise_seeds",
]
