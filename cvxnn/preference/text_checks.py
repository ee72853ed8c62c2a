"""Checks of texts and of prompts, whose errors name what is wrong and where."""

from __future__ import annotations

from typing import Any

_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}


def kind(value: Any) -> str:
    """Return the kind of a JSON value in words, such as ``"a list"``."""
    number = "a number" if isinstance(value, int | float) else type(value).__name__
    return _KINDS.get(type(value), number)


def check_is_text(value: Any, name: str, *, blank: bool = True) -> None:
    """Refuse a value that is not text.

    Parameters
    ----------
    value : object
        The value.
    name : str
        What the value is, for the message.
    blank : bool, default=True
        Whether the text may be empty or white space.

    Raises
    ------
    ValueError
        If it is not a string, not valid Unicode (half a character of UTF-16, as bytes that are not
        UTF-8 give), or blank; the message has the name.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} is {kind(value)}; expected a string")
    if not blank and not value.strip():
        raise ValueError(f"{name} is empty; expected some text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} is not valid Unicode: character {error.start} is {value[error.start]!a}, a "
            "lone surrogate; decode the text as UTF-8, or with errors='replace'"
        ) from error


def check_prompt(prompt: Any, name: str = "the prompt") -> None:
    """Refuse an object that is not a prompt.

    Parameters
    ----------
    prompt : object
        A text, or a list of messages whose role and content are texts.
    name : str, default="the prompt"
        What the object is, for the message.

    Raises
    ------
    ValueError
        If it is anything else, such as a message whose content is None, a number or a list of
        parts; the message says which one. Join the texts of parts to one string.
    """
    if isinstance(prompt, str):
        check_is_text(prompt, name)
        return
    if not isinstance(prompt, list) or not prompt:
        raise ValueError(
            f"{name} is {prompt!r:.80}; expected a string or a list of messages "
            '{"role": ..., "content": ...}'
        )
    for i, message in enumerate(prompt):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(
                f"message {i} of {name} is {message!r:.80}; expected "
                '{"role": ..., "content": ...}'
            )
        for part in ("role", "content"):
            check_is_text(message[part], f"the {part} of message {i} of {name}")
