"""Replies to one prompt side by side: the model's own, the best of several, and a guided one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cvxnn.llm.decoding.guidance import Guidance
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.preference.triplets import Prompt


class Reply(NamedTuple):
    """Reply to a prompt, with its reward and with measures that no head has seen.

    Parameters
    ----------
    name : str
        How the reply was written: ``"plain"``, ``"best of N"`` or ``"guided"``.
    text : str
        The reply.
    reward : float or None
        Reward that the head gives to it; None for an empty reply.
    ending : {"end", "stop", "length"}
        Whether the model ended the reply, a stop string was written, or ``max_new_tokens`` cut it.
    n_tokens : int
        Number of tokens that were written, without the one that ends the reply.
    log_probability : float or None
        Mean log-probability of its tokens under the model; see `cvxnn.llm.ReplyMeasures`.
    repetition : float
        Share of its runs of three tokens that were there before.
    """

    name: str
    text: str
    reward: float | None
    ending: str
    n_tokens: int
    log_probability: float | None
    repetition: float


def side_by_side(
    head: Any,
    embedder: Embedder,
    prompt: Prompt,
    guidance: Guidance,
    *,
    plain: bool = True,
    best_of: int = 0,
    guided: bool = True,
    stream: Callable[[str], None] | None = None,
) -> Iterator[Reply]:
    """Write replies of a language model to one prompt in several ways.

    Parameters
    ----------
    head : COALAPreferenceHead or LinearPreferenceHead
        Fitted head that knows its ``embedding``.
    embedder : Embedder
        Embedder of the head; see ``Embedder.from_description``.
    prompt : str or list of Message
        What the user says, or a conversation.
    guidance : Guidance
        Settings of guided writing. Sampling settings and seed are used for `best_of` as well,
        `max_new_tokens` and `stop` for all replies.
    plain : bool, default=True
        Whether to write the greedy reply of the model.
    best_of : int, default=0
        Number of replies to sample; the one with the highest reward is kept. 0 samples none.
    guided : bool, default=True
        Whether to write a reply that the head guides.
    stream : callable, optional
        Function that receives each piece of the guided reply as soon as it is decided.

    Yields
    ------
    Reply
        ``"plain"``, ``"best of N"`` and ``"guided"``, as far as they are requested.
    """
    from cvxnn.llm.decoding.guided_replies import generate_guided
    from cvxnn.llm.decoding.plain_replies import write_plain
    from cvxnn.llm.decoding.reply_measures import measure_replies
    from cvxnn.llm.models import seeded

    lm, n_tokens = embedder.lm, guidance.max_new_tokens

    def reply(name: str, text: str, ending: str, n_written: int, reward: float | None) -> Reply:
        [found] = measure_replies(lm, prompt, [text])
        return Reply(name, text, reward, ending, n_written, found.log_probability, found.repetition)

    if plain:
        [alone] = write_plain(lm, prompt, 1, n_tokens, guidance.stop)
        yield reply("plain", *alone, rewards_of(head, embedder, prompt, [alone.text])[0])
    if best_of:
        drawn = {name: getattr(guidance, name) for name in ("top_p", "top_k", "temperature")}
        with seeded(lm.device, guidance.seed):
            sampling = {"do_sample": True, **drawn}
            found = write_plain(lm, prompt, best_of, n_tokens, guidance.stop, sampling)
        rewards = rewards_of(head, embedder, prompt, [sample.text for sample in found])
        known = [-float("inf") if reward is None else reward for reward in rewards]
        best = known.index(max(known))
        yield reply(f"best of {best_of}", *found[best], rewards[best])
    if guided:
        written = generate_guided(lm, head, prompt, guidance, stream=stream)
        # Measured on the text like the others: its tokens may include some that decode to nothing.
        [reward] = rewards_of(head, embedder, prompt, [written.text])
        yield reply("guided", written.text, written.ending, len(written.tokens), reward)


def rewards_of(
    head: Any, embedder: Embedder, prompt: Prompt, texts: list[str]
) -> list[float | None]:
    """Return the rewards that a head gives to replies to one prompt.

    Parameters
    ----------
    head : COALAPreferenceHead or LinearPreferenceHead
        Fitted head.
    embedder : Embedder
        Embedder of the head.
    prompt : str or list of Message
        What was answered.
    texts : list of str
        The replies.

    Returns
    -------
    list of (float or None)
        Rewards; None for an empty reply.
    """
    filled = [text for text in texts if text.strip()]
    if not filled:
        return [None] * len(texts)
    found = iter(head.reward(embedder.embed([prompt] * len(filled), filled)))
    return [float(next(found)) if text.strip() else None for text in texts]
