"""Programs on the host: as NumPy arrays, with stored rows read into memory where asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.arrays import is_sparse, map_leaves
from cvxnn.numerics.stored_rows import is_stored


def on_host(program: ConvexProgram, dtype: Any = None) -> ConvexProgram:
    """Give the same program as NumPy arrays, floats in ``dtype`` if given.

    Parameters
    ----------
    program : ConvexProgram
        Program with arrays of any kind.
    dtype : dtype, optional
        Precision of all floats; by default they keep theirs.
    """

    def convert(leaf: Any) -> Any:
        array = leaf if is_sparse(leaf) or is_stored(leaf) else np.asarray(leaf)
        floating = np.issubdtype(array.dtype, np.floating)
        return array.astype(dtype, copy=False) if floating and dtype is not None else array

    return map_leaves(convert, program)


def read(program: ConvexProgram) -> ConvexProgram:
    """Give the same program with its rows in memory, if they are stored.

    Parameters
    ----------
    program : ConvexProgram
        Program on the host.
    """
    operator = program.operator
    if not is_stored(operator.X):
        return program
    return replace(program, operator=replace(operator, X=np.asarray(operator.X)))
