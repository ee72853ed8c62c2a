"""Files: written whole or not at all, one process at a time; digests of what they hold."""
