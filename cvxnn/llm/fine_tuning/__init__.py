"""LoRA fine-tuning of a language model on preferences, on replies, or on both at once."""

from cvxnn._extras import check_packages

check_packages("peft", extra="llm")
