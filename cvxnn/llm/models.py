"""Causal language models with their tokenizers."""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import jinja2
import torch
import transformers

from cvxnn.llm.chat_template import DATE, end_of_turn, render
from cvxnn.llm.fingerprint import fingerprints
from cvxnn.llm.token_texts import byte_tokens, text_of_tokens
from cvxnn.preference.text_checks import check_is_text, check_prompt
from cvxnn.preference.triplets import Prompt, as_messages


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model, in evaluation mode.
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer that the model was trained with.
    name : str, default="model"
        Name of the model in messages and reports.
    date : datetime.date, default=2024-07-26
        What chat templates take for today, so that the same prompt has the same tokens every day.
        The default is the date that the template of Llama 3 falls back on; for another one use
        ``dataclasses.replace(lm, date=...)``.
    """

    model: transformers.PreTrainedModel = field(repr=False)
    tokenizer: transformers.PreTrainedTokenizerBase = field(repr=False)
    name: str = "model"
    date: datetime.date = DATE

    @property
    def decoder(self) -> transformers.PreTrainedModel:
        """Model without its output layer: it maps tokens to hidden states."""
        whole = unwrapped(self.model)
        decoder: transformers.PreTrainedModel = whole.base_model
        # Llama 4 names a part that it lacks.
        return getattr(whole, "model", whole) if decoder is whole else decoder

    @property
    def config(self) -> transformers.PretrainedConfig:
        """Configuration of the text decoder."""
        return self.decoder.config.get_text_config()

    @property
    def device(self) -> torch.device:
        """Device that the input tokens have to be on."""
        device: torch.device = self.decoder.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def context_length(self) -> int | None:
        """Largest number of tokens that the model was built for, or None if it is not known."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def n_parameters(self) -> int:
        """Number of weights outside the embedding table and the output layer.

        The hidden states of t tokens take about ``2 * n_parameters * t`` floating-point operations.
        """
        decoder = self.decoder
        table = decoder.get_input_embeddings().weight.numel()
        return sum(weight.numel() for weight in decoder.parameters()) - int(table)

    @property
    def n_known_tokens(self) -> int:
        """Number of rows of the embedding matrix: tokens from there on are not known."""
        return int(self.decoder.get_input_embeddings().weight.shape[0])

    @property
    def end_of_turn(self) -> int | None:
        """Token that ends a reply, None if there is none.

        It is the one that the chat template writes after a reply, such as ``<end_of_turn>``;
        without one, the ``eos_token`` of the tokenizer.
        """
        return end_of_turn(self.tokenizer, self.date)

    @property
    def end_tokens(self) -> list[int]:
        """Tokens at which a reply that is being written ends, in increasing order.

        They are `end_of_turn`, the ``eos_token`` of the tokenizer and those of the model's
        generation configuration.
        """
        ends = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        found = {*(ends if isinstance(ends, list | tuple) else [ends])}
        found |= {self.tokenizer.eos_token_id, self.end_of_turn}
        return sorted(t for t in found if t is not None and t < self.n_known_tokens)

    @property
    def fingerprint(self) -> str:
        """Identity of weights, configuration and vocabulary: 64 hexadecimal digits.

        It is computed at each access (well below a second). It changes with training and does not
        depend on where the model was loaded from.
        """
        [digest] = fingerprints(self.model, self.tokenizer)
        return digest

    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Return the tokens of prompts, up to the point where the reply begins.

        With a chat template, a string is one user message and the template opens the assistant's
        turn. Without one, a string is followed by a newline, each message is written on a line of
        its own as ``role: content``, and the tokenizer may add tokens before the text but none
        after it.

        Parameters
        ----------
        prompts : sequence of (str or list of Message)
            Texts, or conversations whose next message is the reply.

        Returns
        -------
        list of list of int
            Tokens of each prompt.

        Raises
        ------
        ValueError
            If a prompt is neither a text nor a list of messages with texts, is not valid Unicode,
            has tokens that the model does not know, or is rejected by the chat template.
        """
        encoded: dict[str, list[int]] = {}  # equal prompts are encoded once
        names = [repr(prompt) for prompt in prompts]
        for i, (name, prompt) in enumerate(zip(names, prompts, strict=True)):
            if name not in encoded:
                encoded[name] = self._encode_prompt(i, prompt)
        tokens = [list(encoded[name]) for name in names]
        self._check_known(tokens, "prompt")
        return tokens

    def encode_responses(self, responses: Sequence[str]) -> list[list[int]]:
        """Return the tokens of replies, without their prompts and without special tokens.

        Parameters
        ----------
        responses : sequence of str
            Texts of the replies.

        Returns
        -------
        list of list of int
            Tokens of each reply, at least one.

        Raises
        ------
        ValueError
            If a reply is not a text, is not valid Unicode, has no token, or has tokens that the
            model does not know.
        """
        tokens = []
        for i, response in enumerate(responses):
            check_is_text(response, f"response {i}")
            ids = self._encode(response, special=False)
            if not ids:
                raise ValueError(f"response {i} is empty ({response!r}); expected some text")
            tokens.append(ids)
        self._check_known(tokens, "response")
        return tokens

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of a text that is continued as it is, without a chat template.

        Parameters
        ----------
        text : str
            The text; it may be empty.

        Returns
        -------
        list of int
            Its tokens, with those that the tokenizer puts before a text, such as ``<s>``, unless
            the text begins with it, and with none after it.

        Raises
        ------
        ValueError
            If it is not a text, or has tokens that the model does not know.
        """
        check_is_text(text, "text")
        begin = self.tokenizer.bos_token
        tokens = self._encode(text, special=begin is None or not text.startswith(begin))
        self.check_known(tokens, "text")
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special tokens.

        The text of the first tokens begins the text of all, but for U+FFFD at its end, which stands
        for a character whose last bytes are missing.

        Parameters
        ----------
        tokens : sequence of int
            The tokens.

        Returns
        -------
        str
            The text.
        """
        return text_of_tokens(self.tokenizer, tokens, self._byte_tokens)

    @functools.cached_property
    def _byte_tokens(self) -> dict[int, int]:
        return byte_tokens(self.tokenizer)

    def check_known(self, tokens: Sequence[int], name: str) -> None:
        """Refuse tokens beyond the embedding matrix.

        Parameters
        ----------
        tokens : sequence of int
            The tokens.
        name : str
            What has these tokens, for the message.

        Raises
        ------
        ValueError
            If the tokenizer is larger than the embedding matrix and one of the tokens is not in it;
            pass the tokenizer that the model was trained with.
        """
        token = max(tokens, default=0)
        if token >= self.n_known_tokens:
            raise ValueError(
                f"{name} has the token {token} ({self.tokenizer.convert_ids_to_tokens(token)!r}), "
                f"but the embedding matrix of {self.name} has {self.n_known_tokens} rows and its "
                f"tokenizer {len(self.tokenizer)} tokens; pass the tokenizer that the model was "
                "trained with"
            )

    def _check_known(self, rows: Sequence[list[int]], kind: str) -> None:
        largest = max((max(row, default=0) for row in rows), default=0)
        if largest >= self.n_known_tokens:
            for i, row in enumerate(rows):
                self.check_known(row, f"{kind} {i}")

    def _encode(self, text: str, *, special: bool) -> list[int]:
        # Texts longer than the context are cut later, so advice of the tokenizer would mislead.
        encoded = self.tokenizer(
            text, add_special_tokens=special, return_special_tokens_mask=special, verbose=False
        )
        ids, added = list(encoded["input_ids"]), encoded.get("special_tokens_mask", ())
        end = self.tokenizer.eos_token_id  # slow tokenizers do not report what they add
        while special and len(ids) > 1 and (added[len(ids) - 1] or ids[-1] == end):
            ids.pop()  # the reply follows
        return ids

    def _encode_prompt(self, i: int, prompt: Prompt) -> list[int]:
        name = f"prompt {i}"
        check_prompt(prompt, name)
        messages = as_messages(prompt)
        if self.tokenizer.chat_template is None:
            lines = [f"{message['role']}: {message['content']}" for message in messages]
            text = prompt if isinstance(prompt, str) else "\n".join(lines)
            return self._encode(f"{text}\n", special=True)
        try:
            text = render(self.tokenizer, messages, self.date)
        except jinja2.TemplateError as error:
            raise ValueError(
                f"the chat template of {self.name} rejects {name}: {error} "
                f"(its roles are {[message['role'] for message in messages]})"
            ) from error
        return self._encode(text, special=False)


def unwrapped(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Return a model without the wrapper that peft puts around one with adapters.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model, perhaps wrapped.

    Returns
    -------
    transformers.PreTrainedModel
        The model of transformers, adapters included.
    """
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the advice and the progress bars of transformers in a block."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # The bar of GGUF conversion cannot be switched off; it writes to the current stderr.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the random numbers of the CPU and of one GPU in a block, and restore them afterwards.

    Parameters
    ----------
    device : torch.device
        The GPU; for another device, only the random numbers of the CPU are seeded.
    seed : int
        The seed.
    """
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
