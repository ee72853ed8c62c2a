"""Embeddings on disk: how they are written, read and verified."""
