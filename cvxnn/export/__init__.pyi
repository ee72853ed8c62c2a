from .carried import check_embedding, embedding_of
from .dense_modules import to_dense_modules
from .jax_function import to_jax
from .onnx_model import to_onnx
from .torch_module import TorchHead, TorchNetwork, to_torch

__all__ = [
    "TorchHead",
    "TorchNetwork",
    "check_embedding",
    "embedding_of",
    "to_dense_modules",
    "to_jax",
    "to_onnx",
    "to_torch",
]
