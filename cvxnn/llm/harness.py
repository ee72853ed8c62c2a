"""Language models in EleutherAI's lm-eval: as they are, fine-tuned, or guided by a head."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from cvxnn._extras import require
from cvxnn.llm.chat_template import render
from cvxnn.llm.decoding.guidance import Guidance
from cvxnn.llm.decoding.guided_replies import generate_guided
from cvxnn.llm.decoding.plain_replies import continue_text, write_plain
from cvxnn.llm.decoding.scoring import DescribedHead
from cvxnn.llm.embeddings import Embedder
from cvxnn.llm.models import LanguageModel, seeded
from cvxnn.preference.triplets import Prompt

_NEW_TOKENS = 256  # of a reply, where neither the task nor the guidance says how many
_CONTEXT = 2048  # tokens, where the model does not say


class HarnessRequest(Protocol):
    """Protocol of what lm-eval asks (its ``Instance``)."""

    @property
    def args(self) -> tuple[Any, ...]:
        """Texts, or a text and settings."""


class _Scored(NamedTuple):
    """Tokens, of which the last `n` are scored."""

    tokens: list[int]
    n: int


class HarnessModel:
    r"""What lm-eval asks of a model: log-likelihoods and replies; `harness_model` makes one.

    Parameters
    ----------
    lm : LanguageModel
        The model, with adapters or without.
    head : object with ``reward`` and ``embedding``, optional
        Head that guides replies, and that chooses among the options of a question.
    guidance : Guidance, optional
        Settings of guided replies; `weight` and `likelihood` count for options too. Of a reply
        without a head, `max_new_tokens` and `seed` count.
    batch_tokens : int, default=2048
        Largest number of tokens in one call of the model, padding included.

    Notes
    -----
    Without a head, log-likelihoods are those of the tokens of the given texts, and a context that
    is to be continued is continued as it is, as usual in the harness; both begin with the token
    that the tokenizer puts before a text, if any. With one, an option has the score by which
    `Guidance` compares whole replies, :math:`\lambda \log p(c) / |c| + w g`, so that ``acc``
    counts what guided decoding would choose; a text by itself has no likelihood then.

    A conversation that the harness made of messages (``apply_chat_template=True``) is answered as
    the library answers it. A head knows nothing but conversations: for it, another context is one
    message of the user. To compare guided decoding with the model alone, use
    ``apply_chat_template=True`` for both.
    """

    def __init__(
        self,
        lm: LanguageModel,
        head: DescribedHead | None = None,
        guidance: Guidance | None = None,
        *,
        batch_tokens: int = 2048,
    ) -> None:
        super().__init__()  # lm-eval's own, which `harness_model` puts behind this class
        self.lm, self.head = lm, head
        self.guidance = guidance or Guidance(max_new_tokens=_NEW_TOKENS)
        self.batch_tokens = batch_tokens
        self._embedder: Embedder | None = None
        self._conversations: dict[str, Prompt] = {}
        if head is not None:
            description: Any = head.embedding
            self._embedder = Embedder.from_description(lm, description, batch_tokens=batch_tokens)

    @property
    def tokenizer_name(self) -> str:
        """Name under which the harness keeps requests."""
        return self.lm.name.replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as a text, and remember it.

        Parameters
        ----------
        chat_history : list of dict
            Messages with ``role`` and ``content``.
        add_generation_prompt : bool, default=True
            Whether the text ends where the reply begins.

        Returns
        -------
        str
            The text that the model reads.
        """
        messages: Any = list(chat_history)
        text = render(
            self.lm.tokenizer, messages, self.lm.date, reply_follows=add_generation_prompt
        )
        if add_generation_prompt:
            self._conversations[text] = messages
        return text

    def loglikelihood(self, requests: Sequence[HarnessRequest]) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, or its score under the head.

        Parameters
        ----------
        requests : sequence of HarnessRequest
            Each with a context, which may be empty, and its continuation.

        Returns
        -------
        list of (float, bool)
            The number, and whether the continuation is what the model would write greedily.
        """
        pairs = [tuple(request.args) for request in requests]
        items = [self._item(context, continuation) for context, continuation in pairs]
        scores, greedy = self._score(items)
        if self.head is not None and self._embedder is not None:
            prompts = [self._conversations.get(context, context) for context, _ in pairs]
            X = self._embedder.embed(prompts, [continuation.strip() for _, continuation in pairs])
            judge = getattr(self.head, "decision_function", self.head.reward)
            lengths = np.array([max(item.n, 1) for item in items])
            likelihood = self.guidance.likelihood * scores / lengths
            scores = likelihood + self.guidance.weight * np.asarray(judge(X), dtype=np.float64)
        return [(float(s), bool(g)) for s, g in zip(scores, greedy, strict=True)]

    def loglikelihood_rolling(self, requests: Sequence[HarnessRequest]) -> list[float]:
        """Return the log-likelihood of whole texts, each token with as much context as fits.

        Parameters
        ----------
        requests : sequence of HarnessRequest
            Each with a text.

        Returns
        -------
        list of float
            Log-likelihoods.

        Raises
        ------
        ValueError
            If there is a head: guided decoding gives a text no likelihood. Leave perplexities to
            the model without the head, whose weights are the same.
        """
        if self.head is not None:
            raise ValueError(
                "guided decoding gives a text no likelihood, and its model is the one without the "
                "head; evaluate that one"
            )
        found = []
        for request in requests:
            (text,) = request.args
            scores, _ = self._score(list(self._windows(text)))
            found.append(float(scores.sum()))
        return found

    def generate_until(self, requests: Sequence[HarnessRequest]) -> list[str]:
        """Write a reply to each context.

        Parameters
        ----------
        requests : sequence of HarnessRequest
            Each with a context and settings: ``until``, ``max_gen_toks``, and without a head
            ``do_sample``, ``temperature``, ``top_p`` and ``top_k``.

        Returns
        -------
        list of str
            Replies.
        """
        return [self._reply(*request.args) for request in requests]

    def _reply(self, context: str, settings: Mapping[str, Any]) -> str:
        until = settings.get("until") or ()
        stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        n_tokens = int(settings.get("max_gen_toks") or self.guidance.max_new_tokens)
        prompt = self._conversations.get(context)
        if self.head is not None:
            guidance = dataclasses.replace(self.guidance, max_new_tokens=n_tokens, stop=stop)
            return generate_guided(self.lm, self.head, prompt or context, guidance).text
        names = ("temperature", "top_p", "top_k")
        options = {name: settings[name] for name in names if settings.get(name) is not None}
        sampling = {"do_sample": True, **options} if settings.get("do_sample") else None
        with seeded(self.lm.device, self.guidance.seed):
            if prompt is None:
                return continue_text(self.lm, context, n_tokens, stop, sampling)
            return write_plain(self.lm, prompt, 1, n_tokens, stop, sampling)[0].text

    @property
    def _limit(self) -> int:
        return self.lm.context_length or _CONTEXT

    @property
    def _beginning(self) -> list[int]:
        """Token before a text that follows nothing."""
        tokenizer = self.lm.tokenizer
        begin = tokenizer.bos_token_id
        begin = tokenizer.eos_token_id if begin is None else begin
        return [] if begin is None else [int(begin)]

    def _item(self, context: str, continuation: str) -> _Scored:
        bare = context.rstrip()  # spaces at the end are parts of the tokens that follow
        whole, head = self.lm.encode_text(context + continuation), self.lm.encode_text(bare)
        n = len(whole) - len(head)
        if not head:
            whole = self._beginning + whole
        return _Scored(whole[-(self._limit + 1) :], min(n, self._limit, len(whole) - 1))

    def _windows(self, text: str) -> Iterator[_Scored]:
        """Cut a text into windows; each token is scored once, with all the context that fits."""
        tokens = self.lm.encode_text(text)
        if tokens[:1] != self._beginning:
            tokens = self._beginning + tokens
        for first in range(1, len(tokens), self._limit):
            end = min(first + self._limit, len(tokens))
            yield _Scored(tokens[max(end - self._limit - 1, 0) : end], end - first)

    @torch.inference_mode()
    def _score(self, items: Sequence[_Scored]) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-likelihoods of the last tokens, and whether each of them is likeliest."""
        sums, greedy = np.zeros(len(items)), np.ones(len(items), dtype=bool)
        for batch in self._batches(items):
            width = max(len(items[i].tokens) for i in batch) - 1
            ids = torch.zeros((len(batch), width), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(batch):
                seen = items[i].tokens[:-1]
                ids[row, : len(seen)] = torch.tensor(seen)
                mask[row, : len(seen)] = 1
            device = self.lm.device
            out = self.lm.model(input_ids=ids.to(device), attention_mask=mask.to(device))
            for row, i in enumerate(batch):
                tokens, n = items[i]
                stop = len(tokens) - 1
                logits = out.logits[row, stop - n : stop].float()
                wanted = torch.tensor(tokens[len(tokens) - n :], device=logits.device)
                likely = logits.log_softmax(-1).gather(1, wanted[:, None])
                sums[i] = float(likely.sum())
                greedy[i] = bool((logits.argmax(-1) == wanted).all())
        return sums, greedy

    def _batches(self, items: Sequence[_Scored]) -> Iterator[list[int]]:
        """Yield the numbers of items of similar length, the longest first."""
        batch: list[int] = []
        scored = [i for i, item in enumerate(items) if item.n > 0]
        for i in sorted(scored, key=lambda i: -len(items[i].tokens)):
            longest = len(items[batch[0]].tokens) if batch else 0
            if batch and (len(batch) + 1) * longest > self.batch_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch


def harness_model(
    lm: LanguageModel,
    head: DescribedHead | None = None,
    guidance: Guidance | None = None,
    *,
    batch_tokens: int = 2048,
) -> Any:
    """Make a model for ``lm_eval.simple_evaluate`` of a language model, guided or not.

    Parameters
    ----------
    lm : LanguageModel
        The model, with adapters or without.
    head : object with ``reward`` and ``embedding``, optional
        Head that guides replies, and that chooses among the options of a question.
    guidance : Guidance, optional
        Settings of guided replies; see `HarnessModel`.
    batch_tokens : int, default=2048
        Largest number of tokens in one call of the model, padding included.

    Returns
    -------
    HarnessModel
        An instance of it and of ``lm_eval.api.model.LM``.

    Raises
    ------
    ImportError
        If lm-eval is missing; install it with ``pip install "cvxnn[eval]"``.

    Examples
    --------
    >>> import lm_eval                                                # doctest: +SKIP
    >>> from cvxnn.llm import harness_model, load_adapter, load_model
    >>> tuned = load_adapter(load_model(), "comparison/dpo/adapter")  # doctest: +SKIP
    >>> lm_eval.simple_evaluate(harness_model(tuned), tasks=["hellaswag"])  # doctest: +SKIP
    """
    api: Any = require("lm_eval.api.model", extra="eval")
    both = type("HarnessModel", (HarnessModel, api.LM), {})
    return both(lm, head, guidance, batch_tokens=batch_tokens)
