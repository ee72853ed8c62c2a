"""Joint supervised and preference post-training of a softmax policy."""
