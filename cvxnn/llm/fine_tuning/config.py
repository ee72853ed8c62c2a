"""Settings of fine-tuning, with the paper's values as defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from cvxnn.preference.catalogue import OBJECTIVES, Objective

FINE_TUNING_OBJECTIVES = tuple(
    name for name, objective in OBJECTIVES.items() if objective.score is not None
)
"""Names of the objectives that a language model can be trained for."""

FineTuningStrategy = Literal["single", "sequential", "mix", "alright", "maxright"]
STRATEGIES: tuple[str, ...] = get_args(FineTuningStrategy)
"""Names of the strategies for training with one objective or two."""

_HYPER_PARAMETERS = ("beta", "gamma", "alpha", "weight")


@dataclass(frozen=True)
class FineTuningConfig:
    """Settings of fine-tuning; LoRA and AdamW as in tables 10 and 11 of the COALA paper.

    Parameters
    ----------
    objective : {"dpo", "sft", "orpo", "simpo", "r_dpo", "rrhf"}, default="dpo"
        Objective; see `cvxnn.preference.OBJECTIVES`. ``"sft"`` trains on the preferred replies, or
        on those given as `supervised`.
    strategy : {"single", "sequential", "mix", "alright", "maxright"}, default="single"
        Strategy. ``"single"`` trains for one objective. The others train for a preference objective
        f_1 and for supervised replies f_0:

        - ``"sequential"``: one after the other, each with its own optimiser and schedule;
        - ``"mix"``: each step on ``lam * f_1 + (1 - lam) * f_0``;
        - ``"alright"``: each step on f_1 with probability `lam`, else on f_0;
        - ``"maxright"``: each step on the larger of ``lam * (f_1 - preference_optimum)`` and
          ``(1 - lam) * (f_0 - supervised_optimum)``.
    lam : float, default=0.5
        Weight of the preferences in [0, 1]; for ``"sequential"``, their fraction of the steps.
    supervised_first : bool, default=False
        Whether ``"sequential"`` begins with the supervised replies. The reference of DPO is the
        given model in either order; to have the supervised one, fine-tune in two calls, with
        ``FineTuned.merge`` between them.
    max_evaluation_steps : int, default=10
        Interval k at which ``"maxright"`` evaluates both objectives: at the first step and at the
        steps k, 2k, 3k... (Algorithm 3). In between, the last known value stands for an objective
        that is not trained.
    preference_optimum : float, default=0.0
        Smallest value of f_1, estimated by training for it alone.
    supervised_optimum : float, default=0.0
        Smallest value of f_0, estimated by training for it alone.
    beta : float, optional
        Inverse temperature of the objective, if it has one; the default is that of `OBJECTIVES`.
    gamma : float, optional
        Margin of the objective, if it has one; the default is that of `OBJECTIVES`.
    alpha : float, optional
        Length penalty of the objective, if it has one; the default is that of `OBJECTIVES`.
    weight : float, optional
        Weight lambda of ORPO and of RRHF; the default is that of `OBJECTIVES`.
    per_token : bool, default=True
        Whether the supervised loss of a reply is divided by its length.
    trained : {"adapters", "all"}, default="adapters"
        What is trained: adapters (LoRA) beside frozen weights, or all weights. The latter needs
        weights in float32, and 16 bytes for each of them instead of a few for each hundred: the
        weight, its gradient and two moments, beside the model itself.
    lora_r : int, default=16
        Rank of the adapters.
    lora_alpha : float, default=32
        Scale of the adapters.
    lora_dropout : float, default=0.05
        Dropout of the adapters, in [0, 1]. Dropout of the model itself stays off.
    target_modules : tuple of str, optional
        Names of the layers that get adapters. By default those of table 10: ``c_attn`` and
        ``c_proj`` in GPT-2; elsewhere all linear layers of the blocks, which in LLaMA are
        ``q_proj``, ``k_proj``, ``v_proj``, ``o_proj``, ``gate_proj``, ``up_proj`` and
        ``down_proj``. Routers of experts get none, and neither do experts that are kept as one
        tensor; a warning says so.
    learning_rate : float, default=2e-4
        Largest learning rate of AdamW.
    adam_betas : tuple of (float, float), default=(0.9, 0.999)
        Decay of the two moments of AdamW.
    adam_epsilon : float, default=1e-8
        Number that AdamW adds to the denominator.
    weight_decay : float, default=0.01
        Weight decay of AdamW, at least 0.
    warmup_steps : int, default=1000
        Number of steps over which the learning rate grows linearly, at most a tenth of all steps;
        after them it falls linearly to 0.
    micro_batch : int, default=2
        Number of pairs (or replies) in one call of the model.
    accumulation : int, default=8
        Number of calls for each step.
    supervised_batch : int, optional
        Number of supervised replies in a step of a joint strategy, by default as many as pairs:
        `micro_batch` times `accumulation`.
    max_gradient_norm : float, default=1.0
        Norm to which larger gradients are clipped.
    epochs : int, default=1
        Number of passes over the data. With a joint strategy, one epoch has as many
        steps as a pass over both sets one after the other; with ``"mix"``, as a pass over the
        larger one.
    steps : int, optional
        Number of steps, in place of `epochs`.
    max_length : int, default=1024
        Largest number of tokens of prompt and reply; see `response_log_probabilities`.
    end_of_turn : bool, default=True
        Whether the token that ends a reply is learnt too.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Type of the arithmetic; ``"auto"`` is bfloat16 on a GPU and the type of the model elsewhere.
        The adapters and their optimiser are float32.
    gradient_checkpointing : bool, default=False
        Whether to compute activations twice instead of keeping them.
    evaluate_every : int, default=50
        Number of steps between evaluations of held-out data; they are also evaluated at the start
        and at the end.
    checkpoint_every : int, default=50
        Number of steps between checkpoints. One is written after 20 seconds too, or later where
        that would take more than a twentieth of the time.
    seed : int, default=0
        Seed of the adapters, the batches, dropout and the draws of ``"alright"``.

    Raises
    ------
    ValueError
        If a setting is out of range, or the objective lacks a hyper-parameter that is given.
    """

    objective: str = "dpo"
    strategy: FineTuningStrategy = "single"
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
    trained: Literal["adapters", "all"] = "adapters"
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
    supervised_batch: int | None = None
    max_gradient_norm: float = 1.0
    epochs: int = 1
    steps: int | None = None
    max_length: int = 1024
    end_of_turn: bool = True
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    evaluate_every: int = 50
    checkpoint_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("objective", self.objective, FINE_TUNING_OBJECTIVES)
        _one_of("strategy", self.strategy, STRATEGIES)
        _one_of("trained", self.trained, ("adapters", "all"))
        _one_of("dtype", self.dtype, ("auto", "float32", "bfloat16"))
        if self.strategy != "single" and self.objective == "sft":
            raise ValueError(
                f"strategy={self.strategy!r} trains on preferences and on supervised replies; "
                f"objective names the former: one of {FINE_TUNING_OBJECTIVES[1:]}"
            )
        for name in _HYPER_PARAMETERS:
            if getattr(self, name) is not None and name not in self.method.parameters:
                raise ValueError(
                    f"{name} is not a hyper-parameter of {self.objective}, which has "
                    f"{list(self.method.parameters)}; leave it out"
                )
        for name in ("lam", "lora_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        whole = ["lora_r", "micro_batch", "accumulation", "epochs", "max_evaluation_steps"]
        whole += ["evaluate_every", "checkpoint_every", *(["steps"] if self.steps else [])]
        whole += [] if self.supervised_batch is None else ["supervised_batch"]
        for name in whole:
            if getattr(self, name) < 1 or getattr(self, name) != int(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive integer")
        positive = ["learning_rate", "lora_alpha", "max_gradient_norm", "adam_epsilon"]
        positive += [name for name in ("beta",) if getattr(self, name) is not None]
        for name in positive:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number")
        for name in ("gamma", "alpha", "weight"):
            if not math.isfinite(getattr(self, name) or 0.0):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a finite number")
        if self.steps == 0 or self.warmup_steps < 0 or self.seed < 0 or self.weight_decay < 0:
            raise ValueError(
                f"steps is {self.steps}, warmup_steps {self.warmup_steps}, seed {self.seed}, "
                f"weight_decay {self.weight_decay}; expected a positive number of steps and "
                "nothing below 0"
            )

    @property
    def method(self) -> Objective:
        """Objective of the training."""
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
        """Number of pairs, or of replies of the strategy ``"single"``, in a step."""
        return self.micro_batch * self.accumulation

    def batch_of(self, paired: bool) -> int:
        """Return the number of rows in a step.

        Parameters
        ----------
        paired : bool
            Whether the rows are pairs.

        Returns
        -------
        int
            Number of pairs, or of supervised replies.
        """
        alone = paired or self.strategy == "single" or self.supervised_batch is None
        return self.batch_size if alone else int(self.supervised_batch or 0)

    def n_steps(self, n_preferences: int, n_supervised: int) -> int:
        """Return the number of steps for data of a given size.

        Parameters
        ----------
        n_preferences : int
            Number of preference pairs.
        n_supervised : int
            Number of supervised replies.

        Returns
        -------
        int
            Number of steps in all.
        """
        if self.steps is not None:
            return self.steps
        passes = n_preferences / self.batch_of(True), n_supervised / self.batch_of(False)
        batches = max(passes) if self.strategy == "mix" else sum(passes)
        return math.ceil(round(self.epochs * batches, 9))


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {choices}")
