from .sentiment import sentiment_pairs
from .sources import read_pairs
from .tutoring import load_tutoring

__all__ = ["load_tutoring", "read_pairs", "sentiment_pairs"]
