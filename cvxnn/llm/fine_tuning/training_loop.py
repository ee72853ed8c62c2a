"""Loop in which every method and every strategy is trained.

The trainers of transformers and TRL neither choose the objective of each step nor resume to the
bit. Here, everything that a step does follows from the seed, its number and the checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

from cvxnn._progress import Progress
from cvxnn.costs.meter import CostMeter
from cvxnn.files.digests import digest
from cvxnn.files.locks import locked
from cvxnn.llm.fine_tuning import adapters
from cvxnn.llm.fine_tuning.config import FineTuningConfig
from cvxnn.llm.fine_tuning.joint_strategies import Stage, gap, stages, weigh_objectives
from cvxnn.llm.fine_tuning.processes import Processes
from cvxnn.llm.fine_tuning.reference_scores import reference_scores
from cvxnn.llm.fine_tuning.run_checkpoint import RunState, read_state, restore, write_checkpoint
from cvxnn.llm.fine_tuning.side import Side
from cvxnn.llm.fine_tuning.training_data import (
    Supervised,
    preference_side,
    supervised_side,
    training_sides,
)
from cvxnn.llm.fine_tuning.tuned_model import FineTuned
from cvxnn.llm.identity import describe_model
from cvxnn.llm.models import LanguageModel, seeded
from cvxnn.llm.response_scorer import ResponseScorer
from cvxnn.preference.metrics import reward_metrics
from cvxnn.preference.triplets import PreferenceTriplet

_CHECKPOINT = "checkpoint.safetensors"
_FREE = ("checkpoint_every", "gradient_checkpointing")  # a run may continue with other values
_CHECKPOINT_SECONDS = 20.0  # of training that a killed run may lose, beside a step
_CHECKPOINT_SHARE = 0.05  # of the time at most that these checkpoints take
_DROPOUT = 3  # sets these random numbers apart from those of batches and strategies
_EVALUATION_TOKENS = 2048


def fine_tune(
    lm: LanguageModel,
    config: FineTuningConfig | None = None,
    *,
    preferences: Sequence[PreferenceTriplet] | None = None,
    supervised: Supervised | None = None,
    held_out: Sequence[PreferenceTriplet] | None = None,
    held_out_supervised: Supervised | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[dict[str, float]], object] = False,
) -> FineTuned:
    """Fine-tune a language model for a preference objective, for replies, or for both.

    The reference of DPO and R-DPO is the given model: its log-probabilities are computed once. By
    LoRA, the default, there is never a second copy of the weights.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode. It is not changed.
    config : FineTuningConfig, optional
        Settings; the defaults of `FineTuningConfig` if not given.
    preferences : sequence of PreferenceTriplet, optional
        Preference pairs. All objectives need them but ``"sft"``, which learns their preferred
        replies.
    supervised : sequence of (prompt, reply), optional
        Replies to learn. All strategies need them but ``"single"``; ``"sft"`` takes them in place
        of preferences.
    held_out : sequence of PreferenceTriplet, optional
        Preference pairs that are only evaluated, every ``config.evaluate_every`` steps.
    held_out_supervised : sequence of (prompt, reply), optional
        Replies that are only evaluated, every ``config.evaluate_every`` steps.
    folder : path-like, optional
        Folder for a checkpoint and for the log-probabilities of the reference. The same call after
        an interruption continues from there and gives the same numbers, to the last bit, as without
        the interruption (on the same machine with as many threads; on a GPU as far as its kernels
        are deterministic). Once the run is finished, the call returns its result. A second process
        with the same folder waits until the first ends.
    progress : bool or callable, default=False
        Whether to show a bar on stderr; a callable gets each entry of the history. One that returns
        True for an entry with an evaluation ends the run there, for good.

    Returns
    -------
    FineTuned
        The model with adapters, and the history of its training.

    Raises
    ------
    ValueError
        If data are missing, empty, not needed or malformed; if the model has adapters already, is
        float16 or in training mode; if the folder has a checkpoint that is damaged or of another
        run; if processes were called with different arguments. The message has the remedy.
    FloatingPointError
        If the loss or its gradient is not finite; the message has a learning rate to try.

    Notes
    -----
    Where ``accelerate launch`` or ``torchrun`` started several processes and each has called
    ``accelerate.PartialState()``, they share the pairs of each step, of the reference and of
    evaluations. All get the model and the history of one process, to rounding, unless the adapters
    have dropout. The first one shows progress and writes `folder`, which all read. Costs are those
    of one process.

    Examples
    --------
    >>> from cvxnn.llm import FineTuningConfig, fine_tune, load_model
    >>> config = FineTuningConfig(objective="dpo", beta=0.1)
    >>> tuned = fine_tune(load_model(), config, preferences=pairs)              # doctest: +SKIP
    >>> tuned.history[-1]["rewards/accuracies"]                                 # doctest: +SKIP
    """
    config = FineTuningConfig() if config is None else config
    if lm.model.training:
        raise ValueError("the model is in training mode (dropout is on); call model.eval() first")
    adapters.arithmetic(lm, config)  # refuses weights that are too coarse, before anything else
    data = training_sides(lm, config, preferences, supervised)
    if held_out is not None:
        side = preference_side(lm, held_out, config)
        data["held-out preference"] = dataclasses.replace(side, held_out=True)
    if held_out_supervised is not None:
        side = supervised_side(lm, held_out_supervised, config)
        data["held-out supervised"] = dataclasses.replace(side, held_out=True)
    base = describe_model(lm)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in _FREE}
    settings["model"] = base["fingerprints"]["exact"]
    settings["data"] = {name: side.digest for name, side in data.items()}
    processes = Processes.connected()
    if len({digest(known) for known in processes.gather(settings)}) > 1:
        raise ValueError(
            "the processes of this run have different settings, models or data; call fine_tune "
            "with the same in all of them"
        )
    path = None if folder is None else Path(folder)
    with contextlib.ExitStack() as stack:
        if path is not None and processes.number == 0:
            stack.enter_context(locked(path / _CHECKPOINT))
        processes.wait()
        return _fine_tune(lm, config, data, settings, base, path, progress, processes)


def _fine_tune(
    lm: LanguageModel,
    config: FineTuningConfig,
    data: dict[str, Side],
    settings: dict[str, object],
    base: Mapping[str, object],
    folder: Path | None,
    progress: bool | Callable[[dict[str, float]], object],
    processes: Processes,
) -> FineTuned:
    autocast = adapters.arithmetic(lm, config)
    path, state, fresh = None, RunState(), True
    if folder is not None:
        path = folder / _CHECKPOINT
        fresh = not path.exists()
        if not fresh:
            state = RunState(**read_state(path, settings))
    meter = CostMeter.from_dict(state.costs)
    adapted = adapters.trainable_model(lm, config)
    for name, side in data.items():
        if side.paired and side.objective.needs_reference:
            # Both replies of a pair stay together: they share their prompt.
            own = [i for row in processes.own(range(len(side))) for i in (2 * row, 2 * row + 1)]
            items = [side.items[i] for i in own]
            sums, n = np.zeros(len(side.items)), 0
            if items:
                sums[own], n, costs = reference_scores(
                    lm,
                    items,
                    "evaluate" if side.held_out else "reference",
                    folder=folder,
                    autocast=autocast,
                    fresh=fresh,
                    writes=processes.number == 0,
                )
                meter = meter.merge(costs)
            data[name] = dataclasses.replace(side, reference=processes.sum_rows(sums))
            state.tokens_evaluated += processes.sum(n)
    scorer = ResponseScorer(adapted, autocast=autocast)
    run = _Run(adapted, config, data, state, scorer, meter, processes)
    parts = stages(config, {name: len(side) for name, side in data.items() if not side.held_out})
    shown = progress if processes.number == 0 else False
    with _listener(shown, parts[-1].stop, state.step) as tell:
        run.train(parts, path, settings, tell)
    adapted.model.requires_grad_(False)
    return FineTuned(
        adapted,
        config,
        state.history,
        state.tokens_trained,
        state.tokens_evaluated,
        state.seconds,
        state.times,
        meter.to_dict(),
        base,
    )


@dataclass(frozen=True)
class _Run:
    lm: LanguageModel
    config: FineTuningConfig
    data: dict[str, Side]
    state: RunState
    scorer: ResponseScorer
    meter: CostMeter
    processes: Processes

    def train(
        self,
        parts: list[Stage],
        path: Path | None,
        settings: dict[str, object],
        tell: Callable[[dict[str, float]], object],
    ) -> None:
        """Train from the current step to the end of the run."""
        config, state = self.config, self.state
        began = time.perf_counter() - state.seconds
        weights = adapters.trained_weights(self.lm)
        writes = path is not None and self.processes.number == 0
        resumed = path is not None and bool(state.history)
        if not resumed and any(side.held_out for side in self.data.values()):
            state.history.append({"step": 0, **self._evaluate()})
            state.times.append(time.perf_counter() - began)
            tell(state.history[-1])
        n_steps = parts[-1].stop
        kept, duration = time.perf_counter(), 0.0  # time of the last checkpoint
        for stage in [stage for stage in parts if state.step < stage.stop or stage is parts[-1]]:
            optimizer, schedule = self._begin(stage, list(weights.values()))
            if resumed and path is not None:
                restore(path, weights, optimizer if state.step > stage.start else None)
                resumed = False
            elif path is not None and writes and state.step == 0 and state.history:
                state.seconds, state.costs = time.perf_counter() - began, self.meter.to_dict()
                write_checkpoint(path, weights, optimizer, settings, dataclasses.asdict(state))
            while state.step < stage.stop and not state.stopped:
                with self.meter.phase("train"):
                    entry = self._step(stage, optimizer, schedule)
                finished = state.step == n_steps
                evaluated = finished or state.step % config.evaluate_every == 0
                if evaluated:
                    entry.update(self._evaluate())
                state.history.append(entry)
                state.seconds = time.perf_counter() - began
                state.times.append(state.seconds)
                state.costs = self.meter.to_dict()
                now = time.perf_counter()
                late = now - kept >= max(_CHECKPOINT_SECONDS, duration / _CHECKPOINT_SHARE)
                due = finished or late or state.step % config.checkpoint_every == 0
                if path is not None and writes and due:
                    write_checkpoint(path, weights, optimizer, settings, dataclasses.asdict(state))
                    kept = time.perf_counter()
                    duration = kept - now
                told = bool(tell(entry))
                if evaluated and any(self.processes.gather(told)):
                    state.stopped = True
                    if path is not None and writes:
                        values = dataclasses.asdict(state)
                        write_checkpoint(path, weights, optimizer, settings, values)

    def _begin(
        self, stage: Stage, weights: list[torch.nn.Parameter]
    ) -> tuple[torch.optim.Optimizer, Callable[[int], float]]:
        """Return a new optimiser, and the factor of the learning rate by step of the stage."""
        config, n_steps = self.config, stage.stop - stage.start
        optimizer = torch.optim.AdamW(
            weights,
            lr=config.learning_rate,
            betas=config.adam_betas,
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
        )
        schedule = transformers.get_scheduler(
            "linear",
            optimizer,
            num_warmup_steps=min(config.warmup_steps, n_steps // 10),
            num_training_steps=n_steps,
        )
        return optimizer, schedule.lr_lambdas[0]

    def _step(
        self, stage: Stage, optimizer: torch.optim.Optimizer, schedule: Callable[[int], float]
    ) -> dict[str, float]:
        config, state = self.config, self.state
        step = state.step - stage.start
        rows = {
            side: self.data[side].batch(step, config, n_rows=stage.n_rows) for side in stage.sides
        }
        chosen = weigh_objectives(
            config, stage, state.step, state.gaps, lambda side: self._value(side, rows[side])
        )
        rate = config.learning_rate * schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses: dict[str, float] = {}
        rewards: dict[str, float] = {}
        with self._dropout():
            for side, weight in chosen.items():
                losses[side], found = self._accumulate(side, rows[side], weight)
                rewards.update(found)
        loss = sum(weight * losses[side] for side, weight in chosen.items())
        parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.processes.add_gradients(parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm))
        state.step += 1
        self._check(loss=loss, gradient_norm=norm)
        optimizer.step()
        optimizer.zero_grad()  # gradients take as much memory as the adapters, and have no more use
        if config.strategy == "maxright":
            state.gaps.update({side: gap(config, side, value) for side, value in losses.items()})
        entry = {"step": state.step, "loss": loss}
        if config.strategy != "single":
            entry.update({f"loss/{side}": value for side, value in losses.items()})
        entry.update(learning_rate=rate, gradient_norm=norm, tokens=state.tokens_trained)
        return {**entry, **rewards}

    def _accumulate(
        self, side: str, rows: list[int], weight: float
    ) -> tuple[float, dict[str, float]]:
        """Add the gradient of the weighted mean loss of rows; return the mean and the rewards."""
        data, before = self.data[side], self.scorer.tokens_computed
        total, rewards = 0.0, []
        own = list(self.processes.own(rows))
        for part in data.micro_batches(own, self.config.micro_batch):
            losses, arrays = data.losses(self.scorer, part)
            (losses.sum() * (weight / len(rows))).backward()
            total += float(losses.detach().double().sum())
            if data.paired:
                rewards.append(data.rewards(arrays))
        self.state.tokens_trained += self.processes.sum(self.scorer.tokens_computed - before)
        found = self.processes.gather((total, rewards))
        rewards = [part for _, parts in found for part in parts]
        means = reward_metrics(*np.concatenate(rewards, axis=1)) if rewards else {}
        return sum(part for part, _ in found) / len(rows), means

    def _value(self, side: str, rows: list[int]) -> float:
        before = self.scorer.tokens_computed
        value, _ = self.data[side].evaluate(self.scorer, _EVALUATION_TOKENS, rows, self.processes)
        self.state.tokens_evaluated += self.processes.sum(self.scorer.tokens_computed - before)
        return value

    def _evaluate(self) -> dict[str, float]:
        """Return losses and rewards of held-out data."""
        before, entry = self.scorer.tokens_computed, {}
        for side in self.data.values():
            if side.held_out:
                with self.meter.phase("evaluate"):
                    loss, rewards = side.evaluate(
                        self.scorer, _EVALUATION_TOKENS, processes=self.processes
                    )
                entry["eval_loss" if side.paired else "eval_loss/supervised"] = loss
                entry.update({f"eval_{key}": value for key, value in rewards.items()})
        self.state.tokens_evaluated += self.processes.sum(self.scorer.tokens_computed - before)
        self._check(**entry)
        return entry

    def _check(self, **values: float) -> None:
        rate = self.config.learning_rate
        for name, value in values.items():
            if not np.isfinite(value):
                raise FloatingPointError(
                    f"{name} is {value:g} at step {self.state.step}: training diverged; try "
                    f"learning_rate={rate / 10:g} instead of {rate:g} (in another folder)"
                )

    @contextlib.contextmanager
    def _dropout(self) -> Iterator[None]:
        """Switch on the dropout of the adapters, seeded by the run, the step and the process."""
        number = [self.processes.number] if self.processes.number else []
        seed = np.random.SeedSequence([self.config.seed, _DROPOUT, self.state.step, *number])
        adapters.set_dropout(self.lm, True)
        try:
            with seeded(self.lm.device, int(seed.generate_state(1, np.uint32)[0])):
                yield
        finally:
            adapters.set_dropout(self.lm, False)


@contextlib.contextmanager
def _listener(
    progress: bool | Callable[[dict[str, float]], object], n_steps: int, step: int
) -> Iterator[Callable[[dict[str, float]], object]]:
    if callable(progress):
        yield progress
        return
    with Progress("fine-tuning", n_steps, "steps", show=bool(progress), done=step) as bar:

        def tell(entry: dict[str, float]) -> None:
            if "loss" in entry:
                bar.update(note=f"loss {entry['loss']:.4f}")

        yield tell
