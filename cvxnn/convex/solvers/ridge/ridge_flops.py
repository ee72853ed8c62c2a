"""Operations that the ways to a solution take, and which way they choose."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

# Flops that take as long as reading a number of a stored kernel, and as masking one of a new one.
_READING, _MASKING = 15.0, 200.0


class GatedRows(Protocol):
    """Sizes of the data: an operator, or data of a ridge program."""

    @property
    def X(self) -> Any:
        """Rows of features."""

    @property
    def n_rows(self) -> int:
        """Number of equations, which may be pairs of rows."""

    @property
    def n_patterns(self) -> int:
        """Number of patterns."""


def direct_flops(data: GatedRows, n_factors: int = 1) -> tuple[float, float]:
    """Return the cost of the direct solution, by the matrix of the rows and of the weights.

    ``n_factors`` is the number of strengths, each with a factorisation.
    """
    n, (n_inputs, d), P = data.n_rows, data.X.shape, data.n_patterns
    m = float(d * P)
    dual = kernel_flops(n_inputs, d, P) + n_factors * n**3 / 3.0
    return dual, n * m**2 + n_factors * m**3 / 3.0


def kernel_flops(n: int, d: int, P: int) -> float:
    """Return the cost of the kernel of ``n`` rows, of which half is computed."""
    return float(n) * n * (d + P)


def kernel_product_flops(n: int, n_outputs: int) -> float:
    """Return the cost of a product of a stored kernel of ``n`` rows with columns."""
    return float(n) * n * (_READING + 3 * n_outputs)


def products_before_kernel(data: GatedRows, n_outputs: int) -> float:
    """Return the number of products after which a stored kernel would have been cheaper.

    It is infinite where products with the data are as cheap as those with the kernel.
    """
    (n, d), P = data.X.shape, data.n_patterns
    saved = 4.0 * n * d * P * n_outputs - kernel_product_flops(n, n_outputs)
    build = kernel_flops(n, d, P) + _MASKING * float(n) * n
    return build / saved if saved > 0 else np.inf


def takes_kernel(data: GatedRows, *, coarse: bool, max_dense: int) -> bool:
    """Return whether the direct solution factors the matrix of the rows."""
    dual, primal = direct_flops(data)
    cheaper = dual * (0.5 if coarse else 1) <= primal  # float32 is twice as fast
    few = data.X.shape[1] * data.n_patterns <= max_dense
    return not few or (cheaper and data.n_rows <= max_dense)
