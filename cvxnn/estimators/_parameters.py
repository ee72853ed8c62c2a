"""Parameters of the estimators: their check, and the values that "auto" stands for.

The user guide says how the automatic values were chosen ("Choosing strength and patterns").
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from cvxnn import convex
from cvxnn.convex.patterns import Formulation

PatternsParameter = Literal["auto", "local", "adaptive", "gaussian", "data", "thresholds", "all"]
PenaltyParameter = Literal["auto", "neuron", "feature", "l1", "l2"]
# Numbers that gates and weights of an automatic gated network have at most.
MOST_NUMBERS = 2**25
# Entries of the mask of an automatic gated network: from 131,072 rows on, patterns are fewer.
_MASK_NUMBERS = 2**26
# n_patterns="auto" of the ReLU formulation, where each pattern allows two neurons.
_RELU_PATTERNS = 64
# Most of patterns="all": some ten seconds of interior point.
_ALL_PATTERNS = 4096


class Number(NamedTuple):
    """What a numeric parameter may be.

    Attributes
    ----------
    kind : type
        ``Real`` or ``Integral`` of the module ``numbers``; here, a bool is neither.
    low : float
        Smallest value.
    closed : bool
        Whether ``low`` itself is allowed.
    words : tuple
        Values that are no numbers and are allowed too, such as "auto", None or True.
    """

    kind: Any
    low: float = 0
    closed: bool = True
    words: tuple[Any, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raise a ValueError that names the parameter, its value and what was expected.

        Parameters
        ----------
        name : str
            Name of the parameter.
        value : object
            Its value.
        """
        if value is None or isinstance(value, str | bool):
            fits = value in self.words
        else:
            fits = bool(isinstance(value, self.kind) and np.isfinite(value))
            fits = fits and (value > self.low or (self.closed and value == self.low))
        if not fits:
            what = "an integer" if self.kind is Integral else "a number"
            bound = "at least" if self.closed else "above"
            words = "".join(f", or {word!r}" for word in self.words)
            raise ValueError(f"{name}={value!r}; expected {what} {bound} {self.low}{words}.")


def check_parameters(
    estimator: Any,
    numbers: Mapping[str, Number],
    choices: Mapping[str, tuple[Any, ...]],
    objects: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Check the parameters of an estimator against tables of what they may be.

    Parameters
    ----------
    estimator : estimator
        Its attributes are looked up by name.
    numbers : mapping from str to Number
        Numeric parameters.
    choices : mapping from str to tuple
        Parameters that are one of several values.
    objects : mapping from str to str
        Protocols of ``cvxnn.convex`` whose objects a choice may be instead, such as "Loss".

    Raises
    ------
    ValueError
        For the first parameter that does not fit.
    """
    for name, number in numbers.items():
        number.check(name, getattr(estimator, name))
    for name, words in choices.items():
        value = getattr(estimator, name)
        own = objects.get(name)
        if own is None or isinstance(value, str | None):
            fits = np.ndim(value) == 0 and value in words
        else:
            fits = isinstance(value, getattr(convex, own)) and not isinstance(value, type)
        if not fits:
            more = f", or a {own} of cvxnn.convex or of your own" if own else ""
            raise ValueError(f"{name}={value!r}; expected one of {words}{more}.")


class Choices(NamedTuple):
    """Penalty, patterns and their number, with "auto" resolved.

    Attributes
    ----------
    penalty : Penalty
        The penalty of the program.
    patterns : {"local", "adaptive", "gaussian", "data", "thresholds", "all"}
        Where the activation patterns come from; ``"gaussian"`` where leave-one-out chooses between
        them and thresholds.
    n_patterns : int
        How many of them are asked for; the most that ``"all"`` may be.
    """

    penalty: convex.Penalty
    patterns: Literal["local", "adaptive", "gaussian", "data", "thresholds", "all"]
    n_patterns: int


def resolve(
    formulation: Formulation,
    penalty: PenaltyParameter | convex.Penalty,
    patterns: PatternsParameter,
    n_patterns: int | Literal["auto"],
    n: int,
    d: int,
    n_outputs: int = 1,
) -> Choices:
    """Resolve what is "auto".

    Parameters
    ----------
    formulation : {"relu", "gated"}
        Of the estimator.
    penalty, patterns, n_patterns : object
        Parameters of the estimator, which may be "auto".
    n, d : int
        Number of rows, and of inputs as the network sees them.
    n_outputs : int, default=1
        Number of outputs.
    """
    gated = formulation == "gated"
    if penalty == "auto":
        penalty = "l2" if gated else "neuron"
    if patterns == "auto":
        patterns = "gaussian" if gated else "local"
    if n_patterns == "auto" and patterns == "all":
        n_patterns = _ALL_PATTERNS
    elif n_patterns == "auto":
        n_patterns = gated_patterns(n, d, n_outputs) if gated else _RELU_PATTERNS
    penalties: dict[str, type[convex.Penalty]] = {
        "neuron": convex.NeuronGroupLasso,
        "feature": convex.FeatureGroupLasso,
        "l1": convex.L1,
        "l2": convex.SquaredL2,
    }
    chosen = penalties[penalty]() if isinstance(penalty, str) else penalty
    return Choices(chosen, patterns, int(n_patterns))


def check_memory(
    choices: Choices, n: int, d: int, n_outputs: int, itemsize: int, *, formulation: Formulation
) -> None:
    """Refuse patterns that this machine's memory cannot hold, before any is drawn.

    Parameters
    ----------
    choices : Choices
        What was chosen.
    n, d, n_outputs : int
        Number of rows, inputs and outputs.
    itemsize : int
        Bytes of a number.
    formulation : {"relu", "gated"}
        Of the estimator.

    Raises
    ------
    ValueError
        The message says how many patterns it could hold.
    """
    if choices.patterns == "all":  # which counts them first
        return
    blocks = n_outputs * (2 if formulation == "relu" else 1)
    numbers = d * (1 + blocks)  # a gate and its weights
    if formulation == "relu":
        numbers += 2 * n * blocks  # scores and multipliers of the cones
    size = itemsize * numbers + n  # and a byte of the mask for each row
    memory = _memory()
    if choices.n_patterns * size > memory:
        raise ValueError(
            f"n_patterns={choices.n_patterns}: so many gates, weights and masks of {n} rows and "
            f"{d} inputs take {choices.n_patterns * size / 2**30:.3g} GiB, and this machine has "
            f"{memory / 2**30:.3g} GiB; set n_patterns to at most {max(memory // size, 1)}, or to "
            "'auto'."
        )


def _memory() -> int:
    """Return the bytes of memory of this machine; 64 GiB where the system does not report them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**36


def gated_patterns(n: int, d: int, n_outputs: int = 1) -> int:
    """Return the automatic number of gated patterns.

    Patterns are many, since only accuracy limits them where rows are few. A kernel of ``n`` rows
    takes ``n**2 P`` flops. Few features have few patterns worth having. A mask has
    at most 2**26 entries, unless that were fewer than 32 patterns. Where inputs or outputs are very
    many, memory limits gates and weights together to 2**25 numbers, 256 MiB in float64; a fit
    holds about three times as much.

    Parameters
    ----------
    n, d : int
        Number of rows, and of inputs as the network sees them.
    n_outputs : int, default=1
        Number of outputs.
    """
    most = max(MOST_NUMBERS // (d * (1 + n_outputs)), 1)
    wanted = int(np.clip(128 * d, 256, 1024 if n <= convex.Ridge.max_dense else 512))
    return min(wanted, most, max(_MASK_NUMBERS // n, 32))
