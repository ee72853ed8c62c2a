"""Fixed-length embeddings of replies from the hidden states of a frozen language model.

Pairs of one conversation, or of one prompt, begin with the same tokens. Those tokens are run
through the model once: sequences that share a beginning are laid out in one row as a prefix tree,
in which a token has its depth as position and attends to its ancestors alone. The hidden states are
the same as those of separate rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from cvxnn._progress import Progress
from cvxnn.features.blocks import missing_blocks
from cvxnn.features.description import POOLINGS, Description, Layers, Pooling
from cvxnn.features.writer import FeatureWriter
from cvxnn.llm.block_journal import BlockJournal
from cvxnn.llm.cache import EmbeddingCache
from cvxnn.llm.cutting import Cut, check_pairs, cut_pairs, longest_replies, warn_of_cuts
from cvxnn.llm.hidden_states import described, layer_indices
from cvxnn.llm.identity import check_model, describe_embeddings
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.token_embeddings import TokenEmbedder
from cvxnn.preference.triplets import PreferenceTriplet, Prompt


class Embedder:
    """Embedder of replies: it pools hidden states over the tokens of a reply, given its prompt.

    Equal pairs are computed once, and so are equal beginnings of pairs (see `share_prefixes`).
    With hidden states h_1, ..., h_T of the tokens of the reply, the embedding is

    - ``"mean"``: their average;
    - ``"last"``: h_T;
    - ``"attention"``: sum_t w_t h_t with w = softmax over t of <z_t, z_T> / sqrt(width), where z_t
      is h_t less its mean, divided by its standard deviation (layer normalisation, no weights).

    With `context`, the same formula of the tokens of the prompt follows, for heads with gates that
    look at the prompt (``COALAPreferenceHead``); these tokens are run through the model anyway.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    pooling : {"mean", "last", "attention"}, default="mean"
        Formula that makes one vector of the hidden states of a reply; see above.
    layer : int, sequence of int or "all", default=-1
        Layer of the hidden states: 0 is the token embeddings, k the output of block k, and -1 (or
        the number of blocks) the output of the last block after the final normalisation. Blocks
        above the layer are not run. Of several layers, or of the outputs of ``"all"`` blocks, the
        embeddings stand side by side; one pass of the model gives all of them.
    context : bool, default=False
        Whether an embedding has that of the prompt behind that of the reply.
    max_length : int, default=1024
        Largest number of tokens of prompt and reply together, capped by the context length of the
        model. If a pair is longer, the oldest tokens of the prompt are dropped; if the reply alone
        is longer, its end is dropped. A warning says how many pairs were cut. `embed_pairs` cuts
        a prompt at one place for all replies to it.
    batch_tokens : int, default=2048
        Largest number of tokens in one call of the model, padding included. Beside the weights,
        memory holds the activations of at most ``T = max(batch_tokens, max_length)`` tokens and an
        attention mask of at most T**2 entries (and as many scores for each head where attention has
        no fused kernel).
    share_prefixes : bool, default=True
        Whether to compute common beginnings once. It is checked on a few tokens that the model
        computes the same either way; where it does not (a sliding window that is too short,
        recurrent blocks, attention kernels without masks, ...), pairs are computed in ordinary
        padded batches.
    cache : EmbeddingCache or path-like, optional
        Where embeddings are looked up before they are computed, and kept batch by batch.
    progress : bool, default=False
        Whether to say on stderr how many replies are done and how long the rest will take: in a
        line that is rewritten on a terminal, and every 30 seconds elsewhere.

    Attributes
    ----------
    tokens_naive_ : int
        Number of tokens in the pairs of the last call, each pair counted by itself.
    tokens_computed_ : int
        Number of tokens run through the model in the last call, padding included: about
        ``2 * lm.n_parameters * tokens_computed_`` floating-point operations.
    seconds_ : float
        Duration of the last call, in seconds.
    shares_prefixes_ : bool
        Whether common beginnings were computed once in the last call.

    Raises
    ------
    ValueError
        If a setting is out of range; the message names the range.

    Examples
    --------
    >>> from cvxnn.llm import Embedder, load_model            # doctest: +SKIP
    >>> embedder = Embedder(load_model())                     # doctest: +SKIP
    >>> embedder.embed(["Why?"] * 2, ["Because.", "No."])     # doctest: +SKIP
    """

    tokens_naive_: int
    tokens_computed_: int
    seconds_: float
    shares_prefixes_: bool

    def __init__(
        self,
        lm: LanguageModel,
        *,
        pooling: Pooling = "mean",
        layer: Layers = -1,
        context: bool = False,
        max_length: int = 1024,
        batch_tokens: int = 2048,
        share_prefixes: bool = True,
        cache: EmbeddingCache | str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}; expected one of {POOLINGS}")
        layer_indices(lm, layer)
        if max_length < 1 or batch_tokens < 1:
            raise ValueError(
                f"max_length is {max_length} and batch_tokens {batch_tokens}; expected at least 1"
            )
        self.lm = lm
        self.pooling = pooling
        self.layer = layer
        self.context = context
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.share_prefixes = share_prefixes
        self.cache = cache
        self.progress = progress

    @property
    def description(self) -> Description:
        """Everything that the embeddings depend on, beside the texts: names and numbers.

        Pass it to the head that is fitted to them, ``COALAPreferenceHead(embedding=...)``; it is
        saved with the head. It is computed at each access, well below a second.
        """
        return describe_embeddings(
            self.lm,
            layer=self.layer,
            pooling=self.pooling,
            max_length=self.max_length,
            context=self.context,
        )

    @property
    def limit(self) -> int:
        """Largest number of tokens of prompt and reply: `max_length`, or the model's own limit."""
        return min(self.max_length, self.lm.context_length or self.max_length)

    @classmethod
    def from_description(
        cls, lm: LanguageModel, description: Description, **settings: Any
    ) -> Embedder:
        """Make the embedder that a description stands for.

        Parameters
        ----------
        lm : LanguageModel
            The model that is described; its name does not matter. A copy in another floating-point
            type is accepted with a warning.
        description : Description
            ``Embedder.description``, which a head keeps as ``head.embedding``.
        **settings : object
            Further arguments of `Embedder`. Those that the description has must agree with it.

        Returns
        -------
        Embedder
            An embedder with the layer, the pooling, the length and the date of the description.

        Raises
        ------
        ValueError
            If the model or a setting is another one; the message names both.
        """
        check_model(lm, description)
        settled = {
            "layer": description["layer"],
            "pooling": description["pooling"],
            "max_length": description["max_length"],
            "context": description["context"] > 0,
        }
        for name, expected in settled.items():
            found = settings.get(name, expected)
            if name == "layer":
                found = described(layer_indices(lm, found))
            if found != expected:
                raise ValueError(
                    f"{name} is {found!r}, but the embeddings were made with {name}={expected!r}; "
                    f"leave {name} out, or fit a head to embeddings made with {found!r}"
                )
        lm = dataclasses.replace(lm, date=datetime.date.fromisoformat(description["date"]))
        return cls(lm, **{**settings, **settled})

    def embed_pairs(self, pairs: Sequence[PreferenceTriplet]) -> tuple[np.ndarray, np.ndarray]:
        """Embed both replies of preference pairs, for ``fit_pairs`` of a head.

        A prompt that is too long is cut at one place for all replies to it, so that they answer the
        same text, and its tokens are run through the model once.

        Parameters
        ----------
        pairs : sequence of PreferenceTriplet
            The pairs.

        Returns
        -------
        chosen, rejected : ndarray of shape (n_pairs, width), float32
            Embeddings of the preferred replies, and of the others.

        Raises
        ------
        ValueError
            As `embed` does.
        """
        prompts = [pair.prompt for pair in pairs for _ in range(2)]
        replies = [reply for pair in pairs for reply in (pair.chosen, pair.rejected)]
        rows = self.embed(prompts, replies, common_cut=True)
        return rows[0::2], rows[1::2]

    def embed(
        self, prompts: Sequence[Prompt], responses: Sequence[str], *, common_cut: bool = False
    ) -> np.ndarray:
        """Embed the reply of each pair, given its prompt.

        Parameters
        ----------
        prompts : sequence of (str or list of Message), length n
            What is replied to.
        responses : sequence of str, length n
            The replies.
        common_cut : bool, default=False
            Whether a prompt that is too long is cut at one place for all replies to it in this
            call, as the longest of them demands. Otherwise each reply leaves as much of its prompt
            as there is room for, and its embedding does not depend on the others.

        Returns
        -------
        ndarray of shape (n, width), float32
            One embedding for each pair.

        Raises
        ------
        ValueError
            If there is no pair, the numbers of prompts and responses differ, a reply is empty, the
            model is in training mode, or an embedding is not finite.
        """
        check_pairs(prompts, responses)
        with self._run(len(prompts)) as (run, bar):
            reserved = longest_replies(self.lm, prompts, responses) if common_cut else None
            items, cut = cut_pairs(self.lm, prompts, responses, self.limit, reserved)
            vectors = run.embed(items, bar)
        warn_of_cuts(cut, self.limit, self.max_length)
        return vectors

    def embed_to_file(
        self,
        path: str | os.PathLike[str],
        prompts: Iterable[Prompt],
        responses: Iterable[str],
        *,
        common_cut: bool = False,
        rows: range | None = None,
    ) -> int:
        """Embed pairs into a ``.npy`` file, in memory that does not grow with their number.

        Parameters
        ----------
        path : path-like
            The file; ``PATH.json`` beside it has the description. ``read_features`` opens both.
            Until everything is done there are ``PATH.part``, ``PATH.part.log`` and
            ``PATH.part.block`` instead: the same call after an interruption continues after the
            last finished batch, and gives the same file, bit by bit. A process that is killed loses
            at most ten seconds more.
        prompts : iterable of (str or list of Message)
            What is replied to.
        responses : iterable of str
            The replies, as many as there are prompts.
        common_cut : bool, default=False
            As for `embed`; then prompts and responses have to be sequences.
        rows : range, optional
            Which of the pairs are embedded, by default all. The others count for the common cut,
            which this needs.

        Returns
        -------
        int
            Number of rows.

        Raises
        ------
        ValueError
            As `embed` does, or if there is an unfinished file of other pairs or settings.
        """
        if isinstance(prompts, str) or isinstance(responses, str):
            raise ValueError("prompts and responses have one entry a pair, and are not strings")
        reserved: list[int] | None = None
        if common_cut:
            if not isinstance(prompts, Sequence) or not isinstance(responses, Sequence):
                raise ValueError("common_cut needs prompts and responses that are sequences")
            reserved = longest_replies(self.lm, prompts, responses, rows)
            if rows is not None:
                part = slice(rows.start, rows.stop)
                prompts, responses = prompts[part], responses[part]
        cut = Cut()
        total = len(prompts) if isinstance(prompts, Sequence) else None
        with (
            FeatureWriter(path, self.description) as file,
            BlockJournal(f"{os.fspath(path)}.part.block", file.description["width"]) as journal,
            self._run(total, journal if self.cache is None else None) as (run, bar),
        ):
            for block in missing_blocks(file, prompts, responses, bar, reserved):
                try:
                    items, new = cut_pairs(self.lm, *block[:2], self.limit, block.reserved)
                except ValueError as error:
                    raise ValueError(f"{error} (counted from pair {file.n_rows})") from error
                file.append(run.embed(items, bar), block.identity)
                journal.clear()
                cut = Cut(*(a + b for a, b in zip(cut, new, strict=True)))
            file.finish()
        warn_of_cuts(cut, self.limit, self.max_length)
        return file.n_rows

    def token_embedder(self, cache: EmbeddingCache | BlockJournal | None = None) -> TokenEmbedder:
        """Make the embedder of token sequences with these settings, for many calls.

        Parameters
        ----------
        cache : EmbeddingCache or BlockJournal, optional
            Where embeddings are looked up first, and kept batch by batch.

        Returns
        -------
        TokenEmbedder
            The embedder, which counts the tokens of all calls.
        """
        return TokenEmbedder(
            self.lm,
            layer=self.layer,
            pooling=self.pooling,
            context=self.context,
            batch_tokens=self.batch_tokens,
            share_prefixes=self.share_prefixes,
            cache=cache,
        )

    @contextlib.contextmanager
    def _run(
        self, total: int | None, journal: BlockJournal | None = None
    ) -> Iterator[tuple[TokenEmbedder, Progress]]:
        """Open the cache and the line of progress; keep the counts, also after an error."""
        if self.lm.model.training:
            raise ValueError(
                "the model is in training mode (dropout is on); call model.eval() first"
            )
        began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            cache = self.cache
            if cache is not None and not isinstance(cache, EmbeddingCache):
                cache = stack.enter_context(EmbeddingCache(cache))
            run = self.token_embedder(cache if journal is None else journal)
            bar = Progress("embedding", total, "replies", show=self.progress)
            stack.enter_context(bar)
            try:
                yield run, bar
            finally:
                self.tokens_naive_ = run.tokens_naive
                self.tokens_computed_ = run.tokens_computed
                self.shares_prefixes_ = run.shares_prefixes
                self.seconds_ = time.perf_counter() - began
