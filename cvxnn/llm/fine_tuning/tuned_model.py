"""What fine-tuning gives: the model with its adapters, and how it came about."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cvxnn.llm.fine_tuning import adapters
from cvxnn.llm.fine_tuning.config import FineTuningConfig
from cvxnn.llm.models import LanguageModel


@dataclass(frozen=True)
class FineTuned:
    """Fine-tuned model, with the history and the costs of its training.

    Attributes
    ----------
    lm : LanguageModel
        The model with adapters, frozen, in evaluation mode. It shares the weights of the model it
        was made from, which is not changed. Where all weights were trained, it has no adapters, and
        shares nothing.
    config : FineTuningConfig
        Settings of the training.
    history : list of dict
        One entry for each step, counted from 1: ``loss``, ``learning_rate``, ``gradient_norm``,
        ``tokens`` (so far); for preference pairs ``rewards/chosen``, ``rewards/rejected``,
        ``rewards/margins`` and ``rewards/accuracies``; with two objectives ``loss/preference`` and
        ``loss/supervised`` of those that were trained. All are values for the batch before the
        update. Held-out data are evaluated after it (at step 0, before any training):
        ``eval_loss``, ``eval_rewards/...`` and ``eval_loss/supervised``.
    tokens_trained : int
        Number of tokens run through the model forward and backward, padding included: about
        ``4 * lm.n_parameters`` floating-point operations each.
    tokens_evaluated : int
        Number of tokens run through the model forward only: for the reference, for evaluations and
        for ``"maxright"``.
    seconds : float
        Duration in seconds, of all parts of an interrupted run together.
    times : list of float
        The same, at each entry of the history.
    costs : dict
        Costs of the phases ``"reference"``, ``"train"`` and ``"evaluate"``, as
        `cvxnn.costs.CostMeter.to_dict` gives them.
    base : dict
        Name, type, date and fingerprints of the model it was made from.
    """

    lm: LanguageModel
    config: FineTuningConfig
    history: list[dict[str, float]] = field(repr=False)
    tokens_trained: int
    tokens_evaluated: int
    seconds: float
    times: list[float] = field(repr=False)
    costs: dict[str, dict[str, float]] = field(repr=False)
    base: Mapping[str, object] = field(repr=False)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the adapters (as peft does), the settings and the history into a folder.

        The folder is written completely or not at all. `load_adapter` reads it. Where all weights
        were trained, it holds the whole model, and `load_model` reads it.

        Parameters
        ----------
        folder : path-like
            Folder to write; adapters that were saved there before are replaced.

        Raises
        ------
        FileExistsError
            If the folder holds something else; choose another folder.
        """
        names = ("history", "tokens_trained", "tokens_evaluated", "seconds", "costs")
        record = {name: getattr(self, name) for name in names}
        config = dataclasses.asdict(self.config)
        adapters.save_adapter(self.lm, folder, {**self.base, "config": config, **record})

    def merge(self) -> LanguageModel:
        """Return a copy of the model in which the adapters are added to the weights.

        Returns
        -------
        LanguageModel
            A model without adapters, with weights of its own.
        """
        return adapters.merge_adapter(self.lm)
