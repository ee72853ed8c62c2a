from .meter import CostMeter
from .resources import Cost

__all__ = ["Cost", "CostMeter"]
