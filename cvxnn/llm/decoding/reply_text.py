"""Text of a reply that is being written: its stop strings, and the part that will not change."""

from __future__ import annotations

from cvxnn.llm.models import LanguageModel


class ReplyText:
    """Text of a reply that grows token by token.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    start : list of int
        Tokens of the given beginning.
    start_text : str
        Text of the given beginning.
    stop : tuple of str
        Strings that end the reply and are not part of it, if they come after the beginning.

    Attributes
    ----------
    stop_tokens : list of int
        Special tokens among the stop strings. They are no part of the text, so that the reply has
        to end where one comes.

    Raises
    ------
    ValueError
        If a stop string has a special token and other text; pass the special token alone.
    """

    def __init__(
        self,
        lm: LanguageModel,
        start: list[int],
        start_text: str,
        stop: tuple[str, ...],
    ) -> None:
        self._lm = lm
        self._start = start
        self._start_decoded = lm.decode(start)
        self.stop_tokens, self._stop = _split(lm, stop)
        self._given = start_text

    def stops(self, tokens: list[int]) -> bool:
        """Return True if a stop string is in the text after the beginning.

        Parameters
        ----------
        tokens : list of int
            Tokens after the beginning.

        Returns
        -------
        bool
            Whether the reply ends.
        """
        return bool(self._stop) and self._cut(self._continuation(tokens)) is not None

    def read(self, tokens: list[int], *, ended: bool) -> str:
        """Return the text of the reply.

        Parameters
        ----------
        tokens : list of int
            Tokens after the beginning.
        ended : bool
            Whether no token follows. If False, the end that a further token may change is left out.

        Returns
        -------
        str
            The text, the beginning included.
        """
        text = self._continuation(tokens)
        cut = self._cut(text)
        if cut is not None:
            text = text[:cut]
        elif not ended:
            text = text.rstrip("\ufffd")  # a character whose last bytes are missing
            text = text[: len(text) - self._n_held(text)]
        return self._given + text

    def _continuation(self, tokens: list[int]) -> str:
        whole = self._lm.decode(self._start + tokens)
        if whole.startswith(self._start_decoded):
            return whole[len(self._start_decoded) :]
        return self._lm.decode(tokens)

    def _cut(self, text: str) -> int | None:
        found = [at for at in map(text.find, self._stop) if at >= 0]
        return min(found, default=None)

    def _n_held(self, text: str) -> int:
        """Return the length of the end of a text that may become a stop string."""
        sizes = [
            size
            for stop in self._stop
            for size in range(1, len(stop))
            if text.endswith(stop[:size])
        ]
        return max(sizes, default=0)


def _split(lm: LanguageModel, stop: tuple[str, ...]) -> tuple[list[int], list[str]]:
    """Separate special tokens from other strings."""
    tokens, strings = [], []
    known = lm.tokenizer.added_tokens_decoder.items()
    special = {added.content: token for token, added in known if added.special}
    for text in stop:
        within = [content for content in special if content in text]
        if text.strip() in special:
            tokens.append(special[text.strip()])
        elif within:
            raise ValueError(
                f"the stop string {text!r} has the special token {within[0]!r} and other text, "
                f"which no reply contains; pass {within[0]!r} alone"
            )
        else:
            strings.append(text)
    return tokens, strings
