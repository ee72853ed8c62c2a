"""Prompts as plain text."""

from __future__ import annotations

from cvxnn.preference.data import Prompt


def as_text(prompt: Prompt) -> str:
    """Prompt as one text; the turns of a conversation are headed by their roles."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in prompt)
