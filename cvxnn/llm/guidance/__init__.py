"""Guided decoding: replies that a language model finds likely and a reward head finds good."""
