"""Settings of fine-tuning, with the paper's values as defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cvxnn.preference.catalogue import OBJECTIVES, Objective

METHODS = tuple(name for name, objective in OBJECTIVES.items() if objective.score is not None)
"""Objectives that a language model can be trained for."""

STRATEGIES = ("single", "sequential", "mix", "alright", "maxright")

_HYPER_PARAMETERS = ("beta", "gamma", "alpha", "weight")


@dataclass(frozen=True)
class FineTuningConfig:
    """How a language model is fine-tuned; LoRA and AdamW as in the paper's tables 10 and 11.

    Parameters
    ----------
    objective : {"dpo", "sft", "orpo", "simpo", "r_dpo", "rrhf"}, default="dpo"
        See `cvxnn.preference.objectives`. ``"sft"`` trains on the preferred replies, or on those
        given as `supervised`.
    strategy : {"single", "sequential", "mix", "alright", "maxright"}, default="single"
        ``"single"`` has the one objective. The others train for a preference objective and for
        supervised replies, f_1 and f_0:

        - ``"sequential"``: one after the other, each with an optimiser and a schedule of its own;
        - ``"mix"``: each step on ``lam * f_1 + (1 - lam) * f_0``;
        - ``"alright"``: each step on f_1 with probability `lam`, else on f_0;
        - ``"maxright"``: each step on the larger of ``lam * (f_1 - preference_optimum)`` and
          ``(1 - lam) * (f_0 - supervised_optimum)``.
    lam : float, default=0.5
        Weight of the preferences in [0, 1]; for ``"sequential"`` their share of the steps.
    supervised_first : bool, default=False
        Order of ``"sequential"``. The reference of DPO is the given model in any order: to have
        the supervised one, fine-tune in two calls, with ``FineTuned.merge`` between them.
    max_evaluation_steps : int, default=10
        ``"maxright"`` evaluates both objectives every so many steps. In between, the value of one
        that is not trained is the last one known.
    preference_optimum, supervised_optimum : float, default=0.0
        Least values of f_1 and f_0, estimated by training for each alone.
    beta, gamma, alpha, weight : float, optional
        Hyper-parameters of the objective, where it has them; the default is that of `OBJECTIVES`.
        `weight` is the lambda of ORPO and of RRHF.
    per_token : bool, default=True
        Whether the supervised loss of a reply is divided by its length.
    lora_r, lora_alpha, lora_dropout : int, float, float, default=16, 32, 0.05
        Rank, scale and dropout of the adapters. Dropout of the model itself stays off.
    target_modules : tuple of str, optional
        Names of the layers that get adapters. By default those of table 10: ``c_attn`` and
        ``c_proj`` in GPT-2, elsewhere ``q_proj``, ``k_proj``, ``v_proj``, ``o_proj``,
        ``gate_proj``, ``up_proj`` and ``down_proj`` as far as they exist, and all linear layers of
        models that have none of these.
    learning_rate : float, default=2e-4
    adam_betas : tuple of float, default=(0.9, 0.999)
    adam_epsilon : float, default=1e-8
    weight_decay : float, default=0.01
    warmup_steps : int, default=1000
        The learning rate grows linearly over these steps, at most a tenth of all, and then falls
        linearly to 0.
    micro_batch : int, default=2
        Pairs (or replies) in one call of the model.
    accumulation : int, default=8
        Calls a step.
    max_gradient_norm : float, default=1.0
    epochs : int, default=1
        Passes over the data. With a joint strategy, one epoch has as many steps as a pass over
        both sets one after the other; with ``"mix"``, as a pass over the larger one.
    steps : int, optional
        Number of steps, instead of `epochs`.
    max_length : int, default=1024
        Tokens of prompt and reply; see `response_log_probabilities`.
    end_of_turn : bool, default=True
        Whether the token that ends a reply is learnt too.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Type of the arithmetic; ``"auto"`` is bfloat16 on a GPU and the model's own elsewhere. The
        adapters and their optimiser are float32.
    gradient_checkpointing : bool, default=False
        Compute activations twice rather than keep them.
    evaluate_every : int, default=50
        Steps between evaluations of held-out data; there is one at the start and at the end too.
    checkpoint_every : int, default=50
        Steps between checkpoints.
    seed : int, default=0
        Of the adapters, the batches, dropout and the draws of ``"alright"``.

    Raises
    ------
    ValueError
        If a setting is out of range, or `beta` etc. are no hyper-parameters of the objective.
    """

    objective: str = "dpo"
    strategy: str = "single"
    lam: float = 0.5
    supervised_first: bool = False
    max_evaluation_steps: int = 10
    preference_optimum: float = 0.0
    supervised_optimum: float = 0.0
    beta: float | None = None
    gamma: float | None = None
    alpha: float | None = None
    weight: float | None = None
    per_token: bool = True
    lora_r: int = 16
    lora_alpha: float = 32
    lora_dropout: float = 0.05
    target_modules: tuple[str, ...] | None = None
    learning_rate: float = 2e-4
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.01
    warmup_steps: int = 1000
    micro_batch: int = 2
    accumulation: int = 8
    max_gradient_norm: float = 1.0
    epochs: int = 1
    steps: int | None = None
    max_length: int = 1024
    end_of_turn: bool = True
    dtype: str = "auto"
    gradient_checkpointing: bool = False
    evaluate_every: int = 50
    checkpoint_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("objective", self.objective, METHODS)
        _one_of("strategy", self.strategy, STRATEGIES)
        _one_of("dtype", self.dtype, ("auto", "float32", "bfloat16"))
        if self.strategy != "single" and self.objective == "sft":
            raise ValueError(
                f"strategy={self.strategy!r} trains on preferences and on supervised replies; "
                f"objective names the former: one of {METHODS[1:]}"
            )
        for name in _HYPER_PARAMETERS:
            if getattr(self, name) is not None and name not in self.method.parameters:
                raise ValueError(
                    f"{name} is no hyper-parameter of {self.objective}, which has "
                    f"{list(self.method.parameters)}; leave it out"
                )
        for name in ("lam", "lora_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        whole = ["lora_r", "micro_batch", "accumulation", "epochs", "max_evaluation_steps"]
        whole += ["evaluate_every", "checkpoint_every", *(["steps"] if self.steps else [])]
        for name in whole:
            if getattr(self, name) < 1 or getattr(self, name) != int(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive integer")
        positive = ["learning_rate", "lora_alpha", "max_gradient_norm", "adam_epsilon"]
        positive += [name for name in ("beta",) if getattr(self, name) is not None]
        for name in positive:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        if self.steps == 0 or self.warmup_steps < 0 or self.seed < 0 or self.weight_decay < 0:
            raise ValueError(
                f"steps is {self.steps}, warmup_steps {self.warmup_steps}, seed {self.seed}, "
                f"weight_decay {self.weight_decay}; expected a positive number of steps and "
                "nothing below 0"
            )

    @property
    def method(self) -> Objective:
        """The objective."""
        return OBJECTIVES[self.objective]

    @property
    def parameters(self) -> Mapping[str, float]:
        """Hyper-parameters of the objective."""
        given = {name: getattr(self, name) for name in _HYPER_PARAMETERS}
        return {
            name: default if given[name] is None else given[name]
            for name, default in self.method.parameters.items()
        }

    @property
    def batch_size(self) -> int:
        """Pairs, or replies, a step."""
        return self.micro_batch * self.accumulation

    def n_steps(self, n_preferences: int, n_supervised: int) -> int:
        """Number of steps in all, for data of this size."""
        if self.steps is not None:
            return self.steps
        larger, sum_ = max(n_preferences, n_supervised), n_preferences + n_supervised
        rows = larger if self.strategy == "mix" else sum_
        return math.ceil(self.epochs * rows / self.batch_size)


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {choices}")
