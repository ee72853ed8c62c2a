"""Training data as tokens: preference pairs and replies become the sides of a training."""

from __future__ import annotations

from collections.abc import Sequence

from cvxnn._messages import warn
from cvxnn.llm.fine_tuning.config import FineTuningConfig
from cvxnn.llm.fine_tuning.joint_strategies import PREFERENCE, SUPERVISED
from cvxnn.llm.fine_tuning.side import Side
from cvxnn.llm.log_probabilities import encode_pairs
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item
from cvxnn.preference.catalogue import OBJECTIVES
from cvxnn.preference.triplets import PreferenceTriplet, Prompt

Supervised = Sequence[tuple[Prompt, str]]
"""Prompts with the replies to learn."""


def training_sides(
    lm: LanguageModel,
    config: FineTuningConfig,
    preferences: Sequence[PreferenceTriplet] | None,
    supervised: Supervised | None,
) -> dict[str, Side]:
    """Return the objectives of a run, each with its data.

    Parameters
    ----------
    lm : LanguageModel
        The model, for its tokens.
    config : FineTuningConfig
        Settings of the run.
    preferences : sequence of PreferenceTriplet or None
        Preference pairs.
    supervised : sequence of (prompt, reply) or None
        Replies to learn.

    Returns
    -------
    dict of str to Side
        One objective or two, by name.

    Raises
    ------
    ValueError
        If data are missing, or not needed; the message says which.
    """
    if config.strategy != "single":
        if preferences is None or supervised is None:
            raise ValueError(
                f"strategy={config.strategy!r} needs preferences=[PreferenceTriplet, ...] and "
                "supervised=[(prompt, reply), ...]"
            )
    elif config.objective != "sft":
        if preferences is None or supervised is not None:
            raise ValueError(
                f"objective={config.objective!r} alone needs preferences=[PreferenceTriplet, ...] "
                "and takes no supervised; to train for both choose another strategy"
            )
    elif (preferences is None) == (supervised is None):
        raise ValueError(
            "objective='sft' needs either preferences, whose preferred replies it learns, or "
            "supervised=[(prompt, reply), ...]"
        )
    sides = {}
    if config.objective == "sft" and preferences is not None:
        supervised = [(triplet.prompt, triplet.chosen) for triplet in preferences]
    elif preferences is not None:
        sides[PREFERENCE] = preference_side(lm, preferences, config)
    if supervised is not None:
        sides[SUPERVISED] = supervised_side(lm, supervised, config)
    return sides


def preference_side(
    lm: LanguageModel, preferences: Sequence[PreferenceTriplet], config: FineTuningConfig
) -> Side:
    """Encode preference pairs for the objective of a run.

    Parameters
    ----------
    lm : LanguageModel
        The model, for its tokens.
    preferences : sequence of PreferenceTriplet
        The pairs.
    config : FineTuningConfig
        Settings of the run.

    Returns
    -------
    Side
        The objective with the tokens.

    Raises
    ------
    ValueError
        If there is no pair, a pair is not a triplet or has equal or empty replies, or all pairs are
        equal once they are cut to `max_length`.

    Warns
    -----
    UserWarning
        If some pairs are equal once they are cut; their number and the first are named.
    """
    if not len(preferences):
        raise ValueError("there are no preferences: expected at least one PreferenceTriplet")
    for i, triplet in enumerate(preferences):
        if not isinstance(triplet, PreferenceTriplet):
            raise ValueError(f"preference {i} is {triplet!r:.80}; expected a PreferenceTriplet")
    equal = [i for i, t in enumerate(preferences) if t.chosen.strip() == t.rejected.strip()]
    if equal:
        raise ValueError(
            f"{len(equal)} of {len(preferences)} preferences have equal replies (the first is "
            f"number {equal[0]}), from which nothing can be learnt; leave them out"
        )
    prompts = [t.prompt for t in preferences for _ in range(2)]
    replies = [reply for t in preferences for reply in (t.chosen, t.rejected)]
    parameters = _supervised(config) if config.objective == "sft" else config.parameters
    items = _encode(lm, prompts, replies, config)
    cut = [i for i in range(len(preferences)) if items[2 * i].key == items[2 * i + 1].key]
    if cut:
        text = (
            f"{len(cut)} of {len(preferences)} preferences have equal tokens in both replies (the "
            f"first is number {cut[0]}) and teach no preference: they differ only beyond "
            f"max_length={config.max_length} tokens, or in what the tokenizer ignores. Increase "
            "max_length, or leave them out"
        )
        if len(cut) == len(preferences):
            raise ValueError(text)
        warn(text)
    return Side(items, config.method, parameters, 1, True)


def supervised_side(lm: LanguageModel, supervised: Supervised, config: FineTuningConfig) -> Side:
    """Encode replies to learn.

    Parameters
    ----------
    lm : LanguageModel
        The model, for its tokens.
    supervised : sequence of (prompt, reply)
        Prompts with the replies to learn.
    config : FineTuningConfig
        Settings of the run.

    Returns
    -------
    Side
        The supervised objective with the tokens.

    Raises
    ------
    ValueError
        If there is no reply, one is empty, or a row is not a pair of a prompt and a text.
    """
    if not len(supervised):
        raise ValueError("there are no supervised replies: expected at least one (prompt, reply)")
    for i, pair in enumerate(supervised):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"supervised row {i} is {pair!r:.80}; expected (prompt, reply)")
    items = _encode(lm, [pair[0] for pair in supervised], [pair[1] for pair in supervised], config)
    return Side(items, OBJECTIVES["sft"], _supervised(config), 0, False)


def _supervised(config: FineTuningConfig) -> dict[str, bool]:
    return {"per_token": config.per_token}


def _encode(
    lm: LanguageModel, prompts: list[Prompt], replies: list[str], config: FineTuningConfig
) -> list[Item]:
    return encode_pairs(
        lm, prompts, replies, max_length=config.max_length, end_of_turn=config.end_of_turn
    )
