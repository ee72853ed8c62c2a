"""Where the weights of a language model lie, and the type of their numbers."""

from __future__ import annotations

import torch


def running_type(
    dtype: str | torch.dtype = "auto", device: str = "auto"
) -> tuple[torch.dtype, torch.device]:
    """Return the type of the weights and the device that `load_model` takes on this machine.

    Parameters
    ----------
    dtype : str or torch.dtype, default="auto"
        As for `load_model`.
    device : str, default="auto"
        As for `load_model`.

    Returns
    -------
    dtype : torch.dtype
        Type of the weights.
    device : torch.device
        Their device.

    Raises
    ------
    ValueError
        If `dtype` is not a floating-point type, or there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device is {device!r}; expected 'auto', 'cpu' or 'cuda', or another name of PyTorch"
        ) from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {device!r}, but PyTorch {torch.__version__} finds no GPU here; use 'cpu' "
            "or 'auto', or install a build of PyTorch for this GPU and its driver"
        )
    return _resolve_dtype(dtype, where), where


def _resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, str):
        if dtype == "auto":
            if device.type != "cuda":
                dtype = "float32"
            else:
                dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        dtype = getattr(torch, dtype, dtype)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(
            f"dtype is {dtype!r}; expected 'auto', 'float32', 'float16', 'bfloat16' "
            "or a torch dtype"
        )
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a type of torch.

    Parameters
    ----------
    dtype : torch.dtype
        The type.

    Returns
    -------
    str
        The name without the package, such as ``"float32"``.
    """
    return str(dtype).removeprefix("torch.")
