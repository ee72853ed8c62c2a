"""Settings of guided decoding, and their meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from cvxnn.preference.text_checks import check_is_text

Mode = Literal["prefix", "token"]


@dataclass(frozen=True)
class Guidance:
    r"""Settings for writing a reply under the guidance of a head.

    The reply grows by continuations. Each of several candidates :math:`c_j` gets the score

    .. math:: s_j = \frac{\lambda}{|c_j|} \log p(c_j \mid \text{so far})
              + w \, (g_j - \tfrac1n \sum_k g_k),

    and one of them becomes part of the reply. :math:`p` is the language model (at temperature 1),
    :math:`|c_j|` the number of tokens, :math:`g_j` the logit of the head for the whole reply so far
    with the candidate at its end, :math:`w` is `weight` and :math:`\lambda` is `likelihood`.

    - ``"prefix"``: candidates are `segment` tokens drawn from the model (COALA, appendix F.3);
    - ``"token"``: candidates are the most likely next tokens.

    Parameters
    ----------
    mode : {"prefix", "token"}, default="prefix"
        Kind of candidates; see above.
    n_candidates : int, default=5
        Number of candidates, at least 1.
    top_p : float, default=0.9
        Only the most likely tokens whose probabilities add up to this count, in (0, 1].
    top_k : int, default=50
        At most this many tokens count; 0 stands for no limit.
    temperature : float, default=1.0
        Temperature of the distribution that `top_p` cuts and from which, in prefix mode, candidates
        are drawn; positive.
    segment : int, default=16
        In prefix mode, number of tokens by which a candidate continues the reply before it is
        scored, at least 1. With ``max_new_tokens`` or more, whole replies are scored.
    weight : float, default=1.0
        Weight of the head; 0 follows the language model alone.
    likelihood : float, default=1.0
        Weight of the language model, at least 0.
    tau : float, optional
        Draw the candidate with probabilities proportional to :math:`\exp(s_j / \tau)`; by default
        the best one is taken.
    max_new_tokens : int, default=64
        Largest number of tokens of the reply, at least 1.
    stop : sequence of str, default=()
        Strings that end the reply and are left out of it. A special token, such as
        ``"<|im_end|>"``, ends it where the token comes.
    seed : int, default=0
        Seed of candidates and draws. The same seed gives the same reply on the same device with the
        same versions of the libraries.

    Notes
    -----
    With ``mode="prefix", likelihood=0, weight=1, tau=beta``, a candidate drawn from the model is
    kept with probability proportional to :math:`\exp(g / \beta)`. As `n_candidates` grows, that
    tends to :math:`p(c) \exp(g(c) / \beta)` up to a constant: the policy that maximises the
    expected :math:`g` minus :math:`\beta` times the divergence from the model (Q-Probe, Li et al.,
    2024, where candidates are whole replies). In token mode, whose candidates are not drawn, the
    same policy on the candidates is ``likelihood=beta, weight=1, tau=beta``.

    Raises
    ------
    ValueError
        If a setting is out of range; the message names the range.
    """

    mode: Mode = "prefix"
    n_candidates: int = 5
    top_p: float = 0.9
    top_k: int = 50
    temperature: float = 1.0
    segment: int = 16
    weight: float = 1.0
    likelihood: float = 1.0
    tau: float | None = None
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode is {self.mode!r}; expected one of {get_args(Mode)}")
        least = {"n_candidates": 1, "segment": 1, "max_new_tokens": 1, "top_k": 0, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"{name} is {value!r}; expected an integer of at least {low}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p is {self.top_p}; expected 0 < top_p <= 1")
        for name in ("temperature", "tau"):
            value = getattr(self, name)
            if value is not None and not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; expected a number above 0")
        if not math.isfinite(self.weight):
            raise ValueError(f"weight is {self.weight}; expected a finite number")
        if not (self.likelihood >= 0.0 and math.isfinite(self.likelihood)):
            raise ValueError(f"likelihood is {self.likelihood}; expected a number of at least 0")
        object.__setattr__(self, "stop", check_stop(self.stop))


def check_stop(stop: str | Sequence[str]) -> tuple[str, ...]:
    """Return stop strings as a tuple.

    Parameters
    ----------
    stop : str or sequence of str
        One string, or several.

    Returns
    -------
    tuple of str
        The strings.

    Raises
    ------
    ValueError
        If one is empty or not text.
    """
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(text, str) and text for text in strings):
        raise ValueError(f"stop is {stop!r}; expected strings that are not empty")
    for i, text in enumerate(strings):
        check_is_text(text, f"stop[{i}]")
    return strings
