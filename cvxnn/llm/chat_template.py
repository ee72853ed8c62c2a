"""Chat templates: a conversation as one text, on a fixed date, and the token that ends a turn."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import jinja2

from cvxnn.preference.triplets import Message

if TYPE_CHECKING:
    import transformers

DATE = datetime.date(2024, 7, 26)  # the one that the template of Llama 3 falls back on
_MARK = "cvxnn"  # stands for a reply
_PADDED = "dHIjmMSy"  # directives whose leading zeros "%-d" leaves out
# Templates call strftime_now, which would make tokens depend on the day of the call. A macro of
# that name hides the function; transformers passes plain values to templates, and no functions.
_FIXED_DATE = (
    "{%- macro strftime_now(format) %}{% set ns = namespace(text=format) %}"
    "{% for directive, value in fixed_date.items() %}"
    "{% set ns.text = ns.text.replace(directive, value) %}{% endfor %}{{ ns.text }}{% endmacro %}\n"
)


def render(
    tokenizer: transformers.PreTrainedTokenizerBase,
    messages: list[Message],
    date: datetime.date,
    *,
    reply_follows: bool = True,
) -> str:
    """Return a conversation as the text that a model reads.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Tokenizer with a chat template.
    messages : list of Message
        The conversation.
    date : datetime.date
        What the template takes for today; the time is midnight.
    reply_follows : bool, default=True
        Whether the text ends where the reply of the assistant begins.

    Returns
    -------
    str
        The text, special tokens included.

    Raises
    ------
    jinja2.TemplateError
        If the template rejects the messages.
    """
    template, options = on_date(tokenizer.get_chat_template(), date)
    text: str = tokenizer.apply_chat_template(
        messages,
        chat_template=template,
        add_generation_prompt=reply_follows,
        tokenize=False,
        **options,
    )
    return text


def on_date(template: str, date: datetime.date) -> tuple[str, dict[str, dict[str, str]]]:
    """Return a chat template that does not ask what day it is.

    Parameters
    ----------
    template : str
        The chat template.
    date : datetime.date
        What it takes for today.

    Returns
    -------
    template : str
        The template to render.
    options : dict
        Variables that it needs besides.
    """
    if "strftime_now" not in template:
        return template, {}
    return _FIXED_DATE + template, {"fixed_date": _directives(date)}


def end_of_turn(tokenizer: transformers.PreTrainedTokenizerBase, date: datetime.date) -> int | None:
    """Return the token that ends a reply.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer.
    date : datetime.date
        As for `render`.

    Returns
    -------
    int or None
        The first special token that the chat template writes after a reply; without one, the
        ``eos_token``; None if there is none either.
    """
    end: int | None = tokenizer.eos_token_id
    if tokenizer.chat_template is None:
        return end
    turns = [{"role": role, "content": _MARK} for role in ("user", "assistant")]
    try:
        _, _, after = render(tokenizer, turns, date, reply_follows=False).rpartition(_MARK)
    except jinja2.TemplateError:
        return end
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    tokens = tokenizer(after, add_special_tokens=False)["input_ids"]
    return next((token for token in tokens if token in special), end)


def _directives(date: datetime.date) -> dict[str, str]:
    """Return the directives of ``strftime`` with their values."""
    moment = datetime.datetime.combine(date, datetime.time())
    values = {f"%{letter}": moment.strftime(f"%{letter}") for letter in "aAbBcFGpTuUVwWxXY%"}
    for letter in _PADDED:
        value = moment.strftime(f"%{letter}")
        values.update({f"%{letter}": value, f"%-{letter}": value.lstrip("0") or "0"})
    return values
