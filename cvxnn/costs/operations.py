"""Floating-point operations of torch, counted while they run."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


class OperationCounter(TorchDispatchMode):
    """Context in which the floating-point operations of torch in this thread are counted.

    Attributes
    ----------
    flops : int
        Number of operations so far. A multiplication and an addition count as two.
    """

    flops: int

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        # Only the formulas of FlopCounterMode are used. The mode itself follows modules by hooks,
        # which keep tensors alive that gradient checkpointing is meant to free.
        mode = FlopCounterMode(display=False, custom_mapping=_missing_formulas())
        self._formulas = mode.flop_registry
        self._elementary: set[Any] = set()  # operations that consist of no others

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count it.

        Parameters
        ----------
        operation : torch._ops.OpOverload
            The operation.
        types : sequence of type
            Subclasses of tensors among the arguments; not used.
        args : tuple, default=()
            Positional arguments of the operation.
        kwargs : dict, optional
            Keyword arguments of the operation.

        Returns
        -------
        object
            Result of the operation.
        """
        kwargs = kwargs or {}
        formula = self._formulas.get(getattr(operation, "_overloadpacket", None))
        if (
            formula is None
            and operation not in self._elementary
            and hasattr(operation, "decompose")
        ):
            with self:  # in inference mode, a composite operation arrives in one piece
                out = operation.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
            self._elementary.add(operation)
        out = operation(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


# Kernels of attention on a GPU. The formulas of torch refuse fewer heads of keys than of queries.
_GPU_KERNELS = ("flash", "efficient", "cudnn")


def _missing_formulas() -> dict[Any, Any]:
    """Return formulas of operations that the table of torch lacks or gets wrong."""
    formulas = {
        **{f"_scaled_dot_product_{kernel}_attention": _attention for kernel in _GPU_KERNELS},
        **{
            f"_scaled_dot_product_{kernel}_attention_backward": _attention_backward
            for kernel in _GPU_KERNELS
        },
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
        "_scaled_dot_product_fused_attention_overrideable": _attention,
        "_scaled_dot_product_fused_attention_overrideable_backward": _attention_backward,
        "mv": _vector_product,
        "addmv": _sum_and_product,
        "dot": _inner_product,
        "vdot": _inner_product,
    }
    # Some versions of torch lack some of these names.
    known = {name: formula for name, formula in formulas.items() if hasattr(torch.ops.aten, name)}
    return {getattr(torch.ops.aten, name): formula for name, formula in known.items()}


# The arguments of a formula are the shapes of the operation's tensors.


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    batch, heads, rows, width = query
    scores: int = 2 * batch * heads * rows * key[-2]
    return scores * (width + value[-1])


def _attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    # The scores once more, then the gradients of weights, values, queries and keys.
    batch, heads, rows, width = query
    scores: int = 2 * batch * heads * rows * key[-2]
    return scores * (3 * width + 2 * value[-1])


def _vector_product(matrix: Any, *_: Any, **__: Any) -> int:
    rows, columns = matrix
    return 2 * int(rows) * int(columns)


def _sum_and_product(_: Any, matrix: Any, *__: Any, **___: Any) -> int:
    return _vector_product(matrix)


def _inner_product(left: Any, *_: Any, **__: Any) -> int:
    return 2 * int(left[0])
