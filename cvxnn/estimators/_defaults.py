"""Values of parameters left at "auto"; see "Choosing strength and patterns" in the guide."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from cvxnn.convex.penalties import L1, FeatureGroupLasso, NeuronGroupLasso, Penalty, SquaredL2
from cvxnn.convex.program import Formulation
from cvxnn.convex.solvers.ridge.solver import Ridge

PatternsParameter = Literal["auto", "local", "adaptive", "gaussian", "data"]
PenaltyParameter = Literal["auto", "neuron", "feature", "l1", "l2"]
_PENALTIES: dict[str, type[Penalty]] = {
    "neuron": NeuronGroupLasso,
    "feature": FeatureGroupLasso,
    "l1": L1,
    "l2": SquaredL2,
}
# n_patterns="auto" of the ReLU form, where they are neurons.
_RELU_PATTERNS = 64


class Choices(NamedTuple):
    """What the "auto" parameters come to."""

    penalty: Penalty
    patterns: Literal["local", "adaptive", "gaussian", "data"]
    n_patterns: int


def choose(
    formulation: Formulation,
    penalty: PenaltyParameter,
    patterns: PatternsParameter,
    n_patterns: int | Literal["auto"],
    n: int,
    d: int,
) -> Choices:
    """Resolve what is "auto" for ``n`` rows of ``d`` inputs."""
    gated = formulation == "gated"
    if penalty == "auto":
        penalty = "l2" if gated else "neuron"
    source: Any = patterns
    if source == "auto":
        source = "gaussian" if gated else "local"
    if n_patterns == "auto":
        n_patterns = gated_patterns(n, d) if gated else _RELU_PATTERNS
    return Choices(_PENALTIES[penalty](), source, int(n_patterns))


def gated_patterns(n: int, d: int) -> int:
    """Patterns of the gated form: many, since only accuracy limits them where rows are few.

    A kernel of ``n`` rows takes ``n**2 P`` flops. Few features have few patterns worth having.
    Beyond the rows of which ``Ridge`` keeps a kernel, an output has about 4,096 weights.
    """
    if n > Ridge.max_kernel:
        return int(np.clip(4096 // d, 32, 512))
    return int(np.clip(128 * d, 256, 1024 if n <= Ridge.max_dense else 512))
