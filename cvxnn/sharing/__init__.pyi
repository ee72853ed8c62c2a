from .card import model_card
from .hub import from_pretrained, push_to_hub

__all__ = ["from_pretrained", "model_card", "push_to_hub"]
