"""What a command will need, shown before it starts or in its place."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn.cli.console import Console

if TYPE_CHECKING:
    from cvxnn.llm.memory import MemoryPlan
    from cvxnn.preference.triplets import PreferenceTriplet, Prompt

_USES = {"embed": "embeddings", "guide": "guided replies", "fine_tune": "fine-tuning"}
_LIBRARIES = 460_000_000  # bytes of a process that has imported torch and transformers
_SETTINGS = {
    "embed": ("max_length", "batch_tokens"),
    "guide": ("max_length", "batch_tokens", "n_candidates"),
    "fine_tune": ("max_length", "lora_r", "gradient_checkpointing"),
}


def show_plan(options: argparse.Namespace, console: Console, uses: Sequence[str]) -> None:
    """Show on stderr what each use of the model takes, if the user asked for it.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments, with ``memory_plan``.
    console : Console
        Where to write.
    uses : sequence of {"embed", "guide", "fine_tune"}
        What the command does with the model.
    """
    if options.memory_plan is not None:
        console.progress(plan_text(options, uses))


def plan_text(options: argparse.Namespace, uses: Sequence[Any]) -> str:
    """Return the memory plans of several uses of a model, one below the other.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments: ``model``, ``memory_plan`` (size of the GPU in GiB), and settings such as
        ``dtype``, ``max_length`` or ``n_candidates``. A setting that is missing has the default of
        `cvxnn.llm.memory.memory_plan`.
    uses : sequence of {"embed", "guide", "fine_tune"}
        What the model is used for. ``"fine_tune"`` needs ``micro_batch`` and ``max_length``.

    Returns
    -------
    str
        Several lines.
    """
    lines = []
    for use, plan in _plans(options, uses):
        lines.append(f"memory of {_USES[use]}")
        lines += [f"  {line}" for line in plan.report(options.memory_plan).splitlines()]
    return "\n".join(lines)


def _plans(
    options: argparse.Namespace, uses: Sequence[Any], *, here: bool = False
) -> Iterator[tuple[Any, MemoryPlan]]:
    """Yield the plan of each use: in the type that runs here, or that would run on a GPU."""
    from cvxnn.llm.devices import running_type
    from cvxnn.llm.memory import memory_plan
    from cvxnn.llm.model_outline import model_outline

    settings, shape = vars(options), model_outline(options.model).shape
    dtype: Any = settings.get("dtype", "auto")
    if here:
        dtype = running_type(dtype, options.device)[0]
    for use in uses:
        chosen = {name: settings[name] for name in _SETTINGS[use] if name in settings}
        if use == "fine_tune":
            # The two replies of a pair, each with its prompt.
            chosen["batch_tokens"] = 2 * settings["micro_batch"] * settings["max_length"]
        plan = memory_plan(
            shape, method=use, dtype="bfloat16" if dtype == "auto" else dtype, **chosen
        )
        yield use, plan


def plan_only(
    options: argparse.Namespace,
    console: Console,
    uses: Sequence[Any],
    folder: Path | None = None,
    pairs: Sequence[PreferenceTriplet] = (),
    prompts: Sequence[Prompt] = (),
    tuning: Mapping[str, Callable[[], float]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Show what a command would take, without weights, and run nothing.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments, with ``memory`` in GiB; None stands for this machine.
    console : Console
        Where to write.
    uses : sequence of {"embed", "guide", "fine_tune"}
        What the command does with the model.
    folder : Path, optional
        Where it writes.
    pairs : sequence of PreferenceTriplet, optional
        Pairs that it embeds.
    prompts : sequence of (str or list of Message), optional
        Prompts that it answers.
    tuning : mapping of str to callable, optional
        Functions that count the operations of fine-tuning, by the name of the method.

    Returns
    -------
    dict
        ``fits`` and the numbers, in bytes and seconds.
    """
    from cvxnn.llm.devices import running_type
    from cvxnn.llm.model_outline import model_outline

    gib, where = options.memory, f"{options.memory or 0:g} GiB"
    if gib is None:
        gib, where = _memory_here(options)
    result: dict[str, Any] = {"status": "planned", "fits": True, "memory": []}
    note = model_outline(options.model).note
    if note:
        console.show(f"model     {note}")
    on_cpu = options.memory is None and running_type(options.dtype, options.device)[1].type == "cpu"
    for use, plan in _plans(options, uses, here=options.memory is None):
        console.show(f"{_USES[use]} in {plan.settings.dtype}")
        for line in plan.report(gib).splitlines()[:-1]:
            console.show(f"  {line}")
        fits, verdict = plan.fits(gib), f"fits in {where}"
        if not fits:
            verdict = f"does not fit in {where}: {_advice(options, use, plan, gib)}"
        if on_cpu:
            process = plan.total + _LIBRARIES
            text = f"{process / 2**30:.2f} GiB is about what the system will show of the process"
            console.show(f"  {text}, Python and its libraries included")
        console.show(f"  {verdict}")
        result["fits"] &= fits
        peak = {"process": plan.total + _LIBRARIES} if on_cpu else {}
        result["memory"].append({**plan.to_dict(), **peak})
    if options.memory is None:  # the speed of another machine is not known
        result |= _loading(options, console)
        if prompts:
            name = "writing_seconds" if "embed" in uses else "seconds"
            result[name] = _writing(options, console, prompts)
        if tuning:
            result |= _tuning(options, console, tuning)
    if "embed" in uses and pairs:
        result |= _embedding(options, console, folder, pairs)
        result["fits"] &= result["disk"] <= result["free_disk"]
    return result


def _loading(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Show how long it takes to load the model."""
    from cvxnn._progress import seconds_text
    from cvxnn.llm.devices import running_type
    from cvxnn.llm.workload import loading_seconds

    dtype, _ = running_type(options.dtype, options.device)
    seconds, converts = loading_seconds(options.model, dtype, options.model_cache)
    if seconds is None:
        console.show("loading   not known: the model may have to be fetched from the Hub")
        return {}
    hint = ", since a GGUF file is converted (--model-cache keeps the result)" if converts else ""
    console.show(f"loading   about {seconds_text(seconds)} of a free core{hint}")
    return {"loading_seconds": seconds}


def _tuning(
    options: argparse.Namespace, console: Console, tuning: Mapping[str, Callable[[], float]]
) -> dict[str, Any]:
    """Show how long each fine-tuning takes."""
    from cvxnn._progress import seconds_text
    from cvxnn.cli.model_threads import choose_threads
    from cvxnn.llm.devices import running_type
    from cvxnn.llm.model_outline import model_outline
    from cvxnn.llm.workload import measured_speed

    choose_threads(console)
    dtype, device = running_type(options.dtype, options.device)
    width = model_outline(options.model).shape.width
    speed = measured_speed(dtype, str(device), width)
    seconds = {name: count() / speed for name, count in tuning.items()}
    each = ", ".join(f"{name} {seconds_text(value)}" for name, value in seconds.items())
    total = f"about {seconds_text(sum(seconds.values()))}"
    console.show(f"tuning    {total} at the speed of this machine now ({each})")
    return {"fine_tuning_seconds": seconds}


def _writing(options: argparse.Namespace, console: Console, prompts: Sequence[Prompt]) -> float:
    """Show how long it takes to write the replies, and return the seconds."""
    from cvxnn._progress import seconds_text
    from cvxnn.cli.model_threads import choose_threads
    from cvxnn.llm.devices import running_type
    from cvxnn.llm.workload import writing_seconds

    choose_threads(console)
    dtype, device = running_type(options.dtype, options.device)
    ways = [1] * options.plain + [options.best_of] * (options.best_of > 0)
    ways += [options.n_candidates] * options.guided
    tokens = options.max_new_tokens
    seconds = writing_seconds(options.model, prompts, tokens, ways, dtype=dtype, device=str(device))
    replies = counted(len(ways) * len(prompts), "reply")
    console.show(
        f"time      about {seconds_text(seconds)} for {replies} of {counted(tokens, 'token')}, at "
        "the speed of this machine now"
    )
    return seconds


def _embedding(
    options: argparse.Namespace,
    console: Console,
    folder: Path | None,
    pairs: Sequence[PreferenceTriplet],
) -> dict[str, Any]:
    """Show tokens, seconds and disk of the embeddings."""
    import shutil

    from cvxnn._progress import seconds_text
    from cvxnn.cli.model_threads import choose_threads
    from cvxnn.comparison.texts import bytes_text
    from cvxnn.llm.devices import running_type
    from cvxnn.llm.workload import embedding_workload, measured_speed

    work = embedding_workload(
        options.model,
        pairs,
        layer=options.layer,
        max_length=options.max_length,
        context=options.context,
    )
    about = "" if work.exact else "about "
    shared = f"{about}{work.tokens:,} tokens ({work.tokens_apart:,} if prompts cannot be shared)"
    console.show(f"tokens    {shared} of {counted(len(pairs), 'pair')}, {work.cut:,} of them cut")
    result: dict[str, Any] = {"tokens": work.tokens, "tokens_apart": work.tokens_apart}
    if options.memory is None:  # the speed of another machine is not known
        choose_threads(console)
        dtype, device = running_type(options.dtype, options.device)
        speed = measured_speed(dtype, str(device), work.width)
        result["seconds"] = work.flops / speed
        console.show(
            f"time      about {seconds_text(result['seconds'])} at {speed / 1e9:.3g} GFLOP/s, the "
            "speed of this machine now"
        )
    place = Path(folder or ".").absolute()
    while not place.exists():
        place = place.parent
    result |= {"disk": work.disk, "free_disk": shutil.disk_usage(place).free}
    console.show(
        f"disk      {bytes_text(work.disk)} of {bytes_text(result['free_disk'])} that are free in "
        f"{place}"
    )
    return result


def _memory_here(options: argparse.Namespace) -> tuple[float, str]:
    """Return the memory of the device of this machine in GiB, and its name."""
    import torch

    from cvxnn.llm.devices import running_type

    _, device = running_type(options.dtype, options.device)
    if device.type == "cuda":
        gib = torch.cuda.mem_get_info(device)[1] / 2**30
        return gib, f"the {gib:.3g} GiB of {torch.cuda.get_device_name(device)}"
    try:
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        raise ValueError("this system does not report its memory; give --memory GIB") from None
    return gib, f"the {gib:.3g} GiB of this machine"


def _advice(options: argparse.Namespace, use: str, plan: MemoryPlan, gib: float) -> str:
    """Return the options with which a run fits."""
    try:
        changed = plan.advice(gib)
    except MemoryError as error:
        return str(error)
    if use == "fine_tune" and "batch_tokens" in changed:
        pair = 2 * changed.get("max_length", plan.settings.max_length)
        changed["micro_batch"] = max(changed.pop("batch_tokens") // pair, 1)
    texts = []
    for name, value in changed.items():
        flag = f"--{name.replace('_', '-')}" if hasattr(options, name) else f"{name} ="
        texts.append(flag if value is True else f"{flag} {value}")
    return f"set {' '.join(texts)}"
