from .sentiment import sentiment_pairs
from .tutoring import load_tutoring

__all__ = ["load_tutoring", "sentiment_pairs"]
