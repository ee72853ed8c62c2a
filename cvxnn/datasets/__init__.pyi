from .pairs import read_pairs
from .sentiment import sentiment_pairs
from .tutoring import load_tutoring

__all__ = ["load_tutoring", "read_pairs", "sentiment_pairs"]
