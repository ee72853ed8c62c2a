from .jax_function import to_jax
from .onnx_model import to_onnx
from .torch_module import TorchNetwork, to_torch

__all__ = ["TorchNetwork", "to_jax", "to_onnx", "to_torch"]
