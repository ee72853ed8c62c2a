"""What a comparison has made, as writers of replies: base model, guided decoding, tuned models."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cvxnn.comparison.replies import Reply, rewards_of
from cvxnn.comparison.reply_table import PLAIN
from cvxnn.comparison.results import ADAPTER, HEAD_METHODS, RESULT_FILE, START, Comparison
from cvxnn.persistence import load

if TYPE_CHECKING:
    from cvxnn.llm.decoding.guidance import Guidance
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.llm.models import LanguageModel
    from cvxnn.preference.triplets import Prompt

    Write: TypeAlias = Callable[[Prompt], tuple[str, str, int]]


@dataclass(frozen=True)
class Writers:
    """Base model and methods of a comparison, each of which answers prompts.

    Parameters
    ----------
    lm : LanguageModel
        The model that all methods started from.
    write : dict of str to callable
        By name, ``write(prompt)``: the reply, what ended it, and its number of tokens.
        ``"plain"`` is the base model.
    head : object with ``reward``, optional
        Head that gives its reward to the replies of all writers.
    embedder : Embedder, optional
        Embedder of the head.
    """

    lm: LanguageModel
    write: dict[str, Write]
    head: Any = None
    embedder: Embedder | None = None

    def answer(self, prompt: Prompt) -> list[Reply]:
        """Let each writer answer a prompt.

        Parameters
        ----------
        prompt : str or list of Message
            What to answer.

        Returns
        -------
        list of Reply
            One reply of each writer. Log-probabilities are those under the base model.
        """
        from cvxnn.llm.decoding.reply_measures import measure_replies

        found = [write(prompt) for write in self.write.values()]
        texts = [text for text, _, _ in found]
        rewards: list[float | None] = [None] * len(texts)
        if self.embedder is not None:
            rewards = rewards_of(self.head, self.embedder, prompt, texts)
        measures = measure_replies(self.lm, prompt, texts)
        return [
            Reply(name, text, reward, ending, n, measured.log_probability, measured.repetition)
            for name, (text, ending, n), reward, measured in zip(
                self.write, found, rewards, measures, strict=True
            )
        ]


def files_of_methods(
    folder: str | os.PathLike[str], methods: Sequence[str] | None = None
) -> dict[str, Path]:
    """Return what each method of a comparison has left: a head, or a folder of adapters.

    Parameters
    ----------
    folder : path-like
        Folder of `compare`, or of ``cvxnn compare``; of several seeds, the first counts.
    methods : sequence of str, optional
        Names of methods; by default all of the comparison.

    Returns
    -------
    dict of str to Path
        The places by method.

    Raises
    ------
    FileNotFoundError
        If the folder holds no comparison, or lacks what a method has made.
    ValueError
        If a method is not among those of the comparison.
    """
    folder = Path(folder)
    comparison = _read(folder)
    known = [result.method for result in comparison.results]
    if unknown := [method for method in methods or () if method not in known]:
        raise ValueError(f"{folder} compares {', '.join(known)}, and not {', '.join(unknown)}")
    seed = folder / f"seed-{comparison.settings.get('seed')}"
    own = seed if seed.is_dir() else folder
    found = {}
    for method in methods or known:
        head, adapter = own / f"{method}.safetensors", own / method / ADAPTER
        found[method] = head if method in HEAD_METHODS else adapter
        if not found[method].exists():
            raise FileNotFoundError(
                f"{found[method]} is missing; the command that made {folder} makes it again"
            )
    return found


def load_writers(
    folder: str | os.PathLike[str],
    lm: LanguageModel,
    guidance: Guidance,
    methods: Sequence[str] | None = None,
    *,
    batch_tokens: int = 2048,
) -> Writers:
    """Load what a comparison has made, to answer prompts with it.

    Parameters
    ----------
    folder : path-like
        Folder of `compare`, or of ``cvxnn compare``; of several seeds, the first counts.
    lm : LanguageModel
        The model of the comparison. Of a comparison with ``--sft-first`` it is the given model, or
        the one that was fine-tuned on the chosen replies.
    guidance : Guidance
        Settings of replies that heads guide; `max_new_tokens` and `stop` count for all replies.
        Those of the base model and of tuned models are greedy.
    methods : sequence of str, optional
        Names of methods; by default all of the comparison.
    batch_tokens : int, default=2048
        Largest number of tokens in one batch of embeddings, which the first head takes for rewards.

    Returns
    -------
    Writers
        ``"plain"``, then the methods.

    Raises
    ------
    FileNotFoundError
        If the folder holds no comparison, or lacks what a method has made.
    ValueError
        If the model is another one, or a method is not among those of the comparison.
    """
    from cvxnn.llm.decoding.guided_replies import generate_guided
    from cvxnn.llm.decoding.plain_replies import write_plain
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.llm.fine_tuning.adapters import load_adapter

    files = files_of_methods(folder, methods)
    base = _base(Path(folder), lm)

    def greedy(model: LanguageModel, prompt: Prompt) -> tuple[str, str, int]:
        [reply] = write_plain(model, prompt, 1, guidance.max_new_tokens, guidance.stop)
        return reply

    def guided(head: Any, prompt: Prompt) -> tuple[str, str, int]:
        reply = generate_guided(base, head, prompt, guidance)
        return reply.text, reply.ending, len(reply.tokens)

    write: dict[str, Write] = {PLAIN: functools.partial(greedy, base)}
    first = None
    for method, file in files.items():
        if method in HEAD_METHODS:
            head: Any = load(file)
            first = head if first is None else first
            write[method] = functools.partial(guided, head)
        else:
            write[method] = functools.partial(greedy, load_adapter(base, file))
    if first is None:
        return Writers(base, write)
    embedder = Embedder.from_description(base, first.embedding, batch_tokens=batch_tokens)
    return Writers(base, write, first, embedder)


def _base(folder: Path, lm: LanguageModel) -> LanguageModel:
    """Return the model that the methods started from."""
    from cvxnn.llm.fine_tuning.adapters import load_adapter, merge_adapter

    wanted = _read(folder).model
    if lm.fingerprint == wanted["fingerprint"]:
        return lm
    start = folder / START / ADAPTER
    if start.is_dir():
        lm = merge_adapter(load_adapter(lm, start))
        if lm.fingerprint == wanted["fingerprint"]:
            return lm
    raise ValueError(
        f"{folder} compares methods on {wanted['name']} in {wanted['dtype']}, and {lm.name} is "
        "another model; load that one"
    )


def _read(folder: Path) -> Comparison:
    if not (folder / RESULT_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no comparison (it has no {RESULT_FILE}); cvxnn compare makes one"
        )
    return Comparison.read(folder / RESULT_FILE)
